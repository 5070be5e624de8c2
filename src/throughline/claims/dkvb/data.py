"""What the bottleneck's claim streams: the embeddings of a frozen encoder, and unlabelled ones to find keys with."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.claims.dkvb.config import Config
from throughline.claims.shared.backbones import ImageFiles, features, labelled_files, pretrained
from throughline.claims.shared.classes import class_split, class_table_of
from throughline.claims.shared.datasets import halves, torchvision_set
from throughline.claims.shared.omniglot_encoder import SIDE, characters, embed, omniglot_encoder
from throughline.claims.shared.pictures import labelled_images
from throughline.continual.analytic import RandomExpansion
from throughline.data import DataError, image_files, read_image, read_unlabelled, standardize
from throughline.errors import ThroughlineError

__all__ = ["Split", "check", "load"]

SET_ASIDE = 5  # one training row of so many is for the keys when there is no other unlabelled source
OWN = ("omniglot", "random")  # encoders that are made here


class Split(NamedTuple):
    """Embeddings with class numbers, and unlabelled embeddings of another source."""

    x: Tensor  # (n, m)
    y: Tensor  # (n,) int64
    test_x: Tensor
    test_y: Tensor
    keys: Tensor  # (k, m)


def check(config: Config) -> None:
    """Fetch and read what `load` will need, so that a fault is one line before anything runs."""
    if config.keys and config.data is None:
        raise ThroughlineError(f"keys={config.keys} go with data of your own: give --data with them")
    if config.dataset == "cifar10" and config.data is None and config.encoder in OWN:
        raise ThroughlineError("dataset=cifar10 needs a pretrained encoder: --set encoder=torchvision:resnet50")
    table = config.data is not None and config.data.kind == "table"
    if config.encoder not in OWN:
        if table:
            raise DataError(f"encoder={config.encoder} reads images, and the data is a table; --set encoder=random")
        pretrained(config.encoder)
    if config.encoder == "omniglot" and not table:
        characters()
    if config.dataset != "cifar10" or config.data is not None:
        labels, names = _labels(config)
        if len(names) < config.tasks:
            where = f"{config.data.path}: " if config.data is not None else ""
            raise DataError(
                f"{where}{config.tasks} tasks need as many classes, got {len(names)}; --set tasks={len(names)}"
            )
        _rows(labels, names, config, 0)
    if config.keys and table:
        assert config.data is not None
        read_unlabelled(config.keys, config.data.table())
    elif config.keys:
        image_files(config.keys)


def load(config: Config, seed: int) -> Split:
    """The embeddings of a seed, the same in every arm."""
    if config.encoder not in OWN:
        split = _through_pretrained(config, seed)
    elif config.data is not None and config.data.kind == "table":
        split = _table(config, seed)
    else:
        split = _pictures(config, seed)
    return Split(*(part.to(config.device) for part in split))


def _labels(config: Config) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Class numbers of all rows that the seed splits, and the classes' names."""
    if config.data is None or config.encoder in OWN:
        if config.data is not None and config.data.kind == "table":
            table, names = class_table_of(config.data)
            return table.y, names
        images = labelled_images(config.data, config.dataset, size=SIDE)
        return images.labels.numpy(), images.classes
    _, labels, names = labelled_files(config.data)
    return labels, names


def _rows(
    labels: np.ndarray, classes: Sequence[Any], config: Config, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the stream, of the test part, and those set aside for keys (none where another source gives them)."""
    if config.data is None or config.keys:
        train, test = class_split(labels, classes, seed, config.test, source=config.data, setting="test")
        return train, test, train[:0]
    train, test, aside = class_split(
        labels, classes, seed, config.test, 1 / SET_ASIDE, source=config.data, setting="test"
    )
    return train, test, aside


def _table(config: Config, seed: int) -> Split:
    assert config.data is not None
    table, classes = class_table_of(config.data)
    train, test, aside = _rows(table.y, classes, config, seed)
    other = read_unlabelled(config.keys, table) if config.keys else table.x[aside]
    x, test_x, keys = map(torch.from_numpy, standardize(table.x[train], table.x[test], other))
    layer = _random_layer(x.shape[1], config, seed)
    y, test_y = (torch.from_numpy(table.y[part]) for part in (train, test))
    return Split(layer(x), y, layer(test_x), test_y, layer(keys))


def _pictures(config: Config, seed: int) -> Split:
    """Images through an encoder that is made here."""
    images = labelled_images(config.data, config.dataset, size=SIDE)
    train, test, aside = _rows(images.labels.numpy(), images.classes, config, seed)
    if config.keys:
        other = torch.stack([read_image(file, images.images.shape[-1]) for file in image_files(config.keys)])
    elif config.data is not None:
        other = images.images[aside]
    elif config.encoder == "omniglot":
        other = characters()[0]
    else:
        other = images.images[train].mT  # another data set of the same size, for want of a real one
    parts = images.images[train], images.images[test], other
    if config.encoder == "omniglot":
        network = omniglot_encoder(config.encoder_epochs, seed)
        x, test_x, keys = (embed(network, part) for part in parts)
    else:
        layer = _random_layer(images.images[0].numel(), config, seed)
        x, test_x, keys = (layer(part.flatten(1)) for part in parts)
    return Split(x, images.labels[train], test_x, images.labels[test], keys)


def _random_layer(width: int, config: Config, seed: int) -> Callable[[Tensor], Tensor]:
    layer = RandomExpansion(width, config.width, generator=torch.Generator().manual_seed(seed))
    return lambda x: layer(x.float())


def _through_pretrained(config: Config, seed: int) -> Split:
    encoder, transform = pretrained(config.encoder)
    encoder.to(config.device)
    if config.data is None:
        train, test = halves("CIFAR10", transform=transform)
        other = torchvision_set("CIFAR100", train=True, transform=transform, download=True)
        (x, y), (test_x, test_y), (keys, _) = (features(encoder, part, config.device) for part in (train, test, other))
        return Split(x, y, test_x, test_y, keys)
    files, labels, names = labelled_files(config.data)
    x, _ = features(encoder, ImageFiles(files, transform), config.device)
    rows, test, aside = map(torch.from_numpy, _rows(labels, names, config, seed))
    y = torch.from_numpy(labels)
    if config.keys:
        keys, _ = features(encoder, ImageFiles(image_files(config.keys), transform), config.device)
    else:
        keys = x[aside]
    return Split(x[rows], y[rows], x[test], y[test], keys)
