"""Sizes and rates of the spon claim."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    problem: Literal["plate", "flow", "beam"] = "plate"  # unless data is given
    levels: PositiveInt = 3  # meshes of the hierarchy
    refined: NonNegativeInt = 0  # of the coarsest mesh, times
    train: PositiveInt = 224  # solutions
    test: PositiveInt = 64
    hidden: PositiveInt = 32  # of spon-mg; that of spon gives as many parameters
    steps: PositiveInt = 8  # of spon
    smoothing_steps: PositiveInt = 1
    coarse_steps: PositiveInt = 4
    batch: PositiveInt = 8
    updates: PositiveInt = 800
    lr: PositiveReal = 8e-3  # of {2e-3, 4e-3, 8e-3, 1.6e-2} the best of spon, and within 1 % of that for spon-mg
    looks: PositiveInt = 16  # at the test error while training, for the pictures
    horizon: PositiveInt = 20  # of a flow: steps of the operator in a row
    device: Device = "cpu"
    data: Source | None = None
