"""Reads run directories and draws them: figures from plain data, and one self-contained HTML page."""

from sartor.report.page import headline, report

__all__ = ["headline", "report"]
