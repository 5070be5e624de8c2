"""Config of GroCo's claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["NEGATIVES", "Config"]

NEGATIVES = 10  # the paper's


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; each arm has a peak learning rate of its own, and a temperature if any."""

    images: Literal["digits", "omniglot", "imagenet"] = "omniglot"  # `data` takes their place
    epochs: PositiveInt = 12
    batch: Annotated[int, Field(gt=NEGATIVES)] = 256
    k: PositiveInt = 5  # neighbours that vote
    infonce_lr: PositiveReal = 8e-3
    groco_lr: PositiveReal = 1.6e-2
    top10_lr: PositiveReal = 8e-3
    infonce_temperature: PositiveReal = 0.1
    top10_temperature: PositiveReal = 0.2
    size: PositiveInt = 28
    data: Source | None = None
    root: str = ""  # imagenet: the folder that holds train/ and val/
    device: Device = "cpu"
    gpus: PositiveInt = 1  # imagenet: processes, with a GPU each
    workers: NonNegativeInt = 8  # imagenet: loader processes of each
