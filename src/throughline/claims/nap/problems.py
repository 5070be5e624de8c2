"""What is searched: tables of settings and outcomes."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Problem", "Task"]


class Task(NamedTuple):
    """One search: settings and their outcomes, large ones wanted."""

    name: str
    x: Tensor  # (N, d) in [0, 1]
    y: Tensor  # (N,), about in [0, 1]
    start: tuple[int, ...] = ()  # the settings that searches on it start from, where a benchmark names them


class Problem(NamedTuple):
    """One space of settings."""

    train: list[Task]
    test: list[Task]
