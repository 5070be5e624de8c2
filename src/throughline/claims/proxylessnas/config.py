"""Sizes and rates of the proxylessnas claim."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """The same in every arm: the search first, then the training of what it found, from scratch."""

    dataset: Literal["mnist1d", "imagenet"] = "mnist1d"  # unless data is given
    samples: PositiveInt = 4_000  # of MNIST-1D, half of them for validation; all of them train what was found
    batch: PositiveInt = 64
    warmup: NonNegativeInt = 4  # epochs of weights alone, before those of the search
    epochs: PositiveInt = 12
    every: PositiveInt = 1  # batches to a step on the architecture
    lr: PositiveReal = 0.05  # of the weights: cosine to 0, by epoch
    momentum: Fraction = 0.9
    weight_decay: NonNegativeReal = 4e-5
    smoothing: Fraction = 0.0  # of labels
    arch_lr: PositiveReal = 0.06
    strength: NonNegativeReal = 0.1  # of latency in the loss
    final_epochs: PositiveInt = 10
    final_lr: PositiveReal = 0.05  # cosine to 0, by step
    final_decay: NonNegativeReal = 5e-4
    held_out: Literal["test", "validation"] = "test"  # "validation" to choose rates by, with the other half to train on
    paths: PositiveInt = 30  # whose memory is averaged
    networks: PositiveInt = 4  # of the arm that draws at random: passes of a network as many as in a search of paths
    rounds: PositiveInt = 3  # of timing a network and the one it is compared with, in turns
    repeats: PositiveInt = 40  # calls of each in a round, and of each candidate
    size: PositiveInt = 224  # ImageNet: pixels of an image on a side
    root: str = ""  # ImageNet: the folder that holds train/ and val/
    workers: NonNegativeInt = 8  # ImageNet: loader processes
    device: Device = "cpu"  # where everything runs, and latency is measured
    data: Source | None = None
