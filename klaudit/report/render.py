"""One report, several formats."""

from collections.abc import Callable, Mapping

from klaudit.errors import InvalidConfig
from klaudit.report.document import Report
from klaudit.report.html import render_html
from klaudit.report.json import render_json
from klaudit.report.markdown import render_markdown

FORMATS: Mapping[str, Callable[[Report], str]] = {"html": render_html, "json": render_json, "md": render_markdown}
"""Every format by the name that `klaudit report --format` knows it by."""


def render_report(report: Report, *, format: str) -> str:
    """The report as text.

    Raises:
        InvalidConfig: a format that does not exist.
    """
    if format not in FORMATS:
        raise InvalidConfig(f"a report format must be one of {', '.join(sorted(FORMATS))}; got {format!r}")
    return FORMATS[format](report)
