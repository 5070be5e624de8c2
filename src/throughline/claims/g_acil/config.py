"""Config of the G-ACIL claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from throughline.claims.shared.fields import PositiveReal, Share, Unit
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    dataset: Literal["digits", "mnist", "cifar100"]  # unless data is given
    expansion: PositiveInt
    penalty: PositiveReal = 1.0
    shrinkage: Annotated[float, Field(gt=0, le=1)] = 1e-2  # of slda
    shrinkage_expanded: Annotated[float, Field(gt=0, le=1)] = 1e-4  # of slda_expanded
    batch: PositiveInt = 64
    tasks: PositiveInt = 5
    disjoint: Unit = 0.5
    blurry: Unit = 0.1
    every: PositiveInt = 1_000  # samples between two evaluations; at least eight of them
    test: Share = 0.2  # share of rows, where the data set has no test part of its own
    form: Literal["information", "covariance"] = "information"
    backbone: str = ""  # a timm model, or torchvision:<model>; raw values without
    pixels: PositiveInt = 224  # the side of the backbone's input
    device: Device = "cpu"
    data: Source | None = None
