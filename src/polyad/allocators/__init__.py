"""Allocators: how the budget is spent; one file each, registered beside the code."""
