"""What runs a network where its latency counts; one file each."""
