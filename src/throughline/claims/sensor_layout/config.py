"""Config of the sensor-layout claim."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import PositiveReal, Share
from throughline.data import Source
from throughline.lab import Device

if TYPE_CHECKING:
    from throughline.sensing.layout import Shape

__all__ = ["SHAPES", "Config"]

Side = Annotated[int, Field(ge=2)]  # of the sensor, in pixels
SHAPES: "dict[str, Shape]" = {"curvilinear": "curvilinear"}  # every other arm is rectangular


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the network's learning rate was searched for each arm."""

    dataset: Literal["digits", "mnist", "mnist-full", "celeba", "cityscapes"] = "mnist"  # `data` takes its place
    epochs: PositiveInt = 10
    sensor: tuple[Side, Side] | None = None  # height and width; by default what suits the data set
    batch: PositiveInt = 64
    uniform_lr: PositiveReal = 0.01  # of the network
    rectangular_lr: PositiveReal = 0.01
    curvilinear_lr: PositiveReal = 0.01
    fixed_center_lr: PositiveReal = 0.01
    refrozen_lr: PositiveReal = 0.01  # of the fresh network; the layout is learned as that of rectangular
    layout_lr: PositiveReal = 0.03
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7  # of all rates, after every epoch
    held_out: Share = 0.2  # share of the images that is tested on, where the data set does not say
    linear: bool = False  # a linear classifier in place of the convolutional network
    scene: PositiveInt = 256  # largest side of the user's images
    data: Source | None = None
    root: str = ""  # paper scale: the folder of torchvision's data sets
    workers: NonNegativeInt = 8  # paper scale: loader processes
    device: Device = "cpu"
