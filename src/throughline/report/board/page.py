"""The board as a page: what a row says, in which order; the template says how it looks and how it answers."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from throughline.catalog import areas
from throughline.report.board.findings import Check, Finding
from throughline.report.board.intervals import WIDTH, Drawing, drawings, figures
from throughline.report.rendering import template

__all__ = ["render", "tally"]

VERDICTS = ("held", "refuted", "not shown", "incomplete", "no verdict", "not run")  # in the order in which they sort
ALWAYS = 3  # of which are counted even where there is none
OWN = "your own"


class Effect(NamedTuple):
    """One check of a row."""

    check: Check
    estimate: str
    interval: str
    drawing: Drawing | None


class Row(NamedTuple):
    """One line of the board."""

    finding: Finding
    href: str
    area: str
    claim: str
    effects: list[Effect]


def tally(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings there are of each verdict; held, refuted and not shown are counted where there is none, too."""
    counts = Counter(finding.verdict for finding in findings)
    named = (*VERDICTS, *sorted(counts.keys() - set(VERDICTS)))
    return {verdict: counts[verdict] for place, verdict in enumerate(named) if counts[verdict] or place < ALWAYS}


def render(
    findings: Sequence[Finding], link: Callable[[Finding], str], *, feed: str, about: str, home: str | None = None
) -> str:
    """The page as HTML.

    Args:
        findings: one for each row.
        link: where a finding is told in full, relative to the page; empty where it is not.
        feed: the feed, relative to the page.
        about: one sentence that says what is listed.
        home: the page above this one, if there is one.
    """
    rows = [_row(finding, link(finding)) for finding in findings]
    present = {row.area for row in rows}
    return template("board.html").render(
        rows=rows,
        counts=tally(findings),
        areas=[area for area in (*areas(), OWN) if area in present],
        timed=any(row.finding.duration is not None for row in rows),
        order={verdict: place for place, verdict in enumerate(VERDICTS)},
        width=WIDTH,
        feed=feed,
        about=about,
        home=home,
        span=span,
    )


def span(seconds: float | None) -> str:
    """Seconds in the unit that a reader wants, in as little room as there is.

    >>> span(3.21), span(75), span(5400), span(200_000), span(None)
    ('3.2 s', '75 s', '90 min', '56 h', '–')
    """
    if seconds is None:
        return "–"
    for unit, size in (("s", 1), ("min", 60)):
        if seconds < 120 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 36_000 else f"{seconds / 3600:.0f} h"


def _row(finding: Finding, href: str) -> Row:
    entry = finding.entry
    effects = [
        Effect(check, *figures(check), drawing)
        for check, drawing in zip(finding.checks, drawings(finding.checks), strict=True)
    ]
    claim = finding.claim or (entry.claim if entry else "")
    return Row(finding, href, entry.area if entry else OWN, claim, effects)
