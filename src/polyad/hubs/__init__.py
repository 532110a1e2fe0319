"""Hubs: where networks come from by name; one file per library, registered beside the code."""
