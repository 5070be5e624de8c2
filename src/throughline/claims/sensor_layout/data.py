"""What the sensor-layout claim trains on: images in memory, and the task that they set."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.sensor_layout.config import Config
from throughline.claims.sensor_layout.models import convolutional
from throughline.claims.shared.classes import class_split
from throughline.claims.shared.datasets import pictures, torchvision_set
from throughline.data import Images, digits, image_folder, mnist
from throughline.errors import ThroughlineError
from throughline.sensing.layout import SensorLayout

__all__ = ["SHOWN", "Network", "Task", "check", "load", "sensor_size"]

SENSORS = {"digits": (3, 3), "mnist": (4, 4), "mnist-full": (4, 4), "celeba": (8, 8), "cityscapes": (256, 512)}
FOLDER_SENSOR = (8, 8)
CHUNK = 500  # images at once, where no gradient is kept
SHOWN = 10

Network = nn.Module
Measure = Callable[[SensorLayout, Network], dict[str, float]]


class Task(NamedTuple):
    """A data set split for one seed, and what is trained and measured on it."""

    network: Callable[[], Network]
    steps: int  # of an epoch
    batches: Callable[[SensorLayout], Iterator[tuple[Tensor, Tensor]]]  # all epochs: what the sensor reads, and targets
    loss: Callable[[SensorLayout, Tensor, Tensor], Tensor]
    measure: Measure
    scenes: Tensor  # ten test scenes, in [0, 1]
    mean_scene: Tensor


def sensor_size(config: Config) -> tuple[int, int]:
    """Height and width of the sensor: `--size`, else the config's, else that of the data set."""
    if config.data is not None and config.data.size is not None:
        return config.data.size, config.data.size
    return config.sensor or (SENSORS[config.dataset] if config.data is None else FOLDER_SENSOR)


def check(config: Config) -> None:
    """Refuse what cannot be run, before any data is read."""
    if config.data is not None and config.data.size == 1:
        raise ThroughlineError("a sensor of one pixel has no layout to learn; --size 2 or more")
    if config.data is None and config.dataset not in ("digits", "mnist") and not config.root:
        raise ThroughlineError(
            f"dataset={config.dataset} needs --set root=FOLDER, the folder that holds it or may receive it"
        )


def _in_memory(config: Config, seed: int) -> tuple[Images, Images]:
    if config.data is not None:
        images = image_folder(config.data.path, size=_common_side(Path(config.data.path), config.scene))
    elif config.dataset == "mnist-full":
        return tuple(_full_mnist(config, part) for part in (True, False))  # type: ignore[return-value]
    else:
        images = {"digits": digits, "mnist": mnist}[config.dataset]()
    train, test = class_split(
        images.labels, images.classes, seed, config.held_out, source=config.data, setting="held_out"
    )
    return tuple(Images(images.images[r], images.labels[r], images.classes) for r in (train, test))  # type: ignore[return-value]


def _common_side(root: Path, largest: int) -> int:
    """The side of the square that every image is cut and resized to: nothing is enlarged unless images differ."""
    from PIL import Image

    sides = []
    for file in root.glob("*/*"):
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except OSError:  # not an image, or a broken one: `image_folder` skips the former and names the latter
            continue
    return min([largest, *sides])


def _full_mnist(config: Config, train: bool) -> Images:
    images, labels = pictures(torchvision_set("MNIST", config.root, train=train, download=True))
    return Images(images, labels.long(), tuple("0123456789"))


def load(config: Config, seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    train, test = _in_memory(config, seed)
    if config.data is None and config.dataset.startswith("mnist"):
        mean, deviation = 0.1307, 0.3081  # the authors'
    else:
        mean, deviation = train.images.mean().item(), train.images.std().item()
    scenes, mean_scene = test.images[:SHOWN], train.images.mean(0)
    x, x_test = (((part.images - mean) / deviation).to(config.device) for part in (train, test))
    y, y_test = (part.labels.to(config.device) for part in (train, test))
    size, channels, classes = sensor_size(config), x.shape[1], len(train.classes)

    def network() -> Network:
        pixels = size[0] * size[1] * channels
        linear = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
        return (linear if config.linear else convolutional(channels, size, classes)).to(config.device)

    def batches(layout: SensorLayout) -> Iterator[tuple[Tensor, Tensor]]:
        learned = layout.raw.requires_grad
        readings = x if learned else _read(layout, x)  # a fixed sensor reads every scene once: the same numbers, faster
        draw = torch.Generator().manual_seed(seed)
        for _ in range(config.epochs):
            for rows in torch.split(torch.randperm(len(x), generator=draw), config.batch):
                yield layout(readings[rows]) if learned else readings[rows], y[rows]

    def measure(layout: SensorLayout, net: Network) -> dict[str, float]:
        with torch.no_grad():
            found = torch.cat([net(part).argmax(-1) for part in torch.split(_read(layout, x_test), CHUNK)])
        return {"accuracy": (found == y_test).double().mean().item()}

    def loss(_: SensorLayout, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    steps = -(-len(x) // config.batch)
    return Task(network, steps, batches, loss, measure, scenes, mean_scene)


@torch.no_grad()
def _read(layout: SensorLayout, images: Tensor) -> Tensor:
    return torch.cat([layout(part) for part in torch.split(images, CHUNK)])
