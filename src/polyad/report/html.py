"""One HTML page that needs nothing but itself."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from polyad.outcome import Report
from polyad.report import wording
from polyad.report.plots import energy_plot, plotly_script, savings_plot


def render_html(report: Report) -> str:
    """The page of a report: figures, plots and tables in one file, without any load from elsewhere."""
    return _template().render(
        report=report,
        cost=wording.cost_rows(report),
        quality=wording.quality_rows(report),
        curve=wording.curve_rows(report),
        curve_titles=wording.CURVE_TITLES,
        standard_error=report.after is not None and report.after.standard_error is not None,
        plotly=Markup(plotly_script()) if report.sites else "",
        savings=Markup(savings_plot(report.sites)) if report.sites else "",
        energy=Markup(energy_plot(report.sites)),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("polyad.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": wording.count,
        "percent": wording.percent,
        "figure": wording.figure,
        "rank": wording.rank,
    }
    environment.globals |= {"headline": wording.headline, "latency_lines": wording.latency_lines}
    return environment.get_template("page.html.jinja")
