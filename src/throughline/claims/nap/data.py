"""Searches to learn from and searches to be judged by: tables of settings and outcomes, split by whole data sets."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from throughline.claims.nap.config import Config
from throughline.claims.nap.problems import Problem, Task
from throughline.claims.shared.svm_tables import DIGITS, SETS, SUBSAMPLES, svc_settings, svc_tables
from throughline.data import DataError, Source
from throughline.data.cache import kept
from throughline.errors import ThroughlineError
from throughline.search.meta_bo import gp_prior_tasks

__all__ = ["check", "load", "related"]


def check(problem: Problem, config: Config) -> None:
    """Refuse tables that cannot be searched, and compute what will be learned from, so that a fault is one line."""
    if not problem.train or not problem.test:
        raise ThroughlineError(
            f"test_sets={config.test_sets} leave {len(problem.train)} tables to learn from, {len(problem.test)} to be "
            "judged by, and both want one at least; give another number"
        )
    if config.d_model % config.nhead:
        raise ThroughlineError(f"d_model must be a multiple of nhead={config.nhead}, got {config.d_model}")
    if config.related and config.candidates < config.horizon:
        raise ThroughlineError(f"candidates must be at least horizon={config.horizon}, got {config.candidates}")
    where = f"{config.data.path}: " if config.data is not None else ""
    for task in (*problem.train, *problem.test):
        if len(task.y) < config.horizon:
            cure = f"--set horizon={len(task.y)} or less"
            raise DataError(
                f"{where}table {task.name}: {len(task.y)} different settings, the horizon is {config.horizon}; {cure}"
            )
        if bool((task.y == task.y[0]).all()):
            raise DataError(
                f"{where}table {task.name}: every outcome is the same, and nothing can be searched; leave it out"
            )
    related(problem.train, config)
    if config.dataset == "svc" and config.data is None:  # which sets are for training depends on the seed
        related(problem.test, config)


def load(config: Config, seed: int) -> list[Problem]:
    """The user's tables, or the tables of support vector machines, or quadratics."""
    if config.data is not None:
        return [_leave_one_out(_own(config.data), seed)]
    return [_svc(seed, config.test_sets) if config.dataset == "svc" else _quadratics(seed, config.test_sets)]


def related(tasks: Sequence[Task], config: Config) -> list[tuple[Tensor, Tensor]]:
    """What a policy is trained on: tasks like these from Gaussian processes, on the tables' own scale of outcomes.

    The draws of a table depend on that table alone, and are kept in the user's cache.
    """
    if not config.related:
        return [(task.x, task.y) for task in tasks]
    return [pair for task in tasks for pair in _drawn(task, config.related, config.candidates, config.max_points)]


def _drawn(task: Task, count: int, size: int, max_points: int) -> list[tuple[Tensor, Tensor]]:
    def make() -> dict[str, Tensor]:
        draw = gp_prior_tasks([(task.x, task.y)], num_candidates=size, max_points=max_points)
        generator = torch.Generator().manual_seed(0)
        inputs, outcomes = zip(*(draw(generator) for _ in range(count)), strict=True)
        return {"x": torch.stack(inputs), "y": torch.stack(outcomes)}

    table = torch.cat([task.x, task.y[:, None]], 1).double().numpy()
    versions = [version(package) for package in ("torch", "botorch", "gpytorch")]
    key = {
        "what": "tasks from a Gaussian process",
        "versions": versions,
        "sizes": [count, size, max_points],
        "table": hashlib.sha256(table.tobytes()).hexdigest(),
    }
    drawn = kept("tasks", key, make)
    low, high = task.y.min(), task.y.max()
    return [*zip(drawn["x"], low + drawn["y"] * (high - low), strict=True)]


def _svc(seed: int, test_sets: int) -> Problem:
    """Whole data sets are held out; those made of the same digits fall on the same side."""
    groups = [DIGITS, *((name,) for name in SETS if name not in DIGITS)]
    held_out: set[str] = set()
    for place in np.random.default_rng(seed).permutation(len(groups)):
        if len(held_out) + len(groups[place]) <= test_sets:
            held_out |= {*groups[place]}
    scores, settings = svc_tables(), svc_settings()
    tasks = [
        (name in held_out, Task(f"{name}, {part}", settings, scores[name][part].float()))
        for name in SETS
        for part in range(SUBSAMPLES)
    ]
    return Problem(*([task for tested, task in tasks if tested == side] for side in (False, True)))


def _quadratics(seed: int, test_sets: int, count: int = 6, size: int = 16) -> Problem:
    draw = torch.Generator().manual_seed(seed)
    x, centres = torch.rand(count, size, 2, generator=draw), torch.rand(count, 1, 2, generator=draw)
    y = 1 - (x - centres).square().sum(-1) / 2
    tasks = [Task(f"quadratic {i}", x[i], y[i]) for i in range(count)]
    return Problem(tasks[test_sets:], tasks[:test_sets])


def _own(source: Source) -> list[Task]:
    """The user's tables: columns x1 … xd and y, scaled alike in all of them; equal settings are averaged."""
    frames = {name: _numeric(source, name, frame) for name, frame in source.tables().items()}
    first = next(iter(frames))
    columns = [name for name in frames[first].columns if name != "y"]
    for name, frame in frames.items():
        if "y" not in frame or not columns:
            raise DataError(
                f"{source.path}: every table needs a column y, what came out, and others, what was set; {name} has "
                f"{', '.join(frame.columns)}"
            )
        if sorted(frame.columns) != sorted(frames[first].columns):
            raise DataError(
                f"{source.path}: every table needs the same columns; {name} has {', '.join(frame.columns)}, "
                f"{first} {', '.join(frames[first].columns)}"
            )
    if len(frames) < 3:
        raise DataError(f"{source.path}: three tables or more are needed, one is held out; got {len(frames)}")
    grouped = {name: frame.groupby(columns, as_index=False)["y"].mean() for name, frame in frames.items()}
    together = pd.concat(grouped.values())[columns].to_numpy(float)
    low, high = together.min(0), together.max(0)
    width = np.where(high > low, high - low, 1.0)
    return [
        Task(
            name,
            torch.tensor((frame[columns].to_numpy(float) - low) / width).float(),
            torch.tensor(frame["y"].to_numpy(float)),
        )
        for name, frame in grouped.items()
    ]


def _numeric(source: Source, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    numbers: pd.DataFrame = frame.apply(pd.to_numeric, errors="coerce")
    bad = [column for column in numbers if not np.isfinite(numbers[column].to_numpy(float)).all()]
    if bad:
        raise DataError(f"{source.path}: column {bad[0]!r} of {name} must hold finite numbers; mend or remove it")
    return numbers


def _leave_one_out(tasks: list[Task], seed: int) -> Problem:
    """One table is searched; outcomes outside [0, 1] are scaled by what the others hold."""
    place = seed % len(tasks)
    train = [task for i, task in enumerate(tasks) if i != place]
    outcomes = torch.cat([task.y for task in train])
    low, high = float(outcomes.min()), float(outcomes.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    width = high - low or 1.0
    scaled = [task._replace(y=((task.y - low) / width).float()) for task in (*train, tasks[place])]
    return Problem(scaled[:-1], scaled[-1:])
