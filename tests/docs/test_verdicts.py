"""The history of verdicts: every run is kept once, and the page sets the last two side by side."""

import json
from pathlib import Path
from typing import Any

from tests.docs.test_docs import DOCS, load, verdicts

saving = load(DOCS / "save_results.py")


def run(number: int, verdict: str, **checks: float) -> dict[str, Any]:
    found = [
        {"sentence": name, "verdict": verdict, "estimate": value, "low": None, "high": value + 1, "bounds": [0.0]}
        for name, value in checks.items()
    ]
    return {
        "paper": "groco",
        "run": f"2026030{number}",
        "scale": "laptop",
        "verdict": verdict,
        "why": "",
        "seeds": [number, number + 1],
        "command": "throughline run groco",
        "versions": {"source": f"abc{number}", "torch": "2"},
        "checks": found,
    }


def test_every_run_is_kept_once(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    for number in (1, 2, 1):
        saving.remember(run(number, "held", a_b=0.5), history)
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert [line["run"] for line in lines] == ["20260301", "20260302"]
    assert lines[0]["source"] == "abc1"
    assert "finished" not in lines[0]  # of a run that does not say
    saving.remember({**run(3, "held"), "finished": "2026-03-03T12:00:00+00:00"}, history)
    assert json.loads(history.read_text().splitlines()[2])["finished"] == "2026-03-03T12:00:00+00:00"
    assert lines[0]["checks"][0]["high"] == 1.5


def test_the_page_sets_old_and_new_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for found in (run(1, "held", a_b=0.5, gone=2.0), run(2, "not shown", a_b=-0.25, new=1.0)):
        saving.remember(found, tmp_path / "results" / "history.jsonl")
    page = verdicts.page(tmp_path)
    assert "## [groco](papers/groco.md)" in page
    assert "**Not shown** on 2 seeds from 2 on (run 20260302, code abc2); before that **held** on 2 seeds" in page
    assert "| a\\_b | not shown: −0.25 [?, 0.75] | held: 0.5 [?, 1.5] |" in page
    assert "| new | not shown: 1 [?, 2] | – |" in page
    assert "| gone | – | held: 2 [?, 3] |" in page


def test_the_history_ends_with_the_results_that_are_shown() -> None:
    last = {}
    for line in (DOCS / "results" / "history.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        last[found["paper"]] = found
    kept = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (DOCS / "results").glob("*.json")}
    assert last.keys() == kept.keys()
    assert all(last[slug]["run"] == result["run"] for slug, result in kept.items())
