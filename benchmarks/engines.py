"""What an engine costs: units of a tenth of a second, on this machine and on a Ray cluster of its cores.

``python -m benchmarks.engines`` prints the table; exit status 1 when Ray is faster for the first 50 units, which it
should not be where both have the same idle cores.
"""

import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.short import Config, Short
from throughline.lab.engines import Engine
from throughline.lab.engines.local import Local, cores
from throughline.lab.engines.ray import connect
from throughline.lab.runner import Event, execute, open_run, plan
from throughline.lab.unit import Finished

FEW = 50  # so few short units are quicker without a cluster


@dataclass(frozen=True)
class Timing:
    """Seconds to have an engine, and from then on to the end of each unit in turn."""

    started: float
    ends: list[float]

    def until(self, count: int) -> float:
        """Seconds to the end of unit number ``count``, the start included."""
        return self.started + self.ends[count - 1]

    def overhead(self, own: float) -> float:
        """Seconds of a core that a unit takes beside its own."""
        return self.ends[-1] * cores() / len(self.ends) - own


def measure(engine: AbstractContextManager[Engine], units: int) -> Timing:
    """Run ``units`` short units on an engine that is not there yet."""
    ends: list[float] = []
    asked = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, engine as ready:
        started = time.perf_counter()
        manifest = plan(Short(), "laptop", Config(), Short.arms, tuple(range(units)), threads=1, command="")

        def note(event: Event) -> None:
            if isinstance(event, Finished):
                ends.append(time.perf_counter() - started)

        execute(Short(), open_run(Path(folder), manifest)[0], ready, on_event=note)
    return Timing(started - asked, ends)


def row(name: str, found: Timing, counts: list[int]) -> str:
    seconds = (found.started, *map(found.until, counts), found.overhead(Config().seconds))
    return f"| {name} | {' | '.join(f'{value:.1f} s' for value in seconds)} |"


@click.command()
@click.option("--units", default=200, show_default=True, type=click.IntRange(min=1), help="Units of 0.1 s.")
def main(units: int) -> None:
    """Time both engines on units of 0.1 s."""
    counts = sorted({1, min(FEW, units), units})
    local = measure(nullcontext(Local(cores())), units)
    ray = measure(connect("local", say=click.echo), units)
    until = " | ".join(f"{count} unit{'s' * (count > 1)}" for count in counts)
    lines = [
        f"| {cores()} cores | to start | {until} | overhead of a unit |",
        f"|{'---|' * (len(counts) + 3)}",
        row("`--engine local`", local, counts),
        row("`--engine ray`, started for it", ray, counts),
    ]
    click.echo("\n".join(lines))
    few = min(FEW, units)
    sys.exit(local.until(few) > ray.until(few))


if __name__ == "__main__":
    main()
