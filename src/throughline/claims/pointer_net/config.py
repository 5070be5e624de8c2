"""Sizes of the pointer network claim, and which problem each of its arms learns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import PositiveReal
from throughline.data import Source
from throughline.lab import Device

if TYPE_CHECKING:
    from throughline.claims.shared.planar_batches import Task

__all__ = ["Config", "task_of"]

Corners = Annotated[int, Field(ge=3)]  # points of a hull or a triangulation
Cities = Annotated[int, Field(ge=2)]  # points of a tour


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the learning rate was searched for each arm."""

    points: Corners = 8  # of the hulls of one size
    lengths: tuple[Corners, Corners] = (5, 10)  # of the hulls that pointer_lengths trains on
    tested_lengths: Annotated[tuple[Corners, ...], Field(min_length=1)] = (5, 8, 10, 15, 20)  # the last is the claim's
    cities: tuple[Cities, Cities] = (5, 8)
    tested_cities: Annotated[tuple[Cities, ...], Field(min_length=1)] = (5, 6, 7, 8, 10, 12)
    triangulated: Corners = 5
    hidden: PositiveInt = 64
    init_range: PositiveReal = 0.2
    steps: PositiveInt = 4_000
    tour_steps: PositiveInt = 8_000  # the rule of tours is learned later than that of hulls
    batch: PositiveInt = 128
    test: PositiveInt = 2_000  # instances of each size
    beam: PositiveInt = 4  # of tours and triangulations
    attention_lr: PositiveReal = 2e-2
    lstm_lr: PositiveReal = 2e-2
    pointer_lr: PositiveReal = 1e-2
    pointer_lengths_lr: PositiveReal = 4e-2
    pointer_tour_lr: PositiveReal = 1e-2
    pointer_triangles_lr: PositiveReal = 2e-2
    optimizer: Literal["adam", "sgd"] = "adam"
    pairs: NonNegativeInt = 0  # of a training set that is drawn once; fresh instances at every step without
    device: Device = "cpu"
    data: Source | None = None


def task_of(arm: str) -> "Task":
    """The problem that an arm learns."""
    return {"pointer_tour": "tsp", "pointer_triangles": "delaunay"}.get(arm, "hull")  # type: ignore[return-value]
