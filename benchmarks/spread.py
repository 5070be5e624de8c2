"""How a run of many claims spreads over cores: list scheduling of the unit times that were measured.

``python -m benchmarks.spread`` prints the table, and ``--write`` puts it into the documentation. ``--runs FOLDER``
first takes the times of the runs at laptop scale in that folder, and keeps them in ``unit_seconds.json``.
"""

import heapq
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from benchmarks.machine import machine
from benchmarks.report import put

__all__ = ["finish", "units"]

TIMES = Path(__file__).parent / "unit_seconds.json"
CLAIMS, SEEDS, ARMS = 55, 10, 3
CORES = (2, 8, 32, 128, 512, 1000, 2000)
START = 2.0  # seconds that a unit takes beside its own, to start a process and to import what it needs

Times = dict[str, dict[str, list[float]]]  # of units on one core, by claim and arm


def kept(folder: Path) -> Times:
    """The unit times of the runs at laptop scale in ``folder``."""
    times: Times = {}
    for file in sorted(folder.glob("*/*/units/*.json")):
        record = json.loads(file.read_bytes())
        if record["scale"] == "laptop":
            seconds = round(record["measured"]["seconds"], 2)
            times.setdefault(record["paper"], {}).setdefault(record["arm"], []).append(seconds)
    return times


def units(times: Times) -> list[float]:
    """Seconds of every unit of the run: claims, arms and seeds that were not measured repeat those that were."""
    measured = [list(arms.values()) for arms in times.values()]
    claims = [measured[i % len(measured)] for i in range(CLAIMS)]
    arms = [claim[j % len(claim)] for claim in claims for j in range(ARMS)]
    return [START + arm[k % len(arm)] for arm in arms for k in range(SEEDS)]


def finish(seconds: Iterable[float], cores: int) -> float:
    """When the last unit ends if each one in turn goes to the core that is free first."""
    free = [0.0] * cores
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def table(seconds: Sequence[float]) -> list[str]:
    work, longest = sum(seconds), max(seconds)
    lines = ["| cores | at best | longest first | idle | as they come | idle |", "|---|---|---|---|---|---|"]
    for cores in CORES:
        best = max(work / cores, longest)
        ends = finish(sorted(seconds, reverse=True), cores), finish(seconds, cores)
        cells = [cell for end in ends for cell in (duration(end), f"{1 - work / cores / end:.0%}")]
        lines.append(f"| {cores:,} | {duration(best)} | {' | '.join(cells)} |")
    return lines


def duration(seconds: float) -> str:
    """Hours, or minutes where it is less than two of them.

    >>> duration(7199.0), duration(36_000.0)
    ('120 min', '10.0 h')
    """
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.3g} min"


@click.command()
@click.option("--runs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Take the times from here.")
@click.option("--write", is_flag=True, help="Put the table into the documentation.")
def main(runs: Path | None, write: bool) -> None:
    """Simulate a run of 55 claims, 10 seeds and 3 arms on 2 to 2,000 cores."""
    if runs is not None:
        stored = {"machine": machine(), "seconds": kept(runs)}
        TIMES.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    found = json.loads(TIMES.read_text(encoding="utf-8"))["seconds"]
    seconds = units(found)
    enough = duration(sum(seconds)), duration(max(seconds)), f"{sum(seconds) / max(seconds):.0f}"
    lines = [
        f"{CLAIMS} claims, {SEEDS} seeds and {ARMS} arms make {len(seconds):,} units, which take one core {enough[0]}.",
        f"The longest takes {enough[1]}, so that more than {enough[2]} cores have nothing to gain. Measured were",
        f"{len(found)} claims, at laptop scale, on one thread and partly beside other work; they stand for the rest.",
        "",
        *table(seconds),
    ]
    click.echo("\n".join(lines))
    if write:
        put("spread", lines)


if __name__ == "__main__":
    main()
