"""Config of TELL's claim."""

from dataclasses import dataclass
from typing import Literal

from throughline.data import Source

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "digits"  # `data` takes its place
    samples: int = 0  # drawn by the seed; 0 for all
    network: Literal["dense", "convolutional"] = "dense"
    hidden: tuple[int, ...] = (256, 256)  # widths of the dense encoder
    latent: int = 10
    epochs: int = 200
    pretrain: int = 150  # of the epochs: reconstruction alone
    batch: int = 256
    optimizer: Literal["Adam", "Adadelta"] = "Adam"
    lr: float = 1e-3
    clustering_weight: float = 0.025
    passes: int = 100  # of the layer and of mini-batch k-means, which have no network
    root: str = ""  # folder of torchvision's data sets; the cache by default
    device: str = "cpu"
    data: Source | None = None
