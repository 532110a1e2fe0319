"""The report of one compression: as a record in a file, as an HTML page, in the terminal, as a model card."""

from polyad.report.card import model_card
from polyad.report.files import read_report, write_report
from polyad.report.html import render_html
from polyad.report.terminal import print_report

__all__ = ["model_card", "print_report", "read_report", "render_html", "write_report"]
