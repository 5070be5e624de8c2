"""What the stn claim trains on by default or for its user: images or a table under a perceptron."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.class_tables import class_rows, class_table
from throughline.claims.shared.distortion import moved, noisy, uniform
from throughline.claims.shared.pictures import labelled_images
from throughline.claims.stn.config import Config
from throughline.claims.stn.tasks import Task, Values, at, scored, shuffled
from throughline.data import DataError, Images, stratified_split
from throughline.errors import ThroughlineError

__all__ = ["load"]

MOST_FEATURES = 64 * 64 * 3  # of an image
DROPOUT = 0.9  # the end of its range
ROTATION, SHIFT = 60.0, 2 / 7  # degrees; of the side, 8 of 28 pixels
OWN = {"test": 0.3, "validation": 0.2}  # shares of the user's rows

Parts = dict[str, tuple[Tensor, Tensor]]


def load(config: Config, seed: int) -> Task:
    """The task of a seed: the user's table or images, digits or MNIST."""
    if config.data is not None and config.data.kind == "table":
        return _table(config, seed)
    return _pictures(config, seed)


def _pictures(config: Config, seed: int) -> Task:
    images = labelled_images(config.data, config.dataset)
    if config.data is not None and images.images[0].numel() > MOST_FEATURES:
        raise DataError(
            f"{config.data.path}: {images.images[0].numel()} values an image, and the most is {MOST_FEATURES}; "
            "give --size 32"
        )
    side = images.images.shape[-1]
    ranges = {"shift": (0.0, side * SHIFT), "rotation": (0.0, ROTATION), "noise": (0.0, 1.0)}
    if config.data is not None:
        ranges["brightness"] = (0.0, 1.0)
    draw = torch.Generator().manual_seed(seed + 1)

    def augment(x: Tensor, values: Values) -> Tensor:
        made = moved(x, values["shift"], values["rotation"], draw)
        if "brightness" in values:
            made = made * (1 + values["brightness"] * uniform(len(x), draw, x)).view(-1, 1, 1, 1)
        return noisy(made, values["noise"], draw)

    train, valid, test = map(torch.from_numpy, _rows(config, images, seed))
    parts = {
        part: (images.images[rows], images.labels[rows])
        for part, rows in {"train": train, "valid": valid, "test": test}.items()
    }
    return _classifier(config, parts, len(images.classes), ranges, augment)


def _rows(config: Config, images: Images, seed: int) -> tuple[NDArray[np.int64], ...]:
    if config.data is not None:
        return class_rows(config.data, np.array(images.classes)[images.labels], seed, **OWN)
    try:
        train, *rest = stratified_split(images.labels, seed, test=config.test, validation=config.valid)
    except ValueError as error:
        raise ThroughlineError(f"{error}; dataset={config.dataset} has no more: --set test=…, --set valid=…") from None
    return train[: config.train], *rest


def _table(config: Config, seed: int) -> Task:
    assert config.data is not None
    parts, classes = class_table(config.data, seed, **OWN)
    draw = torch.Generator().manual_seed(seed + 1)
    return _classifier(
        config,
        dict(zip(("train", "valid", "test"), parts, strict=True)),
        len(classes),
        {"noise": (0.0, 1.0)},
        lambda x, values: noisy(x, values["noise"], draw),
    )


def _classifier(
    config: Config,
    parts: Parts,
    classes: int,
    ranges: dict[str, tuple[float, float]],
    augment: Callable[[Tensor, Values], Tensor],
) -> Task:
    """A multilayer perceptron of two hidden layers with dropout before each of its three."""
    parts = {part: (x.to(config.device), y.to(config.device)) for part, (x, y) in parts.items()}
    rates = ("input dropout", "first dropout", "second dropout")
    limits = dict.fromkeys(rates, (0.0, DROPOUT)) | ranges
    inputs, hidden = parts["train"][0][0].numel(), config.hidden

    def network() -> nn.Module:
        return nn.Sequential(
            *(nn.Flatten(), nn.Dropout(), nn.Linear(inputs, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, classes)),
        ).to(config.device)

    return Task(
        network=network,
        hyperparameters=tuple(at(config.start, *limit, name, config.scale) for name, limit in limits.items()),
        dropout=dict(zip(("1", "4", "7"), rates, strict=True)),
        # beyond half of the range of an augmentation few networks learn at all: it would waste the search's trials
        searched={name: (0.0, high if name in rates else high / 2) for name, (_, high) in limits.items()},
        batches=lambda part, draw: shuffled(*parts[part], config.batch, draw),
        score=lambda net, part: scored(net, *parts[part]),
        loss=F.cross_entropy,
        augment=augment,
    )
