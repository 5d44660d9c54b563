"""Views of the data, and one file per format of report."""

from klaudit.report.document import Report, build_report
from klaudit.report.render import FORMATS, render_report

__all__ = ["FORMATS", "Report", "build_report", "render_report"]
