"""Sizes and rates of the stn claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal, Share
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    dataset: Literal["digits", "mnist", "cifar10", "ptb"] = "mnist"  # unless data is given
    train: PositiveInt = 1_000  # rows; what is left goes unused
    valid: PositiveInt = 1_000
    test: PositiveInt = 5_000
    hidden: PositiveInt = 300
    batch: PositiveInt = 100
    lr: PositiveReal = 0.03
    momentum: Fraction = 0.9
    clip: NonNegativeReal = 0.0  # norm of the gradient; 0 for none
    steps: PositiveInt = 3_000  # of self-tuning, two on weights for each on hyperparameters
    warmup: NonNegativeInt = 200  # of the steps
    trials: PositiveInt = 6  # of the search, all of the steps of one trial each
    trial_steps: PositiveInt = 750
    hyper_lr: PositiveReal = 0.03
    scale_lr: PositiveReal = 0.03
    scale: PositiveReal = 0.5
    tune_scale: bool = True
    entropy_weight: NonNegativeReal = 1e-3
    start: Share = 0.05  # where all hyperparameters start, a share of their ranges
    other_start: Share = 0.5
    every: PositiveInt = 50  # steps between two looks at the validation set
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the rate, after `decay_after` looks without improvement
    decay_after: NonNegativeInt = 0
    stop_after: NonNegativeInt = 0  # looks without improvement; 0 for never
    least_lr: NonNegativeReal = 0.0  # below which a run stops
    search: Literal["random", "tpe", "grid"] = "random"  # the last two by optuna
    length: PositiveInt = 70  # of a window of text
    root: str = ""  # paper scale: torchvision's folder, or the one with ptb.train.txt
    device: Device = "cpu"
    data: Source | None = None
