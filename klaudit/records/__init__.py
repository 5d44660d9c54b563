"""Frozen records that cross borders; standard library only."""

from klaudit.records.alert import Alert
from klaudit.records.budget import KLBudget
from klaudit.records.checkpoint import Checkpoint, ReferenceModel
from klaudit.records.drift import DriftMeasurement
from klaudit.records.drift_profile import DriftProfile, Interval, LayerDrift, Retention, SliceContrast
from klaudit.records.drift_shard import DriftShard, MeasuredSequence
from klaudit.records.finding import Finding, Severity, identify_finding
from klaudit.records.limit_change import BudgetTerm, LimitChange, list_limit_changes
from klaudit.records.rollup import RollUp
from klaudit.records.run import Run, RunSummary, Segment
from klaudit.records.series import PRIMARY, UNDECLARED, UNIT_LABELS, KLReading, KLSeries, find_governing_series, find_update_series
from klaudit.records.step import LoggedStep, StepRecord, TextSample, TokenScore

__all__ = [
    "PRIMARY",
    "UNDECLARED",
    "UNIT_LABELS",
    "Alert",
    "BudgetTerm",
    "Checkpoint",
    "DriftMeasurement",
    "DriftProfile",
    "DriftShard",
    "Finding",
    "Interval",
    "KLBudget",
    "KLReading",
    "KLSeries",
    "LayerDrift",
    "LimitChange",
    "LoggedStep",
    "MeasuredSequence",
    "ReferenceModel",
    "Retention",
    "RollUp",
    "Run",
    "RunSummary",
    "Segment",
    "Severity",
    "SliceContrast",
    "StepRecord",
    "TextSample",
    "TokenScore",
    "find_governing_series",
    "find_update_series",
    "identify_finding",
    "list_limit_changes",
]
