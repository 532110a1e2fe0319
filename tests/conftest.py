"""What several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real networks and test sets, named by the environment variable POLYAD_DATA."""
    folder = os.environ.get("POLYAD_DATA")
    if not folder:
        pytest.skip("set POLYAD_DATA to the folder with the real networks")
    return Path(folder)
