"""Config of the distill-quant claim."""

from dataclasses import dataclass
from typing import Literal

from throughline.data import Source

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment, the same in every arm."""

    dataset: Literal["digits", "mnist", "cifar10", "cifar100"] = "mnist"  # unless data is given
    teacher: tuple[int, ...] = (16, 32, 128)  # channels of the convolutions (none for a table), and the hidden layer
    student: tuple[int, ...] = (4, 8, 32)
    epochs: int = 6
    point_epochs: int = 3
    batch: int = 64
    lr: float = 0.02
    point_lr: float = 1e-3
    weight_decay: float = 0.0
    temperature: float = 5.0
    weight: float = 0.7  # of the teacher in the loss
    bits: tuple[int, ...] = (1, 2, 3, 4, 8)
    test: float = 0.2  # share of the rows, where the data set has no test part of its own
    millions: Literal["1.0", "0.3", "0.1"] = "1.0"  # paper scale: the size of CIFAR-10's student
    root: str = ""  # paper scale: where torchvision keeps its data sets
    device: str = "cpu"
    data: Source | None = None
