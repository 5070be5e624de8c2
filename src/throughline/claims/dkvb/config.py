"""Config of the bottleneck's claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from throughline.claims.shared.fields import Fraction, PositiveReal, Share
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    dataset: Literal["digits", "mnist", "cifar10"]  # unless data is given
    encoder: str  # omniglot, random, torchvision:<model>, transformers:<repository> or a timm model
    codebooks: PositiveInt
    pairs: PositiveInt
    epochs: PositiveInt  # of each task
    key_epochs: PositiveInt = 3
    dim_key: PositiveInt = 14
    tasks: Annotated[int, Field(ge=2)] = 5  # forgetting needs two
    batch: PositiveInt = 256
    lr: PositiveReal = 0.3  # of the values
    linear_lr: PositiveReal = 1e-3
    mlp_lr: PositiveReal = 1e-3
    iid_linear_lr: PositiveReal = 1e-2
    standardized_linear_lr: PositiveReal = 1e-3
    standardized_mlp_lr: PositiveReal = 3e-3
    smoothing: Fraction = 0.1  # of labels
    clip: PositiveReal = 1.0  # on the norm of the gradient
    hidden: PositiveInt = 128  # of the MLP
    encoder_epochs: PositiveInt = 6  # of the Omniglot encoder
    width: PositiveInt = 256  # of the random encoder
    test: Share = 0.2  # share of rows, where the data set has no test part of its own
    keys: str = ""  # with data: unlabelled images below a folder, or a table without labels
    device: Device = "cpu"
    data: Source | None = None
