"""report.json and report.html in a folder."""

from pathlib import Path

from pydantic import ValidationError

from polyad.errors import CheckpointError
from polyad.outcome import Report
from polyad.report.html import render_html

JSON, HTML = "report.json", "report.html"


def write_report(report: Report, folder: str | Path) -> None:
    """Write `report.json` and `report.html`; the folder is made where it is missing, older files are replaced.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    folder = Path(folder)
    texts = {JSON: report.model_dump_json(indent=2) + "\n", HTML: render_html(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            draft = folder / f".{name}.draft"
            draft.write_text(text, encoding="utf-8")
            draft.replace(folder / name)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}); name a folder that can.") from None


def read_report(folder: str | Path) -> Report:
    """Read the `report.json` of a folder.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = Path(folder) / JSON
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise CheckpointError(
            f"{path} is not there or not readable; name a folder that `polyad compress` wrote."
        ) from None
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(
            f"{path} is no report of this version of Polyad ({where}: {first['msg'].lower()}); compress again."
        ) from None
