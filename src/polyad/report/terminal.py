"""The report as tables in a terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyad.outcome import Report, SiteReport
from polyad.records import Refusal
from polyad.report import wording


def print_report(report: Report, console: Console) -> None:
    """Print rows per site, totals before and after, quality and what was refused."""
    if report.sites:
        console.print(_sites(report.sites))
        console.print()
    console.print(_table(("cost", "before", "after", "kept", "removed"), wording.cost_rows(report)))
    quality = wording.quality_rows(report)
    if quality:
        console.print()
        console.print(_table(("quality", "before", "after", "change"), quality))
    if report.curve:
        console.print()
        console.print(_table(wording.CURVE_TITLES, wording.curve_rows(report)))
    console.print()
    rule = [f"{report.allocator}: {report.rule}"] if report.rule else []
    for line in (*_refused(report.refused), *rule, *wording.latency_lines(report), *report.recovered):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(wording.headline(report), style="bold"), soft_wrap=True)


def _sites(sites: Iterable[SiteReport]) -> Table:
    rows = [
        (
            site.name,
            site.form,
            wording.rank(site.rank),
            f"{wording.count(site.params_before)} → {wording.count(site.params)}",
            wording.percent(site.params / site.params_before if site.params_before else None),
            wording.percent(site.macs / site.macs_before if site.macs_before else None),
            wording.figure(site.output_error if site.held_out_error is None else site.held_out_error),
        )
        for site in sites
    ]
    return _table(("layer", "form", "rank", "parameters", "kept", "MACs kept", "output error"), rows, names=2)


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], names: int = 1) -> Table:
    """A plain table whose first `names` columns hold words and the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, title in enumerate(titles):
        if at < names:
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _refused(refused: Iterable[Refusal]) -> list[str]:
    """One line per reason."""
    groups: dict[str, list[Refusal]] = {}
    for refusal in refused:
        groups.setdefault(refusal.reason, []).append(refusal)
    return [_refusal_line(reason, group) for reason, group in groups.items()]


def _refusal_line(reason: str, group: list[Refusal], shown: int = 3) -> str:
    names = ", ".join(refusal.name for refusal in group[:shown])
    more = f" and {len(group) - shown} more" if len(group) > shown else ""
    params = wording.count(sum(refusal.params for refusal in group))
    return f"left dense: {names}{more} ({params} parameters): {reason}"
