"""One self-contained HTML file per run, and one that compares runs. Never imports torch."""

from rlaif.report.build import ReportWriter, build_report
from rlaif.report.compare import compare_report

__all__ = ["ReportWriter", "build_report", "compare_report"]
