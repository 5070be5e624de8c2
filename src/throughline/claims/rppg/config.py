"""Sizes and rates of the rppg claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from throughline.claims.shared.fields import NonNegativeReal, PositiveReal, Share, Unit
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config", "Difficulty"]


@dataclass(frozen=True)
class Difficulty:
    """Of generated clips."""

    motion: NonNegativeReal
    light: NonNegativeReal
    melanin: tuple[Unit, Unit]


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the learning rate was searched for each arm."""

    dataset: Literal["synthetic", "pure-mmpd"] = "synthetic"  # unless data is given
    train: PositiveInt = 80  # generated clips
    same: PositiveInt = 24
    cross: PositiveInt = 48
    curve: PositiveInt = 12  # of each strength in the pictures
    easy: Difficulty = Difficulty(0.2, 0.15, (0.0, 0.4))
    hard: Difficulty = Difficulty(0.5, 0.8, (0.3, 0.9))
    frames: PositiveInt = 192  # that are read at a time in evaluation; all of a generated clip
    crop: Annotated[int, Field(ge=4)] = 96  # that are trained on at a time
    size: Annotated[int, Field(ge=16)] = 16  # pixels on a side
    fs: Annotated[float, Field(gt=5, allow_inf_nan=False)] = 15.0  # frames a second
    channels: tuple[PositiveInt, PositiveInt, Annotated[int, Field(ge=4, multiple_of=4)]] = (6, 12, 24)
    batch: PositiveInt = 4
    steps: PositiveInt = 600
    physnet_lr: PositiveReal = 1e-3
    physfsunet_lr: PositiveReal = 5e-4
    difference_lr: PositiveReal = 1e-3
    fused_lr: PositiveReal = 1e-3
    weight_decay: NonNegativeReal = 0.0
    time_weight: tuple[PositiveReal, PositiveReal] = (1.0, 0.05)  # of the hybrid loss
    frequency_weight: tuple[PositiveReal, PositiveReal] = (0.01, 5.0)
    box: tuple[Unit, Unit, Unit, Unit] = (0.0, 0.0, 1.0, 1.0)  # of the face, in shares of the frame (x, y, w, h)
    test: Share = 0.3  # share of the user's subjects, at least one
    root: str = ""  # of PURE: folders 01-01, 01-02, …
    test_root: str = ""  # of MMPD: folders subject1, subject2, …
    device: Device = "cpu"
    data: Source | None = None
