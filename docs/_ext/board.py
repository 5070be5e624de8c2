"""The board of our papers: what each claim that is built has shown, with a feed, and its counts for the front page."""

import json
from pathlib import Path
from typing import Any

from throughline.catalog import papers
from throughline.report.board import Finding, newest, tally, write_pages

ABOUT = "What the last run of each claim has shown. A row opens the page of its paper."
COUNTS = "generated/verdict-counts.txt"
BADGES = {"held": "success", "refuted": "danger", "not shown": "warning"}


def setup(app: Any) -> dict[str, bool]:
    """Write the counts before Sphinx reads any page, and the board when it has written all (an extension's entry)."""
    app.connect("builder-inited", lambda app: write_counts(Path(app.srcdir)), priority=90)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}


def finish(app: Any, error: Exception | None) -> None:
    """Write the board beside the pages of a build to HTML."""
    if error is None and app.builder.format == "html":
        write_board(Path(app.srcdir), Path(app.outdir))


def write_board(docs: Path, pages: Path) -> Path:
    """Write ``board/index.html`` and ``board/verdicts.xml`` below ``pages``; returns the page's path."""
    shown = newest(findings(docs))
    return write_pages(pages / "board", shown, history(docs), _page, about=ABOUT, home="../index.html")


def write_counts(docs: Path) -> Path:
    """Write what the front page says of all verdicts, if it has changed."""
    path = docs / COUNTS
    path.parent.mkdir(exist_ok=True)
    text = counts(docs)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def counts(docs: Path) -> str:
    """How many claims held, were refuted, and so on, as Markdown that links to the board."""
    found = findings(docs)
    badges = " ".join(_badge(verdict, count) for verdict, count in tally(found).items())
    return (
        f'{badges} of {len(found)} claims that are built: <a href="board/index.html">the board of all verdicts</a>.\n'
    )


def findings(docs: Path) -> list[Finding]:
    """What is kept of each claim that is built, or that it has not been run."""
    found = []
    for entry in papers():
        kept = docs / "results" / f"{entry.slug}.json"
        if kept.exists():
            found.append(Finding.model_validate_json(kept.read_bytes()))
        elif entry.available:
            found.append(Finding(paper=entry.slug, verdict="not run", claim=entry.claim))
    return found


def history(docs: Path) -> list[Finding]:
    """Every run that ever was kept, the first one first."""
    lines = (docs / "results" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [Finding(**json.loads(line)) for line in lines]


def _badge(verdict: str, count: int) -> str:
    return f"{{bdg-{BADGES.get(verdict, 'secondary')}{'' if count else '-line'}}}`{count} {verdict}`"


def _page(finding: Finding) -> str:
    return f"../generated/papers/{finding.paper}.html"
