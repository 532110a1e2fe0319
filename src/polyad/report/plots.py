"""The two plots of the page, as pieces of HTML that draw themselves with the page's own plotly.js."""

from collections.abc import Sequence
from html import escape
from math import floor, log10
from os.path import commonprefix

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from polyad.outcome import SiteReport
from polyad.records import DENSE
from polyad.report.wording import count, figure, percent, rank

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#882255",
    "#999933",
    "#332288",
    "#44aa99",
    "#661100",
    "#aa4499",
)
"""Distinct to colour-blind readers (Okabe and Ito, Tol)."""

THICKNESS = 0.75
"""Of a bar, of the room that a row has."""

GREY, FAINT = "#8a8f98", "rgba(138,143,152,0.28)"
CONFIG = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}
POINTS = 160
"""Points of one curve at most: a layer of 4,096 outputs needs no more on a screen."""

LOWEST = 1e-5
"""Where the energy axis ends at the latest."""


def plotly_script() -> str:
    """The source of plotly.js."""
    return get_plotlyjs()


def savings_plot(sites: Sequence[SiteReport]) -> str:
    """Parameters of every site before (faint) and after (coloured by form), the first layer at the top."""
    forms = sorted({site.form for site in sites}, key=lambda form: (form == DENSE, form))
    everything = range(len(sites))
    bars = [
        go.Bar(
            name="before",
            y=list(everything),
            x=[site.params_before for site in sites],
            marker_color=FAINT,
            orientation="h",
            width=THICKNESS,
            hoverinfo="skip",
        )
    ]
    for at, form in enumerate(forms):
        rows = [row for row in everything if sites[row].form == form]
        bars.append(
            go.Bar(
                name=escape(form),
                y=rows,
                x=[sites[row].params for row in rows],
                marker_color=GREY if form == DENSE else COLOURS[at % len(COLOURS)],
                orientation="h",
                width=THICKNESS,
                hovertext=[_hover(sites[row]) for row in rows],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    drawn = go.Figure(bars)
    drawn.update_layout(barmode="overlay", xaxis_title="parameters")
    drawn.update_yaxes(
        range=[len(sites) - 0.4, -0.6],
        tickvals=list(everything),
        ticktext=[escape(name) for name in _short([site.name for site in sites])],
        showgrid=False,
        zeroline=False,
    )
    return _html(drawn, "savings", height=110 + 19 * max(len(sites), 4))


def energy_plot(sites: Sequence[SiteReport]) -> str:
    """What the best linear approximation of each rank leaves out, and what the chosen forms do; "" without data."""
    curves = [site for site in sites if len(site.energy) > 1]
    if not curves:
        return ""
    depths = [at / max(len(curves) - 1, 1) for at in range(len(curves))]
    colours = [str(colour) for colour in sample_colorscale("Viridis", [0.2 + 0.7 * depth for depth in depths])]
    drawn = go.Figure([_curve(site, colour) for site, colour in zip(curves, colours, strict=True)])
    drawn.add_trace(_reached(curves, colours))
    drawn.update_layout(showlegend=False, hovermode="closest")
    lowest = max(LOWEST, min(share for site in curves for share in site.energy if share > 0))
    bottom = floor(log10(lowest))
    drawn.update_xaxes(title="rank", range=[0, max(len(site.energy) for site in curves) - 1])
    drawn.update_yaxes(title="energy left out", type="log", range=[bottom, 0.1], dtick=1, exponentformat="power")
    return _html(drawn, "energy", height=430)


def _curve(site: SiteReport, colour: str) -> go.Scatter:
    stride = max(1, len(site.energy) // POINTS)
    ranks = [r for r in range(0, len(site.energy), stride) if site.energy[r] > 0]
    return go.Scatter(
        x=ranks,
        y=[site.energy[r] for r in ranks],
        mode="lines",
        line={"color": colour, "width": 1.3},
        name=escape(site.name),
        hovertemplate=f"{escape(site.name)}<br>rank %{{x}}: %{{y:.3g}} left out<extra></extra>",
    )


def _reached(sites: Sequence[SiteReport], colours: Sequence[str]) -> go.Scatter:
    """A dot for every form with a single rank up to the full one, at its error on the inputs of the fit."""
    dots = [
        (site, colour)
        for site, colour in zip(sites, colours, strict=True)
        if len(site.rank) == 1 and site.rank[0] < len(site.energy) and site.output_error
    ]
    return go.Scatter(
        x=[site.rank[0] for site, _ in dots],
        y=[site.output_error for site, _ in dots],
        mode="markers",
        marker={"color": [colour for _, colour in dots], "size": 8, "line": {"color": GREY, "width": 1}},
        hovertext=[f"{_hover(site)}<br>{figure(site.output_error)} left out" for site, _ in dots],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _hover(site: SiteReport) -> str:
    kept = percent(site.params / site.params_before if site.params_before else None)
    return (
        f"<b>{escape(site.name)}</b> ({escape(site.label)})<br>{escape(site.form)}, rank {rank(site.rank)}"
        f"<br>parameters {count(site.params_before)} → {count(site.params)} ({kept} kept)"
        f"<br>MACs {count(site.macs_before)} → {count(site.macs)}"
    )


def _short(names: Sequence[str], longest: int = 26) -> list[str]:
    """Names without the modules that all share, long ones without their middle."""
    shared = commonprefix([name.split(".")[:-1] for name in names])
    half = (longest - 1) // 2
    rests = [".".join(name.split(".")[len(shared) :]) for name in names]
    return [rest if len(rest) <= longest else f"{rest[:half]}…{rest[-half:]}" for rest in rests]


def _html(drawn: go.Figure, name: str, height: int) -> str:
    axis = {"gridcolor": FAINT, "zerolinecolor": FAINT, "automargin": True, "fixedrange": True}
    drawn.update_xaxes(axis)
    drawn.update_yaxes(axis)
    drawn.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 12, "t": 36, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 12, "color": GREY},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        hoverlabel={"align": "left"},
    )
    return to_html(drawn, config=CONFIG, include_plotlyjs=False, full_html=False, div_id=name)
