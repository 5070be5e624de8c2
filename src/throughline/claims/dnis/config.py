"""Sizes and rates of the dnis claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import Fraction, PositiveReal, PositiveReals, Share
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    dataset: Literal["movielens-100k", "movielens-20m", "criteo", "movielens-1m"] = "movielens-100k"  # unless data
    model: Literal["fm", "mlp", "neumf", "wide-deep", "deepfm"] = "fm"
    rows: NonNegativeInt = 0  # that a seed draws from the data; 0 for all
    valid: Share = 0.2
    test: Share = 0.1
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64)  # of uniform; all others the largest
    blocks: PositiveInt = 10
    sparsity: Fraction = 0.5
    higher_sparsity: Fraction = 0.75  # of dnis_16
    temperatures: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.1, 0.2, 0.3, 0.5)  # of mixed
    decays: PositiveReals = (3e-6, 1e-5)  # of the weights; each arm and size takes the better one on validation
    batch: PositiveInt = 1_024
    epochs: PositiveInt = 40  # at most, of the warm start
    patience: PositiveInt = 2  # epochs without improvement after which it stops
    search_epochs: PositiveInt = 15
    lr: PositiveReal = 1e-2  # of the warm start
    lr_without_decay: PositiveReal = 3e-3
    search_lr: PositiveReal = 1e-3  # of the weights behind it, with or without a search
    alpha_lr: PositiveReal = 0.01
    root: str = ""  # paper scale: the folder with ratings.csv, train.txt or ratings.dat
    device: Device = "cpu"
    data: Source | None = None
