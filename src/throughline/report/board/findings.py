"""What runs have shown, read from the summaries that they leave."""

import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from throughline.catalog import Paper, papers
from throughline.errors import ThroughlineError
from throughline.lab.results import JUDGED, judge, load_results
from throughline.lab.store import Run, age

__all__ = ["Check", "Finding", "changes", "newest", "read_runs"]

SAID_ELSEWHERE = ("--scale", "--seeds", "--like")  # options of a command that the board tells in columns of their own


class Check(BaseModel):
    """What one check of a run found."""

    sentence: str
    verdict: str
    quantity: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    bounds: list[float] = []


class Finding(BaseModel):
    """What one run has shown: of `throughline.lab.results.summary`, as much as a board tells."""

    paper: str
    verdict: str
    run: str = ""
    why: str = ""
    claim: str = ""
    scale: str = ""
    seeds: list[int] = []
    checks: list[Check] = []
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    command: str = ""
    duration: float | None = None
    finished: str | None = None

    @property
    def judged(self) -> bool:
        """Whether the run ended in a verdict."""
        return self.verdict in JUDGED

    @property
    def date(self) -> datetime | None:
        """When its last unit was done; of an older run when it was started, which is its name."""
        with suppress(ValueError):
            if self.finished:
                return datetime.fromisoformat(self.finished).astimezone(UTC)
        with suppress(ValueError):
            return datetime.strptime(self.run[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        return None

    @property
    def configuration(self) -> str:
        """What makes a run another one's successor: claim, scale, settings, and data by content."""
        data = self.config.get("data")
        if isinstance(data, dict):
            data = {key: value for key, value in data.items() if key != "path"}
        return json.dumps([self.paper, self.scale, {**self.config, "data": data}], sort_keys=True)

    @property
    def settings(self) -> str:
        """How its command differs from the plain one, apart from scale and seeds."""
        with suppress(ValueError):
            asked = shlex.split(self.command)[2:]  # after "throughline run"
            words = iter(asked if asked[:1] == ["--like"] else asked[1:])  # what is run comes first
            return shlex.join(word for word in words if not (word in SAID_ELSEWHERE and next(words, "")))
        return ""

    @cached_property
    def entry(self) -> Paper | None:
        """Its paper in the catalogue; a claim of somebody's own has none."""
        return next((entry for entry in papers() if entry.slug == self.paper), None)


def read_runs(root: Path, say: Callable[[str], object]) -> list[Finding]:
    """What the runs under ``root`` have shown, oldest first; ``say`` is told what takes time and what cannot be read.

    A run without a summary of all that it was asked for is judged now, and its report written, if its units are done.

    Raises:
        ThroughlineError: there is no run.
    """
    folders = sorted((path.parent for path in root.glob("*/*/run.json")), key=age)
    if not folders:
        raise ThroughlineError(f"no run under {root}; make one with `throughline run`, or name the folder of your runs")
    findings = []
    for folder in folders:
        try:
            findings.append(_finding(Run(folder), say))
        except Exception as error:  # whatever a claim of any age raises, the others have their place
            reason = str(error) if isinstance(error, ThroughlineError) else f"{type(error).__name__}: {error}"
            say(f"left out {folder}: {' '.join(reason.split())}")
    return findings


def newest(findings: Iterable[Finding]) -> list[Finding]:
    """The last finding of each configuration, the latest first."""
    last = {finding.configuration: finding for finding in findings}
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(last.values(), key=lambda finding: finding.date or never, reverse=True)


def changes(findings: Iterable[Finding]) -> Iterator[tuple[Finding, str | None]]:
    """Every finding whose verdict is the first of its configuration or another than the last, and what that was."""
    last: dict[str, str] = {}
    for finding in findings:
        before = last.get(finding.configuration)
        if finding.judged and finding.verdict != before:
            yield finding, before
            last[finding.configuration] = finding.verdict


def _finding(run: Run, say: Callable[[str], object]) -> Finding:
    kept = _kept(run)
    if kept is None:
        left, asked = len(run.unfinished()), len(run.units)
        if left:
            known = {key: run.manifest[key] for key in ("scale", "seeds", "config", "versions", "command")}
            why = f"{asked - left} of {asked} units are done"
            return Finding(paper=run.folder.parent.name, run=run.id, verdict="incomplete", why=why, **known)
        from throughline.report.page import write_report  # here: such runs are rare, and this brings Matplotlib

        say(f"judging {run.folder}, once")
        results = load_results(run)
        judgement = judge(results)
        write_report(results, judgement)
        run.seen(judgement.verdict)
        kept = _kept(run)
        if kept is None:
            raise ThroughlineError(f"{run.folder / 'summary.json'} cannot be read")
    return kept


def _kept(run: Run) -> Finding | None:
    """The summary in the run's folder, unless the run has been asked for other seeds since."""
    try:
        kept = Finding.model_validate_json((run.folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return None
    if sorted(kept.seeds) != sorted(run.manifest["seeds"]):
        return None
    return kept.model_copy(update={"paper": run.folder.parent.name, "run": run.id})
