"""Config of the G-ACIL claim."""

from dataclasses import dataclass
from typing import Literal

from throughline.data import Source

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    dataset: Literal["digits", "mnist", "cifar100"]  # unless data is given
    expansion: int
    penalty: float = 1.0
    shrinkage: float = 1e-2  # of slda
    shrinkage_expanded: float = 1e-4  # of slda_expanded
    batch: int = 64
    tasks: int = 5
    disjoint: float = 0.5
    blurry: float = 0.1
    every: int = 1_000  # samples between two evaluations; at least eight of them
    test: float = 0.2  # share of rows, where the data set has no test part of its own
    form: Literal["information", "covariance"] = "information"
    backbone: str = ""  # a timm model, or torchvision:<model>; raw values without
    pixels: int = 224  # the side of the backbone's input
    device: str = "cpu"
    data: Source | None = None
