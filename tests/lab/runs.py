"""Runs of the toy claim, in a folder of the test's own."""

from pathlib import Path
from typing import Any

from tests.lab.toys import Config, Toy

from throughline.lab.engines import Engine
from throughline.lab.engines.local import Local
from throughline.lab.results import Results
from throughline.lab.runner import Event, execute, open_run, plan
from throughline.lab.store import Run, Unit

__all__ = ["ARMS", "metrics", "run", "start"]

ARMS = ("plain", "shifted")


def start(
    root: Path, config: Config, *, seeds: tuple[int, ...] = (0, 1), arms: tuple[str, ...] = ARMS, **options: Any
) -> tuple[Run, bool]:
    command = f"throughline run groco --seeds {','.join(map(str, seeds))}"
    manifest = plan(Toy(), "laptop", config, arms, seeds, threads=1, command=command)
    return open_run(root, manifest, **options)


def run(
    root: Path, config: Config, *, jobs: int = 2, engine: Engine | None = None, **options: Any
) -> tuple[Results, list[Event]]:
    events: list[Event] = []
    folder, _ = start(root, config, **options)
    execute(Toy(), folder, engine or Local(jobs), on_event=events.append)
    return Results(Toy(), folder, config), events


def metrics(results: Results) -> dict[Unit, dict[str, float]]:
    return {unit: record["metrics"] for unit, record in results.records.items()}
