"""Polyad."""
