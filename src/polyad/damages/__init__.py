"""Damages: what makes the errors of different layers comparable, so that allocators can add them up; one file each,
registered beside the code."""
