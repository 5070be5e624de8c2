"""What came out of a run: metrics, curves and arrays by arm and seed, and the verdict over them."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from throughline.errors import ThroughlineError
from throughline.lab.checks import Outcome, Verdict
from throughline.lab.claim import Claim
from throughline.lab.config import restore
from throughline.lab.finding import find_claim
from throughline.lab.statistics import alpha
from throughline.lab.store import Run, Unit, write_atomically

__all__ = ["Judgement", "Results", "judge", "keep", "kept", "load_results", "stored_config", "summary"]

JUDGED = ("held", "refuted", "not shown")
SUMMARY = "summary.json"
MEASURED = ("seconds", "peak_mb")  # what the lab measures of every unit, beside the claim's own metrics


class Results:
    """The finished units of a run.

    Attributes:
        claim: the claim that was run.
        config: its settings in this run.
        missing: the units that have no result, those that failed among them.
    """

    def __init__(self, claim: Claim, run: Run, config: Any) -> None:
        self.claim = claim
        self.run = run
        self.config = config
        self.scale: str = run.manifest["scale"]
        self.arms: tuple[str, ...] = tuple(a for a in (*claim.arms, *claim.context) if a in run.manifest["arms"])
        self.seeds: tuple[int, ...] = tuple(sorted(run.manifest["seeds"]))
        self.records: dict[Unit, dict[str, Any]] = {}
        self.failed: tuple[Unit, ...] = ()
        missing = []
        for unit in run.units:
            try:
                record = run.record(unit)
            except ValueError:
                record = None
            if record is None:
                missing.append(unit)
            else:
                self.records[unit] = record
        self.missing = tuple(missing)
        self.failed = tuple(unit for unit in missing if run.file(unit, "txt").exists())

    @property
    def looks(self) -> int:
        """How many verdicts over some of these seeds, and not over just these, were seen before."""
        ours = set(self.seeds)
        others = {frozenset(look["seeds"]) for look in self.run.manifest.get("looks", []) if look["verdict"] in JUDGED}
        return sum(bool(seeds & ours) and seeds != ours for seeds in others)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the claim's metrics, in the order in which it returned them."""
        return tuple(dict.fromkeys(name for record in self.records.values() for name in record["metrics"]))

    def values(self, metric: str, arm: str) -> dict[int, float]:
        """``metric`` of ``arm`` by seed, over finished seeds; the lab itself measures `seconds` and `peak_mb`."""
        kind = "measured" if metric in MEASURED else "metrics"
        found = {}
        for seed in self.seeds:
            record = self.records.get(Unit(arm, seed))
            if record is not None and metric in record[kind]:
                found[seed] = float(record[kind][metric])
        return found

    def paired(self, metric: str, arm: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        """Seeds that both arms finished, and the two arms' values over them."""
        ours, theirs = self.values(metric, arm), self.values(metric, other)
        seeds = tuple(seed for seed in self.seeds if seed in ours and seed in theirs)
        return seeds, np.array([ours[s] for s in seeds]), np.array([theirs[s] for s in seeds])

    @property
    def curves(self) -> tuple[str, ...]:
        """The names of the curves that were logged."""
        return tuple(dict.fromkeys(name for record in self.records.values() for name in record["curves"]))

    def curve(self, name: str, arm: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Steps and values of one logged curve, by seed."""
        found = {}
        for seed in self.seeds:
            curve = self.records.get(Unit(arm, seed), {}).get("curves", {}).get(name)
            if curve:
                found[seed] = (np.array(curve["step"]), np.array(curve["value"]))
        return found

    def kept(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        """Arrays that the unit kept; empty when it kept none or has not finished."""
        return self.run.arrays(Unit(arm, seed)) if Unit(arm, seed) in self.records else {}


class Judgement(NamedTuple):
    """The verdict of a claim, why, and each check's outcome."""

    verdict: str  # held, refuted or not shown; incomplete when a unit is missing; no verdict at smoke scale
    why: str
    outcomes: tuple[Outcome, ...]

    @property
    def exit_code(self) -> int:
        """0 held (or a smoke run that went through), 1 refuted or not shown, 3 incomplete."""
        return {"held": 0, "no verdict": 0, "incomplete": 3}.get(self.verdict, 1)


def judge(results: Results) -> Judgement:
    """Hold the claim's checks against the results."""
    checks = [check for check in results.claim.checks if set(check.arms) <= set(results.arms)]
    outcomes = tuple(check.judge(results) for check in checks)
    needed = {arm for check in results.claim.checks for arm in check.arms}
    absent = [unit for unit in results.missing if unit.arm in needed]
    if absent:
        many = f"{len(absent)} units have" if len(absent) > 1 else "one unit has"
        return Judgement("incomplete", f"{many} no result ({_names(absent)})", outcomes)
    if needed - set(results.arms):
        left_out = ", ".join(sorted(needed - set(results.arms)))
        return Judgement("incomplete", f"arms that the checks need were left out: {left_out}", outcomes)
    if results.scale == "smoke":
        return Judgement("no verdict", "smoke scale shows that the code runs, and nothing about the claim", outcomes)
    verdicts = [outcome.verdict for outcome in outcomes]
    verdict: Verdict = "refuted" if "refuted" in verdicts else "not shown" if "not shown" in verdicts else "held"
    why = f"{verdicts.count(verdict)} of {len(verdicts)} checks: {verdict}"
    if verdict == "held":
        why = f"every one of {len(verdicts)} checks held"
    if results.looks:
        level = f"{100 * (1 - alpha(results.looks)):.5g}%"
        why += f"; its seeds were chosen after a look at some of them, so {level} takes the place of 95%"
    if results.missing:  # context arms
        why += f"; beside it, no result of {_names(results.missing)}"
    return Judgement(verdict, why, outcomes)


def stored_config(claim: Claim, manifest: Mapping[str, Any]) -> Any:
    """The config that a manifest, or a unit's result, was stored with.

    Raises:
        ThroughlineError: this version of the claim has no such scale, or another config.
    """
    if manifest["scale"] not in claim.scales:
        raise ThroughlineError(f"{claim.paper} has no scale {manifest['scale']!r}; it has {', '.join(claim.scales)}")
    return restore(type(claim.scales[manifest["scale"]]), manifest["config"])


def load_results(run: Run) -> Results:
    """A stored run as results of its claim; its config is rebuilt from the run's manifest."""
    claim = find_claim(run.manifest.get("claim") or run.paper)
    return Results(claim, run, stored_config(claim, run.manifest))


def summary(results: Results, judgement: Judgement) -> dict[str, Any]:
    """Everything a machine wants to know of a run, as plain JSON values."""
    run = results.run
    return {
        "paper": run.paper,
        "claim": results.claim.sentence(),
        "run": str(run.folder),
        "scale": results.scale,
        "verdict": judgement.verdict,
        "why": judgement.why,
        "checks": [_plain(dataclasses.asdict(outcome)) for outcome in judgement.outcomes],
        "arms": list(results.arms),
        "context": [arm for arm in results.arms if arm in results.claim.context],
        "seeds": list(results.seeds),
        "looks": results.looks,
        "metrics": {m: _by_arm(results, m) for m in results.metrics},
        "measured": {m: _by_arm(results, m) for m in MEASURED},
        "duration": _duration(results),
        "finished": _finished(results),
        "failed": [unit.name for unit in results.failed],
        "missing": [unit.name for unit in results.missing],
        "config": run.manifest["config"],
        "versions": run.manifest["versions"],
        "host": run.manifest["host"],
        "command": run.manifest["command"],
    }


def keep(results: Results, judgement: Judgement) -> None:
    """Write the summary into the run's folder, for whoever has not the claim at hand."""
    write_atomically(results.run.folder / SUMMARY, _text(results, judgement))


def kept(results: Results, judgement: Judgement) -> bool:
    """Whether the run's folder has this very summary already."""
    path = results.run.folder / SUMMARY
    return path.exists() and path.read_text() == _text(results, judgement)


def _text(results: Results, judgement: Judgement) -> str:
    return json.dumps(summary(results, judgement), indent=1) + "\n"


def _duration(results: Results) -> float | None:
    """Seconds of all units together, whether they ran one after the other or side by side."""
    return sum(record["measured"]["seconds"] for record in results.records.values()) if results.records else None


def _finished(results: Results) -> str | None:
    """When the last unit was done, as far as the units know when they started."""
    ends = [
        datetime.fromisoformat(record["started"]) + timedelta(seconds=record["measured"]["seconds"])
        for record in results.records.values()
        if "started" in record
    ]
    return max(ends).isoformat(timespec="seconds") if ends else None


def _by_arm(results: Results, metric: str) -> dict[str, list[float | None]]:
    table: dict[str, list[float | None]] = {}
    for arm in results.arms:
        values: Mapping[int, float] = results.values(metric, arm)
        table[arm] = [_number(values.get(seed)) for seed in results.seeds]
    return table


def _plain(outcome: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) if isinstance(value, float) else value for key, value in outcome.items()}


def _number(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None  # JSON has no infinity


def _names(units: Sequence[Unit]) -> str:
    more = f" and {len(units) - 4} more" if len(units) > 4 else ""
    return ", ".join(unit.name for unit in units[:4]) + more
