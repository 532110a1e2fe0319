"""`polyad plan`: decide only."""

from pathlib import Path
from typing import Any

from polyad.budget import Budget
from polyad.checkpoint import write_plan
from polyad.cli.compress import open_run, tell
from polyad.cli.console import bars, print_json, say
from polyad.cli.unfinished import unfinished
from polyad.errors import BudgetError, CheckpointError
from polyad.pipeline import plan


def run(
    *, budget: list[str] | None, out: Path | None, resume: bool, as_json: bool, quiet: bool, **options: Any
) -> None:
    if not budget:
        raise BudgetError("Say what to keep, as in --budget params=50%.")
    wanted = Budget.parse(budget)
    if out is not None and not out.absolute().parent.is_dir():
        raise CheckpointError(f"{out.parent} is no folder, so {out} cannot be written.")
    if out is not None and out.is_dir():
        raise CheckpointError(f"{out} is a folder; name a file for the plan, such as {out / 'plan.json'}.")
    with unfinished(out, resume=resume, quiet=quiet or as_json) as work:
        source, data, settings = open_run(**options, validate=wanted.drop is not None)
        tell(source, data, quiet)
        progress = bars(quiet or as_json)
        found = plan(
            source.module,
            data.calibration,
            budget=wanted,
            validation=data.validation,
            work=work,
            progress=progress,
            **dict(settings),
        )
        found = found.model_copy(update={"model": options["model"]})
        if out is not None:
            write_plan(found, out)
    if as_json:
        print_json(found.model_dump())
    else:
        say(str(found), quiet)
        say(f"written to {out}" if out else "add --out plan.json to keep it", quiet)
