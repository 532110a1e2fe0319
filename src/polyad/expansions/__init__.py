"""Expansions: modules that read bare weights as equal modules of linear layers; one file each, registered beside the
code."""
