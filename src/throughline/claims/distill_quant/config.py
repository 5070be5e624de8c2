"""Config of the distill-quant claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from throughline.claims.shared.fields import NonNegativeReal, PositiveReal, Share, Unit
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Millions = Annotated[Literal["1.0", "0.3", "0.1"], BeforeValidator(str)]


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment, the same in every arm."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "mnist"  # unless data is given
    teacher: Widths = (16, 32, 128)  # channels of the convolutions (none for a table), and the hidden layer
    student: Widths = (4, 8, 32)
    epochs: PositiveInt = 6
    point_epochs: PositiveInt = 3
    batch: PositiveInt = 64
    teacher_lr: PositiveReal = 0.02
    lr: PositiveReal = 0.02  # of every student
    point_lr: PositiveReal = 1e-3
    point_schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: NonNegativeReal = 0.0
    temperature: PositiveReal = 5.0
    weight: Unit = 0.7  # of the teacher in the loss
    bits: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (1, 2, 3, 4, 8)
    test: Share = 0.2  # share of the rows, where the data set has no test part of its own
    millions: Millions = "1.0"  # paper scale: the size of CIFAR-10's student
    root: str = ""  # paper scale: where torchvision keeps its data sets
    device: Device = "cpu"
    data: Source | None = None
