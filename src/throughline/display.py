"""What a run shows while it works: a live table of arms and seeds on a terminal, plain lines anywhere else."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from throughline.lab.claim import Claim
from throughline.lab.runner import Event, SetAside, Started
from throughline.lab.sinks import Sink
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Failed, Finished, Lost, Progress

__all__ = ["Display", "duration"]


class Display:
    """Follows the events of a run and shows where it stands."""

    def __init__(self, claim: Claim, run: Run, jobs: int, console: Console, sinks: Mapping[str, Sink]) -> None:
        self.claim, self.run, self.jobs, self.console = claim, run, jobs, console
        self.sinks = dict(sinks)  # by the option that asked for them
        self.metric = claim.checks[0].metric
        self.units = run.units
        self.metrics: dict[Unit, dict[str, float]] = {}
        self.failed: dict[Unit, Failed] = {}
        self.running: dict[Unit, tuple[float, float | None]] = {}  # when it started, the share that is done
        self.times: list[float] = []
        self.live: Live | None = None

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the table while the block runs (on a terminal)."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self.table, console=self.console, refresh_per_second=4) as self.live:
            yield
        self.live = None

    def __call__(self, event: Event) -> None:
        """Take in one event of `throughline.lab.runner.execute`."""
        match event:
            case Started(unit):
                self.running[unit] = (time.monotonic(), None)
            case Progress(unit, points, done):
                self.running[unit] = (self.running[unit][0], done)
                for step, values in points:
                    self._send(unit, step, values)
            case Lost(unit, reason):
                self.running.pop(unit, None)
                self._say(f"{unit.arm}, seed {unit.seed}: {reason}", always=True)
            case Finished(unit, metrics, _):
                started = self.running.pop(unit, None)
                self.metrics[unit] = metrics
                if started:
                    self.times.append(time.monotonic() - started[0])
                    self._say(f"{unit.arm}, seed {unit.seed}: {self._figure(unit)}")
            case Failed(unit, reason, file):
                self.running.pop(unit, None)
                self.failed[unit] = event
                self._say(f"{unit.arm}, seed {unit.seed} failed: {reason} (traceback: {file})", always=True)
            case SetAside(unit, file, reason):
                self._say(
                    f"{unit.arm}, seed {unit.seed}: corrupted result ({reason}), kept as {file.name}, computed again",
                    always=True,
                )

    def table(self) -> RenderableType:
        """The state as a table, an arm a row and a seed a column."""
        seeds = self.run.manifest["seeds"]
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(f"{self.claim.paper} · {self.metric.replace('_', ' ')}", no_wrap=True)
        for seed in seeds:
            table.add_column(str(seed), justify="right", no_wrap=True)
        for arm in self.run.manifest["arms"]:
            table.add_row(arm, *(self._cell(Unit(arm, seed)) for seed in seeds))
        finished = len(self.metrics) + len(self.failed)
        return Group(table, Text(f"{finished} of {len(self.units)} units, {self._left()}", style="dim"))

    def _cell(self, unit: Unit) -> Text:
        if unit in self.metrics:
            return Text(self._value(unit), style="green")
        if unit in self.failed:
            return Text("failed", style="red")
        if unit in self.running:
            done = self.running[unit][1]
            return Text("…" if done is None else f"{done:.0%}", style="yellow")
        return Text("·", style="dim")

    def _left(self) -> str:
        if not self.times:
            return "time left unknown until the first unit ends"
        each = sum(self.times) / len(self.times)
        waiting = len(self.units) - len(self.metrics) - len(self.failed) - len(self.running)
        now = time.monotonic()
        current = sum(max(each - (now - started), 0.1 * each) for started, _ in self.running.values())
        return f"about {duration((waiting * each + current) / self.jobs)} left"

    def _send(self, unit: Unit, step: int, values: dict[str, float]) -> None:
        for option, sink in tuple(self.sinks.items()):
            try:
                sink(self.claim.paper, unit.arm, unit.seed, step, values)
            except Exception as error:  # a tracker's server may be away: that must not cost a run
                del self.sinks[option]
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._say(f"{option} failed and is left out from here on ({reason})", always=True)

    def _say(self, text: str, *, always: bool = False) -> None:
        if self.live is None:
            finished = len(self.metrics) + len(self.failed)
            left = f", {self._left()}" if self.times and finished < len(self.units) else ""
            place = f"[{finished}/{len(self.units)}] {self.claim.paper} "
            self.console.print(f"{place}{text}{left}", markup=False, highlight=False, soft_wrap=True)
        elif always:
            self.live.console.print(text, markup=False, highlight=False)

    def _value(self, unit: Unit) -> str:
        value = self.metrics[unit].get(self.metric, math.nan)
        return f"{value:.4g}" if math.isfinite(value) else "–"

    def _figure(self, unit: Unit) -> str:
        return f"{self.metric.replace('_', ' ')} {self._value(unit)}, {duration(self.times[-1])}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a reader wants.

    >>> duration(3.21), duration(75), duration(5400)
    ('3.2 s', '1 min 15 s', '1 h 30 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
