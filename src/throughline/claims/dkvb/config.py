"""Config of the bottleneck's claim."""

from dataclasses import dataclass
from typing import Literal

from throughline.data import Source

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    dataset: Literal["digits", "mnist", "cifar10"]  # unless data is given
    encoder: str  # omniglot, random, torchvision:<model>, transformers:<repository> or a timm model
    codebooks: int
    pairs: int
    epochs: int  # of each task
    key_epochs: int = 3
    dim_key: int = 14
    tasks: int = 5
    batch: int = 256
    lr: float = 0.3  # of the values
    linear_lr: float = 1e-3
    mlp_lr: float = 1e-3
    iid_linear_lr: float = 1e-2
    standardized_linear_lr: float = 1e-3
    standardized_mlp_lr: float = 3e-3
    smoothing: float = 0.1  # of labels
    clip: float = 1.0  # on the norm of the gradient
    hidden: int = 128  # of the MLP
    encoder_epochs: int = 6  # of the Omniglot encoder
    width: int = 256  # of the random encoder
    test: float = 0.2  # share of rows, where the data set has no test part of its own
    keys: str = ""  # with data: unlabelled images below a folder, or a table without labels
    device: str = "cpu"
    data: Source | None = None
