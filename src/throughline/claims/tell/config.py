"""Config of TELL's claim."""

from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "digits"  # `data` takes its place
    samples: NonNegativeInt = 0  # drawn by the seed; 0 for all
    network: Literal["dense", "convolutional"] = "dense"
    hidden: tuple[PositiveInt, ...] = (256, 256)  # widths of the dense encoder
    latent: PositiveInt = 10
    epochs: PositiveInt = 200
    pretrain: NonNegativeInt = 150  # of the epochs: reconstruction alone
    batch: PositiveInt = 256
    optimizer: Literal["Adam", "Adadelta"] = "Adam"
    lr: PositiveReal = 1e-3
    clustering_weight: NonNegativeReal = 0.1
    passes: PositiveInt = 100  # of the layer and of mini-batch k-means, which have no network
    root: str = ""  # folder of torchvision's data sets; the cache by default
    device: Device = "cpu"
    data: Source | None = None
