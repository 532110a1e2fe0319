"""Write a result as a folder that loads again and explains itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from polyad.checkpoint import save_network
from polyad.folders import whole_folder
from polyad.pipeline import Result
from polyad.report import model_card, write_report

RECIPE = "recipe.yaml"


def save(result: Result, folder: str | Path, *, recipe: Mapping[str, Any] | None = None) -> None:
    """Write the network, its plan, the report (JSON and HTML), a model card and the recipe.

    Args:
        result: from `compress`.
        folder: new or empty; it appears only when all of it has been written.
        recipe: the options that made the result, for `polyad compress --recipe`.

    Raises:
        CheckpointError: the folder is not empty or cannot be written.
    """
    with whole_folder(folder) as draft:
        save_network(result.model, result.plan, draft)
        write_report(result.report, draft)
        (draft / "README.md").write_text(model_card(result.report), encoding="utf-8")
        if recipe is not None:
            text = "# polyad compress --recipe recipe.yaml --out DIR\n" + yaml.safe_dump(dict(recipe), sort_keys=False)
            (draft / RECIPE).write_text(text, encoding="utf-8")
