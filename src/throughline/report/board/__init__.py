"""The board: one page of verdicts with a feed beside it, from what runs have left, without torch or Matplotlib."""

from throughline.report.board.feed import feed
from throughline.report.board.findings import Check, Finding, changes, newest, read_runs
from throughline.report.board.page import render, tally
from throughline.report.board.writing import write_board, write_pages

__all__ = [
    "Check",
    "Finding",
    "changes",
    "feed",
    "newest",
    "read_runs",
    "render",
    "tally",
    "write_board",
    "write_pages",
]
