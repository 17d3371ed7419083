"""Pages, pictures and tables of what a run found."""

from jaxad.report.content import Case, ReportContent, Scale, ScoreRow, common_scale
from jaxad.report.figures import heat_map, outline, overlay, panel_strip
from jaxad.report.html import write_report
from jaxad.report.tables import format_metrics_table, format_seconds, markdown_table

__all__ = [
    "Case",
    "ReportContent",
    "Scale",
    "ScoreRow",
    "common_scale",
    "format_metrics_table",
    "format_seconds",
    "heat_map",
    "markdown_table",
    "outline",
    "overlay",
    "panel_strip",
    "write_report",
]
