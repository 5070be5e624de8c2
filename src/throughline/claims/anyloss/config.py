"""Config of the AnyLoss claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]

Models = Annotated[tuple[Literal["slp", "mlp", "resnet"], ...], Field(min_length=1)]
Digits = Annotated[tuple[Annotated[int, Field(ge=0, le=9)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    collection: Literal["uci", "imblearn"] = "uci"  # imblearn: its 27 sets
    sets: tuple[str, ...] = ()  # of the collection, all by default; `data` takes their place
    models: Models = ("slp",)  # resnet on MNIST, one digit against the rest
    folds: NonNegativeInt = 0  # of cross-validation; 0 is one 70/30 split
    steps: PositiveInt = 1000  # of gradient descent on the full batch (slp)
    lr: PositiveReal = 1.0  # slp: cross-entropy, squared error, and the metric without amplification
    metric_lr: PositiveReal = 0.03  # slp: the amplified metrics
    epochs: PositiveInt = 100  # mlp
    resnet_epochs: PositiveInt = 3
    digits: Digits = tuple(range(10))  # resnet
    data: Source | None = None
    root: str = ""  # folder of torchvision's data sets
    device: Device = "cpu"
