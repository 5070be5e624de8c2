"""Run the benchmarks: ``python -m benchmarks [PAPER ...]``; exit status 1 when a bar is missed."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks.harness import cases, machine, measure, papers
from benchmarks.report import page, record, table


@click.command()
@click.argument("slugs", nargs=-1, metavar="[PAPER]...", type=click.Choice(papers(), case_sensitive=False))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=3), help="Blocks of each side.")
@click.option("--write", type=click.Path(dir_okay=False, path_type=Path), help="Write the page of results here.")
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers here.")
def main(slugs: tuple[str, ...], rounds: int, write: Path | None, as_json: Path | None) -> None:
    """Time the parts of each PAPER (default: all) beside their peers and hold them to their bars."""
    if write is not None and slugs:
        raise click.UsageError("--write keeps the results of a full run: leave out PAPER")
    console = Console(width=None if sys.stdout.isatty() else 150)
    results = []
    for slug in slugs or papers():
        console.print(f"{slug} …", style="dim")
        own = [measure(slug, index, rounds=rounds) for index in range(len(cases(slug)))]
        console.print(table(slug, own))
        results += own
    if write is not None:
        write.write_text(page(results, machine()), encoding="utf-8")
    if as_json is not None:
        text = json.dumps({"machine": machine(), "results": [record(r) for r in results]}, indent=1)
        as_json.write_text(text + "\n", encoding="utf-8")
    missed = [f"{r.paper}: {r.case.name}" for r in results if not r.held]
    for name in missed:
        console.print(f"[red]bar missed:[/red] {name}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
