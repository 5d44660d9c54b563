"""Views: records in, plain frozen data out, for page and report alike."""

from klaudit.report.views.budget import BudgetUse
from klaudit.report.views.capture import (
    CaptureView,
    ImportedFrom,
    RecordedCode,
    RecordedPart,
    RecordedSegment,
    RecordedSeries,
    RunLedger,
    WaitingSteps,
    view_capture,
)
from klaudit.report.views.curve import NOT_MEASURED, Curve, Gap
from klaudit.report.views.drift import DriftPoint, DriftView, LoggedKL, view_drift
from klaudit.report.views.figure import Figure, format_count, format_number, format_percent, format_reading, format_significant
from klaudit.report.views.long_run import LongRun, list_drawn_keys, needs_every_step, view_long_run
from klaudit.report.views.run import METRICS, Marker, RunView, view_run
from klaudit.report.views.runs import RunRow, RunsView, view_runs
from klaudit.report.views.sample import SampleView, TokenView, view_sample

__all__ = [
    "METRICS",
    "NOT_MEASURED",
    "BudgetUse",
    "CaptureView",
    "Curve",
    "DriftPoint",
    "DriftView",
    "Figure",
    "Gap",
    "ImportedFrom",
    "LoggedKL",
    "LongRun",
    "Marker",
    "RecordedCode",
    "RecordedPart",
    "RecordedSegment",
    "RecordedSeries",
    "RunLedger",
    "RunRow",
    "RunView",
    "RunsView",
    "SampleView",
    "TokenView",
    "WaitingSteps",
    "format_count",
    "format_number",
    "format_percent",
    "format_reading",
    "format_significant",
    "list_drawn_keys",
    "needs_every_step",
    "view_capture",
    "view_drift",
    "view_long_run",
    "view_run",
    "view_runs",
    "view_sample",
]
