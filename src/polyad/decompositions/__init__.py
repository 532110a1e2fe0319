"""Decompositions: one file each, registered beside the code."""
