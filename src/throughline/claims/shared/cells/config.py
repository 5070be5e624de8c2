"""Sizes and rates that the claims about architecture search have in common."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Arm, Device

__all__ = ["PAPER", "RANDOM", "CellConfig"]

PAPER: dict[str, Any] = {  # CIFAR-10 in the space of DARTS
    "dataset": "cifar10",
    "space": "darts",
    "samples": 50_000,
    "layers": 8,
    "epochs": 50,
    "arch_lr": 3e-4,
    "final_epochs": 600,
    "final_batch": 96,
    "final_lr": 0.025,
    "final_decay": 3e-4,
    "final_channels": 36,
    "final_layers": 20,
    "retrainings": 1,
    "device": "cuda",
}


RANDOM = Arm(
    "random",
    "Draws architectures, trains each on the training half, as many as cost what a search does, and keeps the most "
    "accurate on the validation half.",
)


@dataclass(frozen=True)
class CellConfig:
    """The same in every arm: the search first, then the training of what it found, from scratch."""

    dataset: Literal["mnist1d", "cifar10", "cifar100", "svhn"] = "mnist1d"  # unless data is given
    space: Literal["cells", "darts", "s2", "s3", "s4"] = "cells"  # "cells": by the data's number of dimensions
    samples: Annotated[int, Field(ge=4)] = (
        1_000  # of the search, half of them for validation; as many to train what it found
    )
    channels: PositiveInt = 16
    layers: PositiveInt = 1  # cells of a stage for images; of the whole network in the other spaces
    batch: PositiveInt = 64
    epochs: PositiveInt = 90
    lr: PositiveReal = 0.025  # of the weights: cosine, by epoch
    least_lr: NonNegativeReal = 1e-3
    momentum: Fraction = 0.9
    weight_decay: NonNegativeReal = 3e-4
    clip: PositiveReal = 5.0
    arch_lr: PositiveReal = 3e-3
    arch_decay: NonNegativeReal = 1e-3
    final_epochs: PositiveInt = 40
    final_batch: PositiveInt = 64
    final_lr: PositiveReal = 0.05  # cosine to 0, by step
    final_decay: NonNegativeReal = 5e-4
    final_channels: PositiveInt = 16
    final_layers: PositiveInt = 1
    retrainings: PositiveInt = 3  # the accuracy of an architecture is their mean
    benchmark: str = ""  # paper scale: the file of NAS-Bench-201, looked up by the package nas_201_api
    root: str = ""  # paper scale: torchvision's folder
    device: Device = "cpu"
    data: Source | None = None
