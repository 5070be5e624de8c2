"""Config of the sensor-layout claim."""

from dataclasses import dataclass

from throughline.data import Source
from throughline.sensing.layout import Shape

__all__ = ["SHAPES", "Config"]

SHAPES: dict[str, Shape] = {"curvilinear": "curvilinear"}  # every other arm is rectangular


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; learning rates and decay are those of the authors' script or next to them."""

    dataset: str = "mnist"  # digits, mnist, mnist-full, celeba or cityscapes; `data` takes its place
    epochs: int = 10
    sensor: tuple[int, int] | None = None  # height and width; by default what suits the data set
    batch: int = 64
    lr: float = 0.01
    layout_lr: float = 0.03
    decay: float = 0.7  # of both, after every epoch
    held_out: float = 0.2  # share of the images that is tested on, where the data set does not say
    linear: bool = False  # a linear classifier in place of the convolutional network
    scene: int = 256  # largest side of the user's images
    data: Source | None = None
    root: str = ""  # paper scale: the folder of torchvision's data sets
    workers: int = 8  # paper scale: loader processes
    device: str = "cpu"
