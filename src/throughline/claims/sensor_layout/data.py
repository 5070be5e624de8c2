"""What the sensor-layout claim trains on: images in memory, and the task that they set."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.sensor_layout.config import Config
from throughline.claims.sensor_layout.models import convolutional
from throughline.claims.shared.classes import class_split
from throughline.claims.shared.datasets import MNIST_MEAN, MNIST_STD, halves, pictures
from throughline.claims.shared.evaluation import outputs
from throughline.claims.shared.square_images import square_images
from throughline.data import Images, digits, mnist
from throughline.errors import ThroughlineError
from throughline.sensing.layout import SensorLayout

__all__ = ["SHOWN", "Task", "check", "load", "sensor_size"]

SENSORS = {"digits": (3, 3), "mnist": (4, 4), "mnist-full": (4, 4), "celeba": (8, 8), "cityscapes": (256, 512)}
FOLDER_SENSOR = (8, 8)
CHUNK = 500  # images at once, where no gradient is kept
SHOWN = 10


class Task(NamedTuple):
    """A data set split for one seed, and what is trained and measured on it."""

    network: Callable[[], nn.Module]
    steps: int  # of an epoch
    batches: Callable[[SensorLayout], Iterator[tuple[Tensor, Tensor]]]  # all epochs: what the sensor reads, and targets
    loss: Callable[[SensorLayout, Tensor, Tensor], Tensor]
    measure: Callable[[SensorLayout, nn.Module], dict[str, float]]
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
        images = square_images(config.data.path, config.scene)
    elif config.dataset == "mnist-full":
        parts = map(pictures, halves("MNIST", config.root))
        return tuple(Images(x, y.long(), tuple("0123456789")) for x, y in parts)  # type: ignore[return-value]
    else:
        images = {"digits": digits, "mnist": mnist}[config.dataset]()
    train, test = class_split(
        images.labels, images.classes, seed, config.held_out, source=config.data, setting="held_out"
    )
    return tuple(Images(images.images[r], images.labels[r], images.classes) for r in (train, test))  # type: ignore[return-value]


def load(config: Config, seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    train, test = _in_memory(config, seed)
    if config.data is None and config.dataset.startswith("mnist"):
        mean, deviation = MNIST_MEAN, MNIST_STD  # as the authors have it
    else:
        mean, deviation = train.images.mean().item(), train.images.std().item()
    scenes, mean_scene = test.images[:SHOWN], train.images.mean(0)
    x, x_test = (((part.images - mean) / deviation).to(config.device) for part in (train, test))
    y, y_test = (part.labels.to(config.device) for part in (train, test))
    size, channels, classes = sensor_size(config), x.shape[1], len(train.classes)

    def network() -> nn.Module:
        pixels = size[0] * size[1] * channels
        linear = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
        return (linear if config.linear else convolutional(channels, size, classes)).to(config.device)

    def batches(layout: SensorLayout) -> Iterator[tuple[Tensor, Tensor]]:
        learned = layout.raw.requires_grad
        # a fixed sensor reads every scene once: the same numbers, faster
        readings = x if learned else outputs(layout, x, chunk=CHUNK)
        draw = torch.Generator().manual_seed(seed)
        for _ in range(config.epochs):
            for rows in torch.split(torch.randperm(len(x), generator=draw), config.batch):
                yield layout(readings[rows]) if learned else readings[rows], y[rows]

    def measure(layout: SensorLayout, net: nn.Module) -> dict[str, float]:
        found = outputs(net, outputs(layout, x_test, chunk=CHUNK), chunk=CHUNK).argmax(-1)
        return {"accuracy": (found == y_test).double().mean().item()}

    def loss(_: SensorLayout, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    steps = -(-len(x) // config.batch)
    return Task(network, steps, batches, loss, measure, scenes, mean_scene)
