"""Views: records in, plain frozen data out, for page and report alike."""

from klaudit.report.views.budget import BudgetUse
from klaudit.report.views.curve import Curve, Gap
from klaudit.report.views.drift import DriftPoint, DriftView, LoggedKL, view_drift
from klaudit.report.views.figure import Figure, format_count, format_number, format_percent, format_reading
from klaudit.report.views.run import METRICS, Marker, RunView, view_run
from klaudit.report.views.runs import RunRow, RunsView, view_runs
from klaudit.report.views.sample import SampleView, TokenView, view_sample

__all__ = [
    "METRICS",
    "BudgetUse",
    "Curve",
    "DriftPoint",
    "DriftView",
    "Figure",
    "Gap",
    "LoggedKL",
    "Marker",
    "RunRow",
    "RunView",
    "RunsView",
    "SampleView",
    "TokenView",
    "format_count",
    "format_number",
    "format_percent",
    "format_reading",
    "view_drift",
    "view_run",
    "view_runs",
    "view_sample",
]
