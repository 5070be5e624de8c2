"""Reports: one self-contained HTML file per run, and its figures as files."""

from throughline.report.page import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
