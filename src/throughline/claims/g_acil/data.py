"""What the G-ACIL claim streams: pixels or table columns, or the features of a frozen pretrained backbone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughline.claims.g_acil.config import Config
from throughline.claims.shared.backbones import ImageFiles, centre_crop, features, headless, labelled_files
from throughline.claims.shared.class_tables import standardized_parts
from throughline.claims.shared.classes import class_split, class_table_of
from throughline.claims.shared.datasets import halves
from throughline.claims.shared.pictures import labelled_images
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError

__all__ = ["Split", "check", "load"]

MOST_FEATURES = 5_000  # of raw data: one m × m matrix of streaming LDA is then 200 MB


class Split(NamedTuple):
    """Features and class numbers of both parts."""

    x: Tensor  # (n, m)
    y: Tensor  # (n,) int64
    test_x: Tensor
    test_y: Tensor


def check(config: Config) -> None:
    """Fetch and read what `load` will need, so that a fault is one line before anything runs."""
    if not config.backbone:
        if config.dataset == "cifar100" and config.data is None:
            raise ThroughlineError('dataset=cifar100 needs a backbone; for example --set backbone="resnet18"')
        load(config, 0)
        return
    headless(config.backbone)
    _pictures(config)
    if config.data is not None:
        _, labels, classes = labelled_files(config.data)
        class_split(labels, classes, 0, config.test, source=config.data, setting="test")


def load(config: Config, seed: int) -> Split:
    """Return the two parts for a seed: the same in every arm."""
    if config.backbone:
        return _encoded(config, seed)
    if config.data is not None and config.data.kind == "table":
        table, classes = class_table_of(config.data)
        _check_width(table.x.shape[1], config.data)
        rows = class_split(table.y, classes, seed, config.test, source=config.data, setting="test")
        (x, y), (test_x, test_y) = standardized_parts(table, rows)
        return Split(x, y, test_x, test_y)
    images = labelled_images(config.data, config.dataset)
    if config.data is not None:
        _check_width(images.images[0].numel(), config.data)
    return _split(images.images.flatten(1), images.labels, images.classes, config, seed)


def _split(x: Tensor, y: Tensor, classes: Sequence[str], config: Config, seed: int) -> Split:
    train, test = map(torch.from_numpy, class_split(y, classes, seed, config.test, source=config.data, setting="test"))
    return Split(x[train], y[train], x[test], y[test])


def _check_width(width: int, source: Source) -> None:
    if width > MOST_FEATURES:
        cure = "--size 32, or a backbone: --set backbone=resnet18" if source.kind == "images" else "fewer columns"
        raise DataError(f"{source.path}: {width} features a row, and the most is {MOST_FEATURES}; give {cure}")


def _encoded(config: Config, seed: int) -> Split:
    encoder = headless(config.backbone).to(config.device)
    parts = [part for pictures in _pictures(config) for part in features(encoder, pictures, config.device)]
    if config.data is None:
        return Split(*parts)
    return _split(parts[0], parts[1], labelled_files(config.data)[2], config, seed)


def _pictures(config: Config) -> tuple[Any, ...]:
    """Data sets of (image, label): the user's folder, or CIFAR-100's two parts."""
    if config.data is not None and config.data.kind == "table":
        raise DataError(
            f"{config.data.path}: a backbone ({config.backbone}) reads images, and this is a table; --set backbone="
        )
    transform = centre_crop(config.pixels, config.pixels)
    if config.data is not None:
        files, labels, _ = labelled_files(config.data)
        return (ImageFiles(files, transform, labels.tolist()),)
    if config.dataset != "cifar100":
        raise ThroughlineError(f"backbone={config.backbone} goes with dataset=cifar100 or --data, not {config.dataset}")
    return halves("CIFAR100", transform=transform)
