"""The user's data as classes to tell apart: rows of every class in every part, and a table in tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.claims.shared.classes import class_table_of
from throughline.data import DataError, Source, Table, standardize, stratified_split

__all__ = ["class_rows", "class_table", "standardized_parts"]


def class_rows(
    source: Source, labels: NDArray[Any], seed: int, *, test: float, validation: float = 0.0
) -> tuple[NDArray[np.int64], ...]:
    """Rows of training, validation (if any) and test part, by `stratified_split`.

    Args:
        labels: ``(n,)`` classes by name, for the message.

    Raises:
        DataError: a part cannot hold every class; names the data, and the class if it is one alone.
    """
    try:
        return stratified_split(labels, seed, test=test, validation=validation)
    except (DataError, ValueError) as error:
        raise DataError(f"{source.path}: {error}") from None


def class_table(
    source: Source, seed: int, *, test: float, validation: float = 0.0
) -> tuple[list[tuple[Tensor, Tensor]], tuple[Any, ...]]:
    """Training, validation (if any) and test part, each of columns standardised by the first and class numbers.

    Returns:
        Parts ``((n, d) float32, (n,) int64)``, and the names of the classes in the order of their numbers.

    Raises:
        DataError: the target does not hold classes, one has too few rows, or every other column is constant.
    """
    table, classes = class_table_of(source)
    rows = class_rows(source, np.array(classes)[table.y], seed, test=test, validation=validation)
    return [(x.float(), y.long()) for x, y in standardized_parts(table, rows)], classes


def standardized_parts(table: Table, rows: Sequence[NDArray[np.int64]]) -> list[tuple[Tensor, Tensor]]:
    """Columns ``(n, d)``, standardised by the first part, and labels ``(n,)`` of each part of a table."""
    columns = standardize(*(table.x[part] for part in rows))
    return [(torch.from_numpy(x), torch.from_numpy(table.y[part])) for x, part in zip(columns, rows, strict=True)]
