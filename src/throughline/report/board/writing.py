"""The board's files: the page, the feed, and copies of the reports to which they lead."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from throughline.errors import ThroughlineError
from throughline.lab.store import write_atomically
from throughline.report.board.feed import feed
from throughline.report.board.findings import Finding, changes, newest, read_runs
from throughline.report.board.page import render

__all__ = ["write_board", "write_pages"]

PAGE, FEED = "index.html", "verdicts.xml"
OURS = '<meta name="generator" content="Throughline board">'
ABOUT = "The newest run of each claim and configuration. A row opens its report."


def write_board(runs: Path, folder: Path, say: Callable[[str], object]) -> Path:
    """Write the board of all ``runs`` into ``folder`` and return the page; ``say`` is told of runs that are left out.

    Raises:
        ThroughlineError: there is no run, or the folder holds another page.
    """
    _check(folder)
    findings = read_runs(runs, say)
    shown = newest(findings)
    reports = {}
    for finding in (*shown, *(finding for finding, _ in changes(findings))):
        report = runs / finding.paper / finding.run / "report.html"
        if report.is_file():
            copy = Path("reports", finding.paper, f"{finding.run}.html")
            (folder / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report, folder / copy)
            reports[finding.paper, finding.run] = quote(copy.as_posix())
    return write_pages(folder, shown, findings, lambda f: reports.get((f.paper, f.run), ""), about=ABOUT)


def write_pages(
    folder: Path,
    shown: Sequence[Finding],
    every: Sequence[Finding],
    link: Callable[[Finding], str],
    *,
    about: str,
    home: str | None = None,
) -> Path:
    """Write the page of the findings that are ``shown`` and the feed over ``every`` one; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAGE, render(shown, link, feed=FEED, about=about, home=home))
    write_atomically(folder / FEED, feed(every, link, page=PAGE, name=FEED))
    return folder / PAGE


def _check(folder: Path) -> None:
    page = folder / PAGE
    if page.exists() and OURS not in page.read_text(encoding="utf-8", errors="replace"):
        raise ThroughlineError(f"{page} is there and no board; choose another folder with --out")
