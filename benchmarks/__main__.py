"""Run the benchmarks: ``python -m benchmarks [PAPER ...]``; exit status 1 when a bar is missed."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console

from benchmarks.growth import Grown, grow, growths
from benchmarks.harness import Result, cases, measure, papers
from benchmarks.machine import machine
from benchmarks.report import Run, growth_table, table, write

AGAIN = 2  # times that a full run repeats a case for which others left no room


@click.command()
@click.argument("slugs", nargs=-1, metavar="[PAPER]...", type=click.Choice(papers(), case_sensitive=False))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=3), help="Most blocks of each side.")
@click.option("--growth/--no-growth", default=None, help="How the parts grow; by default with all papers alone.")
@click.option(
    "--write",
    "docs",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Write page and numbers here.",
)
def main(slugs: tuple[str, ...], rounds: int, growth: bool | None, docs: Path | None) -> None:
    """Time the parts of each PAPER (default: all) beside their peers and hold them to their bars."""
    if docs is not None and (slugs or growth is False):
        raise click.UsageError("--write keeps a full run: leave out PAPER and --no-growth")
    console = Console(width=None if sys.stdout.isatty() else 150)
    results: dict[tuple[str, int], Result] = {}
    grown: list[Grown] = []
    for slug in slugs or papers():
        console.print(f"{slug} …", style="dim")
        start = time.perf_counter()
        results |= {(slug, index): measure(slug, index, rounds=rounds) for index in range(len(cases(slug)))}
        console.print(table(slug, [r for (of, _), r in results.items() if of == slug]))
        console.print(f"in {time.perf_counter() - start:.0f} s", style="dim")
        if not slugs if growth is None else growth:
            own = [grow(slug, index) for index in range(len(growths(slug)))]
            grown += own
            if own:
                console.print(growth_table(own))
    for _ in range(0 if slugs else AGAIN):
        for (slug, index), result in results.items():
            if result.loaded:
                console.print(f"others took {result.others:.1f} cores, once more: {slug}: {result.name}", style="dim")
                results[slug, index] = measure(slug, index, rounds=rounds)
    found = list(results.values())
    if docs is not None:
        kept = docs / "benchmarks.json"
        first = Run.read(kept).first if kept.exists() else {}
        write(Run.of_today(machine(), found, grown, first), docs)
    for result in found:
        if result.loaded:
            beside = f"measured beside other work ({result.others:.1f} cores)"
            console.print(f"[yellow]{beside}:[/yellow] {result.paper}: {result.name}")
    missed = [f"{r.paper}: {r.name}" for r in found if not r.held] + [
        f"{g.paper}: {g.name}" for g in grown if not g.held
    ]
    for name in missed:
        console.print(f"[red]bar missed:[/red] {name}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
