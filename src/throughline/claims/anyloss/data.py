"""Data of the AnyLoss claim: imbalanced binary tables split by seed, and one digit of MNIST against the others."""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.claims.anyloss.config import Config
from throughline.claims.shared.binary_tables import REGISTERED, imblearn_tables, registered_table
from throughline.claims.shared.classes import class_split
from throughline.claims.shared.datasets import MNIST_MEAN, MNIST_STD, halves, pictures
from throughline.data import DataError, Source, binary, standardize

__all__ = ["GENERATED", "Split", "Tabular", "digit_splits", "splits", "table_splits", "tables"]

GENERATED = "generated"


class Tabular(NamedTuple):
    """A binary table; 1 is the positive class, the rarer one in all but one of the sets."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.int64]
    source: Source | None = None  # the user's own
    classes: tuple[Any, ...] = (0, 1)  # what they are called there


class Split(NamedTuple):
    """Training and test part of one data set, standardised with training moments; labels are floating point."""

    name: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def splits(model: str, config: Config, seed: int) -> Iterator[Split]:
    """The training and test parts of one seed, the same in all arms."""
    if model == "resnet":
        found = digit_splits(config.root, config.digits)
    else:
        data = tables(config.sets, config.collection, config.data)
        found = table_splits(data, config.folds, seed, torch.float64 if model == "slp" else torch.float32)
    for split in found:
        yield Split(split.name, *(part.to(config.device) for part in split[1:]))


def tables(names: tuple[str, ...], collection: str, source: Source | None) -> list[Tabular]:
    """The tables that a configuration asks for; DataError where one cannot be had."""
    if source is not None:
        table = source.table()
        own = binary(table, source.positive)
        rest, positive = (np.unique(table.y[own.y == kind]) for kind in (0, 1))
        return [Tabular(own.name, own.x, own.y, source, (" or ".join(map(str, rest[:3])), positive[0]))]
    if collection == "imblearn":
        return [Tabular(table.name, table.x, table.y) for table in imblearn_tables(names)]
    known = (*REGISTERED, GENERATED)
    if unknown := set(names) - set(known):
        raise DataError(f"sets must be among {', '.join(known)}; got {', '.join(sorted(unknown))}")
    return [_generated() if name == GENERATED else _registered(name) for name in names or known]


def table_splits(data: list[Tabular], folds: int, seed: int, dtype: torch.dtype) -> Iterator[Split]:
    """One 70/30 split of each table, or all of its ``folds``; stratified, and drawn by the seed."""
    for table in data:
        for train, test in _rows(table, folds, seed):
            x, x_test = standardize(table.x[train], table.x[test])
            parts = (x, table.y[train], x_test, table.y[test])
            yield Split(table.name, *(torch.as_tensor(part, dtype=dtype) for part in parts))


def digit_splits(root: str, digits: tuple[int, ...]) -> Iterator[Split]:
    """MNIST as torchvision has it, one digit against the rest; images ``(n, 3, 28, 28)`` by expansion."""
    (x, labels), (x_test, test_labels) = map(pictures, halves("MNIST", root))
    x, x_test = (((part - MNIST_MEAN) / MNIST_STD).expand(-1, 3, -1, -1) for part in (x, x_test))
    for digit in digits:
        yield Split(f"digit {digit}", x, (labels == digit).float(), x_test, (test_labels == digit).float())


def _rows(table: Tabular, folds: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    if not folds:
        train, test = class_split(table.y, table.classes, seed, 0.3, source=table.source)
        return [(train, test)]
    from sklearn.model_selection import StratifiedKFold

    least = int(np.bincount(table.y, minlength=2).min())
    if least < folds:
        raise DataError(
            f"{table.name}: {folds} folds need {folds} rows of each class, the rarer one has {least}; --set folds=0"
        )
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(table.x, table.y))


def _registered(name: str) -> Tabular:
    table = registered_table(name)
    return Tabular(table.name, table.x, table.y)


@cache
def _generated() -> Tabular:
    from sklearn.datasets import make_classification
    from sklearn.decomposition import PCA

    x, y = make_classification(
        10_000,
        n_features=5,
        n_informative=3,
        n_redundant=1,
        n_clusters_per_class=1,
        weights=[0.9, 0.1],
        class_sep=1.2,
        random_state=0,
    )
    return Tabular(GENERATED, PCA(2).fit_transform(x), y.astype(np.int64))
