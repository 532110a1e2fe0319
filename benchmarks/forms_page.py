"""Write docs/forms-compared.md and its figure from the JSON files of `forms.py`.

    python benchmarks/forms_page.py

The text is `forms_compared.md.jinja`; every table and every figure in it comes from the files.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from common import HERE
from forms_file import SHARES, Results, path_of, read
from forms_networks import NETWORKS
from forms_summary import MAIN, MENU, Summary
from forms_svg import figure
from jinja2 import Environment, FileSystemLoader, StrictUndefined

STACKS = ("vdsr_stack", "resnet20_stacks", "llama2c_stacks", "llama2c_heads")

KERNELS = ("vdsr", "resnet20", "resnet56")
"""Networks of 3x3 layers."""

MENUS: dict[str, Sequence[str]] = {
    "today": MENU,
    **{f"without {form}": [other for other in MENU if other != form] for form in MENU},
    "cp, svd": ("cp", "svd"),
    "cp alone": ("cp",),
    **{f"with {form}": (*MENU, form) for form in ("cp4", "tt", "group_svd", "tucker", "coupled_cp", "filter_cp")},
}
"""Menus that are compared."""


class Page:
    """What the template asks for.

    Args:
        folder: of the JSON files; networks that have none are left out.
    """

    def __init__(self, folder: Path | None = None) -> None:
        found = {name: path_of(name, folder) for name in (*MAIN, *STACKS)}
        self.folder = folder
        self.results: dict[str, Results] = {name: read(path) for name, path in found.items() if path.exists()}
        self.main = {name: Summary(self.results[name], MAIN[name]) for name in MAIN if name in self.results}
        self.stacks = {name: Summary(self.results[name]) for name in STACKS if name in self.results}
        self.titles = {name: NETWORKS[name].title for name in self.results}

    def figure(self) -> str:
        return figure(self.main, self.titles)

    def measured(self) -> str:
        """What was measured, network by network, and where the figures come from."""
        lines = []
        for name, results in self.results.items():
            network, sources = NETWORKS[name], results.provenance
            commits = ", ".join(dict.fromkeys(source["commit"][:9] for source in sources))
            done = f"{len(results.sites)} of {results.settings['sites']}"
            points = sum(len(fitted.points) for fitted in results.fits)
            which = network.layers or "stacks"
            lines.append([network.title, network.inputs, which, done, f"{points:,}", commits])
        return table(["network", "calibrated on", "sites", "measured", "errors", "commits"], lines)

    def machine(self) -> str:
        source = next(iter(self.results.values())).provenance[-1]
        versions = ", ".join(f"{key} {value}" for key, value in source["versions"].items())
        return f"{source['machine']}; Python {source['python']}, {versions}; seed {source['seed']}"

    def steps(self) -> int:
        return next(iter(self.results.values())).settings["steps"]

    def medians(self, name: str) -> str:
        """Both fits of every form at every share."""
        summary = self.main[name]
        rows = [
            [form, *(f"{short(summary.error(form, 'weights', s))} / {self._best(summary, form, s)}" for s in SHARES)]
            for form in summary.forms
        ]
        return table(["form", *map(percent, SHARES)], rows)

    def _best(self, summary: Summary, form: str, share: float) -> str:
        """The input norm's median, bold where no form has a smaller one."""
        error = summary.error(form, "inputs", share)
        least = min(summary.error(other, "inputs", share) for other in summary.forms)
        return f"**{short(error)}**" if error == least else short(error)

    def wins(self, norm: str = "inputs", shares: Sequence[float] = (0.5, 0.25, 0.1)) -> str:
        """On how many layers each form errs least; forms that never do are left out."""
        counts = {name: [summary.wins(norm, share) for share in shares] for name, summary in self.main.items()}
        forms = sorted(
            {form for columns in counts.values() for column in columns for form in column},
            key=lambda form: -sum(column[form] for columns in counts.values() for column in columns),
        )
        rows = [
            [form, *(" · ".join(str(column[form] or "-") for column in counts[name]) for name in counts)]
            for form in forms
        ]
        heads = [f"{self.titles[name]} ({len(self.main[name].layers)})" for name in counts]
        return table(["form", *heads], rows)

    def worth(self, share: float = 0.25) -> str:
        """What the input norm divides the error by."""
        return self._each(lambda summary, form: ratio(summary.worth(form, share)))

    def unseen(self, share: float = 0.25) -> str:
        return self._each(lambda summary, form: ratio(summary.unseen(form, share), 2))

    def grown(self, share: float = 0.25) -> str:
        return self._each(lambda summary, form: percent(summary.grown(form, share)))

    def macs(self, share: float = 0.25) -> str:
        return self._each(lambda summary, form: percent(summary.macs(form, share)))

    def seconds(self, norm: str = "inputs") -> str:
        return self._each(lambda summary, form: f"{summary.seconds(form, norm):.1f}")

    def _each(self, cell: Callable[[Summary, str], str]) -> str:
        """A row for every form, a column for every network."""
        forms = list(dict.fromkeys(form for summary in self.main.values() for form in summary.forms))
        rows = [
            [form, *(cell(summary, form) if form in summary.forms else "" for summary in self.main.values())]
            for form in forms
        ]
        return table(["form", *(self.titles[name] for name in self.main)], rows)

    def menus(self, shares: Sequence[float] = (0.5, 0.25, 0.1)) -> str:
        """What the best choice of a menu leaves over the best of all forms, in per cent of its error."""
        rows = []
        for title, forms in MENUS.items():
            cells = [
                " · ".join(f"{100 * (self.main[name].menu(forms, share) - 1):.0f}" for share in shares)
                for name in KERNELS
                if name in self.main
            ]
            cells += [
                " · ".join(f"{100 * (self.main[name].menu_macs(forms, share) - 1):.0f}" for share in shares)
                for name in KERNELS
                if name in self.main
            ]
            rows.append([title, *cells])
        heads = [self.titles[name] for name in KERNELS if name in self.main]
        return table(["menu", *(f"{head}, parameters" for head in heads), *(f"{head}, MACs" for head in heads)], rows)

    def stack_table(self, shares: Sequence[float] = (0.5, 0.25, 0.1)) -> str:
        """Every stack: its forms in the input norm."""
        forms = list(dict.fromkeys(form for summary in self.stacks.values() for form in summary.forms))
        forms.sort(key=lambda form: (form.startswith("stack"), form))
        rows = []
        for name, summary in self.stacks.items():
            for layer in summary.layers:
                cells = [self._stack_cell(summary, layer, form, shares) for form in forms]
                rows.append([f"{self.titles[name]}: `{layer}`", summary.results.sites[layer]["shape"], *cells])
        return table(["stack", "shape", *forms], rows)

    def _stack_cell(self, summary: Summary, layer: str, form: str, shares: Sequence[float]) -> str:
        if form not in summary.forms or layer not in summary.carried(form):
            return ""
        points = [summary.point(layer, form, "inputs", share) for share in shares]
        return " · ".join("-" if point is None else short(point.held_out_error) for point in points)

    @cached_property
    def _choices(self) -> list[dict[str, Any]]:
        path = (self.folder or HERE / "results") / "forms_choices.json"
        return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []

    def choices(self) -> str:
        """How far the arrangement or ranks that are chosen are from the best ones that were tried."""
        rows = []
        for form in dict.fromkeys(row["form"] for row in self._choices):
            mine = [row for row in self._choices if row["form"] == form]
            lost = [row["error"] / row["best_error"] for row in mine]
            worst = mine[lost.index(max(lost))]
            where = f"{worst['site']}, {percent(worst['share'])}: {worst['chosen']}, best {worst['best']}"
            best = sum(row["chosen"] == row["best"] for row in mine)
            rows.append([form, f"{best} of {len(mine)}", ratio(median(lost), 2), ratio(max(lost), 2), where])
        return table(["form", "best one chosen", "median error over best", "worst", "where"], rows)

    def refused(self) -> str:
        """Which forms are missing at which shapes of the main networks, and why."""
        reasons: dict[str, dict[str, list[str]]] = {}
        for name in self.main:
            for shape, forms in self.results[name].refused.items():
                for form, reason in forms.items():
                    reasons.setdefault(reason.split(":")[0], {}).setdefault(form, []).append(shape)
        rows = [
            [", ".join(sorted(forms)), reason, str(len({shape for shapes in forms.values() for shape in shapes}))]
            for reason, forms in sorted(reasons.items(), key=lambda item: -len(item[1]))
        ]
        return table(["forms", "why", "shapes"], rows)

    def render(self) -> str:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
        )
        environment.filters |= {"short": short, "percent": percent, "ratio": ratio}
        return environment.get_template("forms_compared.md.jinja").render(page=self, main=self.main, stacks=self.stacks)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, its first column to the left."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def short(error: float | None) -> str:
    """ ".043": two significant digits."""
    if error is None:
        return "-"
    digits = 3 if error < 0.1 else 2
    return f"{error:.{digits}f}".removeprefix("0") if error < 1 else f"{error:.1f}"


def ratio(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def main() -> None:
    docs, page = HERE.parent / "docs", Page()
    if not page.main:
        sys.exit("There are no figures yet: run benchmarks/forms.py first.")
    (docs / "forms_error.svg").write_text(page.figure(), encoding="utf-8")
    (docs / "forms-compared.md").write_text(page.render(), encoding="utf-8")


if __name__ == "__main__":
    main()
