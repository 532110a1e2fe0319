"""What an installation has to hold: quick help, and the files that are not Python."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import polyad

HELP = """
import sys
from polyad.cli import main
sys.argv = ["polyad", "--help"]
try:
    main()
finally:
    slow = {"torch", "scipy", "sklearn", "plotly"} & set(sys.modules)
    sys.stderr.write(f"imported: {sorted(slow)}")
"""


def test_help_is_quick() -> None:
    """`polyad --help` imports nothing that takes long."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "compress" in done.stdout
    assert done.stderr.endswith("imported: []")


def test_files_that_are_not_python_come_along() -> None:
    assert files("polyad").joinpath("py.typed").is_file()
    assert files("polyad.report").joinpath("page.html.jinja").is_file()


def test_no_file_shadows_a_public_name() -> None:
    """`polyad.evaluate` would be a module as soon as anything imports a file of that name."""
    here = Path(polyad.__file__).parent
    modules = {path.stem for path in here.glob("*.py")} | {path.parent.name for path in here.glob("*/__init__.py")}
    assert modules.isdisjoint(polyad.__all__)
    assert all(callable(getattr(polyad, name)) for name in polyad.__all__)
