"""The user's table as a classification task."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data import DataError, Source, standardize, stratified_split

__all__ = ["class_table"]

MOST = 100  # classes; beyond, a column of numbers was meant


def class_table(
    source: Source, seed: int, *, test: float, validation: float = 0.0
) -> tuple[list[tuple[Tensor, Tensor]], NDArray[Any]]:
    """Training, validation (if any) and test part, each of columns standardised by the first and class numbers.

    Returns:
        Parts ``((n, d) float32, (n,) int64)``, and the names of the classes in the order of their numbers.

    Raises:
        DataError: the target does not hold classes.
    """
    table = source.table()
    names, labels = np.unique(table.y, return_inverse=True)
    if len(names) > MOST:
        raise DataError(
            f"{table.name}: target {table.target!r} has {len(names)} different values, and at most {MOST} classes are "
            "wanted; name a column of classes with --target"
        )
    rows = stratified_split(labels, seed, test=test, validation=validation)
    columns = standardize(*(table.x[part] for part in rows))
    return [
        (torch.from_numpy(x).float(), torch.from_numpy(labels[part]).long())
        for x, part in zip(columns, rows, strict=True)
    ], names
