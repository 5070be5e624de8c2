"""Benchmark results as a table in the terminal, as a page of the documentation and as JSON."""

import dataclasses
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness import Result, Spread

__all__ = ["page", "put", "record", "table"]

CLUSTER = Path(__file__).parents[1] / "docs" / "cluster.md"

COLUMNS = ("case", "ours", "peer", "ours / peer (10–90 %)", "bar", "peak memory", "share of the floor", "held")


def row(result: Result) -> tuple[str, ...]:
    case = result.case
    bars = [f"{case.bar:g} ×"] if case.bar is not None else []
    bars += [duration(case.bar_seconds)] if case.bar_seconds is not None else []
    bars += [f"{case.bar_memory:g} × memory"] if case.bar_memory is not None else []
    return (
        case.name,
        duration(result.ours.median),
        f"{duration(result.peer.median)} ({case.peer})" if result.peer else "–",
        ratio(result.ratio),
        ", ".join(bars),
        f"{size(result.ours_peak)} / {size(result.peer_peak)}" if result.peer else size(result.ours_peak),
        f"{result.share:.0%}" if result.share is not None else "–",
        "yes" if result.held else "**no**",
    )


def table(slug: str, results: Iterable[Result]) -> Table:
    """One paper's results for the terminal."""
    made = Table(title=slug, title_justify="left")
    for name in COLUMNS:
        made.add_column(name, overflow="fold")
    for result in results:
        *cells, held = row(result)
        made.add_row(*cells, "[green]yes" if result.held else "[red]no", style=None if held == "yes" else "bold")
    return made


def page(results: Iterable[Result], machine: dict[str, str]) -> str:
    """The results of a full run as Markdown."""
    results = list(results)
    lines = [
        "# Benchmarks",
        "",
        "Ours and the peer run in one process, on the same inputs, on one thread, in alternating blocks, after a check",
        "that they agree. Times are medians; the ratio is the median over the rounds of ours over the peer's, with the",
        "range of the middle 80 %. Peak memory is what one call adds (ours / the peer's). The share of the floor says",
        "how near our time comes to the least that this machine would need: the operations that cannot be avoided at",
        "its rate in a matrix product, or the bytes at its rate in a copy, whichever takes longer. `make bench` runs",
        "all of it again, `make bench PAPER=groco` one paper's.",
        "",
        f"Last full run: {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.",
        "",
        "| machine | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in machine.items()),
        "",
    ]
    for slug in dict.fromkeys(result.paper for result in results):
        lines += [f"## {slug}", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row(result))} |" for result in results if result.paper == slug]
        lines.append("")
    return "\n".join(lines)


def record(result: Result) -> dict[str, Any]:
    """A result as plain JSON values."""
    case = {f.name: getattr(result.case, f.name) for f in dataclasses.fields(result.case) if f.name != "setup"}
    spreads = {name: getattr(result, name) for name in ("ours", "peer", "ratio")}
    return {
        "paper": result.paper,
        **case,
        "dtype": str(result.case.dtype),
        **{f"{name}_seconds".replace("ratio_seconds", "ratio"): s and s._asdict() for name, s in spreads.items()},
        "ours_peak_bytes": result.ours_peak,
        "peer_peak_bytes": result.peer_peak,
        "floor_seconds": result.floor,
        "share": result.share,
        "held": result.held,
    }


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
