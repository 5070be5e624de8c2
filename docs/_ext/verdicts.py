"""The page of all verdicts: what each claim's last run has shown, beside what the run before had."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from throughline.catalog import papers

HISTORY = "results/history.jsonl"
INTRODUCTION = """# Verdicts

What the last run of each claim has shown at laptop scale, beside what the run before it had. A verdict that changed is
a result, too: its seeds are others, and so may be settings, which the changelog names.

<a href="../board/index.html">The board</a> shows all of them at once, to search and to sort, and
<a href="../board/verdicts.xml">its feed</a> tells of new ones."""


def setup(app: Any) -> dict[str, bool]:
    """Write the page before Sphinx reads any (an extension's entry point)."""
    app.connect("builder-inited", lambda app: write_page(Path(app.srcdir)), priority=90)
    return {"parallel_read_safe": True}


def write_page(docs: Path) -> Path:
    """Write ``generated/verdicts.md``, if it has changed."""
    path = docs / "generated" / "verdicts.md"
    path.parent.mkdir(exist_ok=True)
    text = page(docs)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
    return path


def page(docs: Path) -> str:
    """The page as Markdown."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (docs / HISTORY).read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        runs[run["paper"]].append(run)
    sections = [INTRODUCTION]
    for slug in (entry.slug for entry in papers() if entry.slug in runs):
        sections.append(_section(slug, runs[slug]))
    return "\n\n".join(sections) + "\n"


def _section(slug: str, runs: list[dict[str, Any]]) -> str:
    now, before = runs[-1], runs[-2] if len(runs) > 1 else None
    told = f"**{now['verdict'].capitalize()}** on {_basis(now)}"
    if before is not None:
        told += f"; before that **{before['verdict']}** on {_basis(before)}"
    rows = ["| check | now | before |", "|---|---|---|"]
    then = {check["sentence"]: check for check in before["checks"]} if before else {}
    for check in now["checks"]:
        rows.append(f"| {_cell(check['sentence'])} | {_effect(check)} | {_effect(then.pop(check['sentence'], None))} |")
    rows += [f"| {_cell(sentence)} | – | {_effect(check)} |" for sentence, check in then.items()]
    return f"## [{slug}](papers/{slug}.md)\n\n{told}.\n\n" + "\n".join(rows)


def _basis(run: dict[str, Any]) -> str:
    seeds = run["seeds"]
    return f"{len(seeds)} seeds from {min(seeds)} on (run {run['run']}, code {run['source']})"


def _effect(check: dict[str, Any] | None) -> str:
    if check is None:
        return "–"
    low, high = (("?" if check[side] is None else f"{check[side]:.3g}") for side in ("low", "high"))
    estimate = "?" if check["estimate"] is None else f"{check['estimate']:.3g}"
    return f"{check['verdict']}: {estimate} [{low}, {high}]".replace("-", "−")


def _cell(text: str) -> str:
    return text.replace("_", "\\_").replace("|", "\\|")
