"""Runs that nobody has made: what they leave in their folders, written by hand."""

import json
from pathlib import Path
from typing import Any

from throughline.report.board import Check, Finding


def check(verdict: str = "held", estimate: float | None = 0.5, **told: Any) -> Check:
    known = {"sentence": "ours beats theirs in some_metric", "quantity": "some_metric: ours − theirs", "bounds": [0.0]}
    spread = {} if estimate is None else {"low": estimate - 0.25, "high": estimate + 0.25}
    return Check(**{**known, **spread, "verdict": verdict, "estimate": estimate, **told})


def finding(paper: str = "groco", verdict: str = "held", day: int = 1, **told: Any) -> Finding:
    known = {
        "run": f"202611{day:02d}-120000-abcdef",
        "why": f"1 of 1 checks: {verdict}",
        "scale": "laptop",
        "seeds": [1000, 1001, 1002],
        "checks": [check("held" if verdict not in ("refuted", "not shown") else verdict)],
        "versions": {"throughline": "0.1.0"},
        "command": f"throughline run {paper} --scale laptop --seeds 1000:1003",
        "duration": 60.0 * day,
        "finished": f"2026-11-{day:02d}T13:00:00+00:00",
    }
    return Finding(**{"paper": paper, "verdict": verdict, **known, **told})


def leave(root: Path, found: Finding, *, summary: bool = True, **manifest: Any) -> Path:
    """The folder of a run that has shown ``found``, or that was stopped before it had a summary."""
    folder = root / found.paper / found.run
    (folder / "units").mkdir(parents=True)
    asked = {
        "paper": found.paper,
        "scale": found.scale,
        "arms": ["theirs", "ours"],
        "seeds": found.seeds,
        "config": found.config,
        "threads": 1,
        "key": "a" * 64,
        "command": found.command,
        "versions": found.versions,
        "commit": None,
        "host": {},
    }
    (folder / "run.json").write_text(json.dumps({**asked, **manifest}), encoding="utf-8")
    if summary:
        (folder / "summary.json").write_text(found.model_dump_json(), encoding="utf-8")
        (folder / "report.html").write_text(f"<!doctype html><title>The report of {found.run}</title>", "utf-8")
    return folder
