"""Benchmark results as a table in the terminal, as a page of the documentation and as JSON.

The page is made whole from ``docs/benchmarks.json``: ``python -m benchmarks.report`` makes it again.
"""

import datetime
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined
from rich.table import Table

from benchmarks import pictures
from benchmarks.growth import Grown
from benchmarks.harness import Result, Spread
from throughline import catalog

__all__ = ["Run", "geometric_mean", "growth_table", "put", "table", "write"]

DOCS = Path(__file__).parents[1] / "docs"
CLUSTER = DOCS / "cluster.md"
TEMPLATE = Path(__file__).parent / "page.md.jinja"

COLUMNS = (
    "case",
    "reference",
    "ours",
    "peer",
    "ours / peer (10–90 %)",
    "bar",
    "peak memory",
    "share of the floor",
    "held",
)
SUMMARY = ("area", "cases", "same work", "geometric mean (90 %)", "slowest of them", "bars held")
GROWN = ("mechanism", "grows", "sizes", "time", "memory", "the last size takes", "stopped by", "held")


class First(NamedTuple):
    """What the first full run found for a case."""

    date: str
    ratio: float | None
    memory: float | None


class Run(NamedTuple):
    """A full run: all cases and growths, on one machine."""

    date: str
    machine: dict[str, str]
    results: list[Result]
    growths: list[Grown]
    first: dict[str, First]  # by the case's key, as text

    @classmethod
    def read(cls, path: Path) -> "Run":
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            values["date"],
            values["machine"],
            list(map(Result.stored, values["results"])),
            list(map(Grown.stored, values["growths"])),
            {key: First(*value) for key, value in values["first"].items()},
        )

    @classmethod
    def of_today(
        cls, machine: dict[str, str], results: list[Result], growths: list[Grown], first: dict[str, First]
    ) -> "Run":
        """A run with what was known before: cases that are new have their first numbers now."""
        date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        now = {_key(r): First(date, r.ratio and r.ratio.median, r.memory_ratio) for r in results if r.peer}
        return cls(date, machine, results, growths, {key: first.get(key, found) for key, found in now.items()})

    def write(self, path: Path) -> None:
        values = {
            "date": self.date,
            "machine": self.machine,
            "first": self.first,
            "results": list(map(asdict, self.results)),
            "growths": list(map(asdict, self.growths)),
        }
        path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write(run: Run, docs: Path = DOCS) -> None:
    """The numbers of a run, its page and its pictures."""
    run.write(docs / "benchmarks.json")
    (docs / "benchmarks.md").write_text(page(run), encoding="utf-8")
    pictures.ratios(run.results).savefig(docs / "benchmarks-ratios.svg", metadata={"Date": None})
    if run.growths:
        pictures.growths(run.growths).savefig(docs / "benchmarks-growth.svg", metadata={"Date": None})


def geometric_mean(results: Iterable[Result], draws: int = 2_000) -> Spread | None:
    """Of the ratios to peers that do the same work, with a 90 % interval by a bootstrap over each case's rounds."""
    cases = [np.log(r.ratios) for r in results if r.kind == "same work" and r.ratios]
    if not cases:
        return None
    random = np.random.default_rng(0)
    drawn = [np.median(logs[random.integers(len(logs), size=(draws, len(logs)))], axis=1) for logs in cases]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.05, 0.95])
    return Spread(*(math.exp(x) for x in (float(np.mean([np.median(logs) for logs in cases])), low, high)))


def row(result: Result) -> tuple[str, ...]:
    bars = [f"{result.bar:g} ×"] if result.bar is not None else []
    bars += [duration(result.bar_seconds)] if result.bar_seconds is not None else []
    bars += [f"{result.bar_memory:g} × memory"] if result.bar_memory is not None else []
    return (
        result.name,
        result.kind,
        duration(result.ours.median),
        f"{duration(result.peer_time.median)} ({result.peer})" if result.peer_time else "–",
        ratio(result.ratio),
        ", ".join(bars),
        f"{size(result.ours_peak)} / {size(result.peer_peak)}" if result.peer else size(result.ours_peak),
        f"{result.share:.0%}" if result.share is not None else "–",
        "yes" if result.held else "**no**",
    )


def grown_row(g: Grown) -> tuple[str, ...]:
    return (
        f"{g.paper}: {g.name}",
        g.axis,
        ", ".join(f"{n:,}" for n in g.sizes),
        f"{g.time:.2f} ({g.promised_time:g})",
        f"{g.memory:.2f} ({g.promised_memory:g})",
        f"{duration(g.seconds[-1])}, {size(g.bytes[-1])}",
        g.stopped_by,
        "yes" if g.held else "**no**",
    )


def growth_table(growths: Iterable[Grown]) -> Table:
    """How mechanisms grow, for the terminal."""
    return _colored(Table(), GROWN, [(grown_row(g), g.held) for g in growths])


def table(slug: str, results: Iterable[Result]) -> Table:
    """One paper's results for the terminal."""
    return _colored(Table(title=slug, title_justify="left"), COLUMNS, [(row(r), r.held) for r in results])


def _colored(made: Table, columns: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], bool]]) -> Table:
    for name in columns:
        made.add_column(name, overflow="fold")
    for (*cells, _), held in rows:
        made.add_row(*cells, "[green]yes" if held else "[red]no", style=None if held else "bold")
    return made


def page(run: Run) -> str:
    """A full run as Markdown."""
    columns = (*COLUMNS[:5], "at first", *COLUMNS[5:])
    tables = {}
    for slug in dict.fromkeys(result.paper for result in run.results):
        rows = []
        for result in (r for r in run.results if r.paper == slug):
            name, *cells = row(result)
            cells.insert(4, _at_first(run.first.get(_key(result)), result))
            rows.append((f"{name}{' †' if result.loaded else ''}", *cells))
        tables[slug] = _markdown(columns, rows)
    template = Environment(keep_trailing_newline=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text("utf-8")
    )
    return template.render(
        run=run,
        summary=_markdown(SUMMARY, _summary(run.results)),
        growth=_markdown(GROWN, map(grown_row, run.growths)),
        tables=tables,
        loaded=any(result.loaded for result in run.results),
        dates=sorted({first.date for first in run.first.values()}),
    )


def _markdown(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _summary(results: list[Result]) -> list[tuple[str, ...]]:
    """A row for each area and one for all: cases, mean ratio, the slowest case, bars held."""
    area = {entry.slug: entry.area for entry in catalog.papers()}
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(area[result.paper], []).append(result)
    rows = []
    for name, own in {**groups, "**all**": results}.items():
        same = {r: r.ratio.median for r in own if r.kind == "same work" and r.ratio}
        slowest = max(same, key=lambda r: same[r], default=None)
        rows.append(
            (
                name,
                str(len(own)),
                str(len(same)),
                ratio(geometric_mean(same)),
                f"{same[slowest]:.3g}: {slowest.paper}, {slowest.name}" if slowest else "–",
                f"{sum(r.held for r in own)} of {len(own)}",
            )
        )
    return rows


def _key(result: Result) -> str:
    return f"{result.paper}: {result.name}"


def _at_first(first: First | None, result: Result) -> str:
    if first is None:
        return "–"
    told = [f"{first.ratio:.3g}"] if first.ratio is not None else []
    told += [f"{first.memory:.2g} × memory"] if first.memory is not None and result.bar_memory is not None else []
    return ", ".join(told) or "–"


def put(name: str, lines: Iterable[str], page: Path = CLUSTER) -> None:
    """Write ``lines`` between the comments ``name`` and ``/name`` of a page."""
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")
    _, after = rest.split(f"<!-- /{name} -->")
    text = "".join(f"{line}\n" for line in lines)
    page.write_text(f"{before}<!-- {name} -->\n{text}<!-- /{name} -->{after}", encoding="utf-8")


def duration(seconds: float) -> str:
    """Three digits and a unit.

    >>> duration(0.00123)
    '1.23 ms'
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def size(bytes: int | None) -> str:
    return "n/a" if bytes is None else f"{bytes / 2**20:.3g} MiB"


def ratio(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.median:.3g} ({spread.low:.3g}–{spread.high:.3g})"


if __name__ == "__main__":
    write(Run.read(DOCS / "benchmarks.json"))
