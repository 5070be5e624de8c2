"""Sizes of the pointer network claim, and which problem each of its arms learns."""

from dataclasses import dataclass
from typing import Literal

from throughline.data import Source

__all__ = ["Config", "Task", "task_of"]

Task = Literal["hull", "delaunay", "tsp"]


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the learning rate was searched for each arm."""

    points: int = 8  # of the hulls of one size
    lengths: tuple[int, int] = (5, 10)  # of the hulls that pointer_lengths trains on
    tested_lengths: tuple[int, ...] = (5, 8, 10, 15, 20)  # the last is the claim's
    cities: tuple[int, int] = (5, 8)
    tested_cities: tuple[int, ...] = (5, 6, 7, 8, 10, 12)
    triangulated: int = 5
    hidden: int = 64
    init_range: float = 0.2
    steps: int = 4_000
    tour_steps: int = 8_000  # the rule of tours is learned later than that of hulls
    batch: int = 128
    test: int = 2_000  # instances of each size
    beam: int = 4  # of tours and triangulations
    attention_lr: float = 1e-2
    lstm_lr: float = 1e-2
    pointer_lr: float = 1e-2
    pointer_lengths_lr: float = 1e-2
    pointer_tour_lr: float = 1e-2
    pointer_triangles_lr: float = 1e-2
    optimizer: Literal["adam", "sgd"] = "adam"
    pairs: int = 0  # of a training set that is drawn once; fresh instances at every step without
    device: str = "cpu"
    data: Source | None = None


def task_of(arm: str) -> Task:
    """The problem that an arm learns."""
    return {"pointer_tour": "tsp", "pointer_triangles": "delaunay"}.get(arm, "hull")  # type: ignore[return-value]
