"""A compressed network for other runtimes; one file each."""
