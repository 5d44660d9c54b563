"""What other tools write, and what klaudit hands to them: metric names and the `klaudit-steps/1` file."""

from klaudit.exchange.metric_map import FRAMEWORKS, Framework, detect_framework, read_logs, resolve_series
from klaudit.exchange.own_keys import extend_framework, read_metric_map
from klaudit.exchange.steps_file import StepsFile, read_steps_file, write_steps_file

__all__ = [
    "FRAMEWORKS",
    "Framework",
    "StepsFile",
    "detect_framework",
    "extend_framework",
    "read_logs",
    "read_metric_map",
    "read_steps_file",
    "resolve_series",
    "write_steps_file",
]
