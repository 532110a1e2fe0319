"""Reference networks, so that public checkpoints load: one file per family, registered beside the code."""
