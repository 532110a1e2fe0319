"""Write docs/forms-compared.md and its figure from the JSON files of `forms.py`.

    python benchmarks/forms_page.py

The text is `forms_compared.md.jinja`; every table and every figure in it comes from the files.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import forms_sentences
from common import HERE
from forms_file import SHARES, Results, path_of, read
from forms_format import BAR, percent, ratio, short, table, wrapped
from forms_networks import NETWORKS
from forms_summary import MAIN, MENU, Summary
from forms_svg import figure
from jinja2 import Environment, FileSystemLoader, StrictUndefined

STACKS = ("vdsr_stack", "resnet20_stacks", "llama2c_stacks", "llama2c_heads")

KERNELS = ("vdsr", "resnet20", "resnet56")
"""Networks of 3x3 layers."""

SUGGESTED = ("svd", "group_svd", "cp", "cp4", "block_term")

MENUS: dict[str, Sequence[str]] = {
    "before": MENU,
    **{f"without {form}": [other for other in MENU if other != form] for form in MENU},
    **{f"with {form}": (*MENU, form) for form in ("cp4", "group_svd", "tt", "tr", "coupled_cp", "kronecker")},
    ", ".join(SUGGESTED): SUGGESTED,
    "svd, group_svd, cp": ("svd", "group_svd", "cp"),
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
        self.kernels = [self.main[name] for name in KERNELS if name in self.main]
        self.titles = {name: NETWORKS[name].title for name in self.results}

    def figure(self) -> str:
        return figure(self.main, self.titles)

    def measured(self) -> str:
        """What was measured, network by network, and where the figures come from."""
        lines = []
        for name, results in self.results.items():
            network, sources = NETWORKS[name], results.provenance
            commits = ", ".join(dict.fromkeys(source["commit"][:9] for source in sources))
            done = f"{len(results.sites)} of {results.settings.get('sites', '?')}"
            points = sum(len(fitted.points) for fitted in results.fits)
            which = network.layers or "stacks"
            lines.append([network.title, network.inputs, which, done, f"{points:,}", commits])
        return table(["network", "calibrated on", "sites", "measured", "errors", "commits"], lines, left=6)

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
            key=lambda form: (-sum(column[form] for columns in counts.values() for column in columns), form),
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

    def kinds(self, share: float = 0.25) -> str:
        """The three best forms of every kind of layer, by their medians in the input norm, and the svd."""
        rows = []
        for name, summary in self.main.items():
            for kind, layers in summary.kinds().items():
                errors = {form: summary.error(form, "inputs", share, layers=layers) for form in summary.forms}
                best = sorted(errors, key=lambda form: errors[form])[:3]
                cells = [f"{form} {short(errors[form])}" for form in best]
                rows.append([f"{self.titles[name]}, {kind}", len(layers), *cells, short(errors["svd"])])
        return table(["kind", "layers", "best", "second", "third", "svd"], rows)

    def menus(self, unit: str, shares: Sequence[float] = (0.5, 0.25, 0.1)) -> str:
        """What the best choice from a menu loses over the best of all forms, in per cent of its error, where a share
        of the parameters or of the MACs is allowed."""
        lost = {"params": Summary.menu, "macs": Summary.menu_macs}[unit]
        rows = [
            [
                title,
                *(" · ".join(f"{100 * (lost(summary, forms, s) - 1):.0f}" for s in shares) for summary in summaries),
            ]
            for title, forms in MENUS.items()
            for summaries in [self.main.values()]
        ]
        return table(["menu", *(self.titles[name] for name in self.main)], rows)

    def stack_table(self, shares: Sequence[float] = (0.5, 0.25, 0.1)) -> str:
        """Every stack: the errors of its forms in the input norm, and of the svd with free ranks."""

        def cell(summary: Summary, layer: str, form: str) -> str:
            points = [summary.point(layer, form, "inputs", share) for share in shares]
            return " · ".join("-" if point is None else short(point.held_out_error) for point in points)

        free = {(row["network"], row["site"], row["share"]): row["held_out_error"] for row in self._rows("free_ranks")}
        control = {
            (name, layer): " · ".join(short(free[name, layer, share]) for share in shares)
            for name, layer, share in free
            if share == shares[0]
        }
        return self._each_stack(cell, control)

    def stack_macs(self, share: float = 0.25) -> str:
        """Every stack: the MACs that its forms keep."""

        def cell(summary: Summary, layer: str, form: str) -> str:
            point = summary.point(layer, form, "inputs", share)
            return "-" if point is None else percent(point.macs / summary.results.sites[layer]["macs"])

        return self._each_stack(cell, {})

    def _each_stack(self, cell: Callable[[Summary, str, str], str], control: Mapping[tuple[str, str], str]) -> str:
        """A row for every stack, a column for every form; those of heads stand under the form without their number."""
        groups = {form.split("/")[0]: None for summary in self.stacks.values() for form in summary.forms}
        forms = sorted(groups, key=lambda form: (form.startswith("stack"), form))
        rows = []
        for name, summary in self.stacks.items():
            for layer in summary.layers:
                here = {form.split("/")[0]: form for form in summary.forms if summary.point(layer, form, "inputs", 0.5)}
                cells = [cell(summary, layer, here[form]) if form in here else "" for form in forms]
                free = [control.get((name, layer), "")] if control else []
                which = f"{NETWORKS[name].title.split(',')[0]}: `{layer.replace('|', BAR)}`"
                rows.append([which, summary.results.sites[layer]["shape"], *cells, *free])
        return table(["stack", "shape", *forms, *(["svd, free ranks"] if control else [])], rows)

    def worst_layers(self) -> str:
        """The relative error of the layer of each stack that fares worst."""
        found = [row for row in self._rows("free_ranks") if row.get("worst_layer")]
        forms = list(found[0]["worst_layer"]) if found else []
        rows = [
            [
                f"{NETWORKS[row['network']].title.split(',')[0]}: `{row['site'].replace('|', BAR)}`",
                *(short(row["worst_layer"][form]) for form in forms),
            ]
            for row in found
        ]
        return table(["stack", *forms], rows)

    def _rows(self, name: str) -> list[dict[str, Any]]:
        """Those of a smaller file beside the main ones."""
        path = (self.folder or HERE / "results") / f"forms_{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []

    def choices(self) -> str:
        """How far the arrangement or ranks that are chosen are from the best ones that were tried."""
        rows, found = [], self._rows("choices")
        for form in dict.fromkeys(row["form"] for row in found):
            mine = [row for row in found if row["form"] == form]
            lost = [row["error"] / row["best_error"] for row in mine]
            worst = mine[lost.index(max(lost))]
            where = f"{worst['site']}, {percent(worst['share'])}: {worst['chosen']}, best {worst['best']}"
            best = sum(row["chosen"] == row["best"] for row in mine)
            rows.append([form, f"{best} of {len(mine)}", ratio(median(lost), 2), ratio(max(lost), 2), where])
        return table(["form", "best one chosen", "median error over best", "worst", "where"], rows, left=1)

    def kind(self, name: str, kind: str, form: str, share: float = 0.25) -> str:
        """The median error of a form on one kind of layer, in the input norm."""
        summary = self.main[name]
        return short(summary.error(form, "inputs", share, layers=summary.kinds()[kind]))

    def pruned(self, name: str, kind: str, share: float = 0.25) -> str:
        """The median error where input channels are kept and refitted."""
        layers = self.main[name].kinds()[kind]
        rows = [row for row in self._rows("pruned") if row["network"] == name and row["site"] in layers]
        found = [row["held_out_error"] for row in rows if row["share"] == share]
        return short(median(found) if found else None)

    def lost(self, name: str, menu: str, share: float) -> str:
        """What a menu loses over the best of all forms, in per cent."""
        return f"{100 * (self.main[name].menu(MENUS[menu], share) - 1):.0f}"

    def times(self, name: str, form: str, better: str, share: float = 0.25) -> str:
        """How much larger the median error of one form is than that of another."""
        return ratio(self.main[name].error(form, "inputs", share) / self.main[name].error(better, "inputs", share))

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
        return table(["forms", "why", "shapes"], rows, left=2)

    def render(self) -> str:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
        )
        environment.filters |= {"short": short, "percent": percent, "ratio": ratio}
        return wrapped(
            environment.get_template("forms_compared.md.jinja").render(page=self, main=self.main, said=forms_sentences)
        )


def main() -> None:
    docs, page = HERE.parent / "docs", Page()
    if not page.main:
        sys.exit("There are no figures yet: run benchmarks/forms.py first.")
    (docs / "forms_error.svg").write_text(page.figure(), encoding="utf-8")
    (docs / "forms-compared.md").write_text(page.render(), encoding="utf-8")


if __name__ == "__main__":
    main()
