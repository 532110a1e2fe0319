"""The command line: `app` says what can be asked, one file per command does it."""

from polyad.cli.app import main

__all__ = ["main"]
