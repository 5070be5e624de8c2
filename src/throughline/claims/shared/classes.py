"""The classes of a data set: those of the user's own table, and rows of each for training and for testing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughline.data import DataError, Source, Table, stratified_split

__all__ = ["class_split", "class_table_of"]

MOST = 100  # classes; beyond, a column of numbers was meant


def class_table_of(source: Source) -> tuple[Table, tuple[Any, ...]]:
    """Read a table whose target holds classes: with their numbers in place of labels, and the labels by number.

    Raises:
        DataError: the target holds too many different values to be classes, or every other column is constant.
    """
    table = source.table()
    classes, y = np.unique(table.y, return_inverse=True)
    if len(classes) > MOST:
        raise DataError(
            f"{source.path}: column {table.target!r} holds {len(classes)} different values, and at most {MOST} classes "
            "are wanted; name a column of classes with --target"
        )
    if (table.x == table.x[0]).all():
        raise DataError(f"{source.path}: every column beside {table.target!r} is constant, there is nothing to learn")
    return table._replace(y=y), tuple(classes)


def class_split(
    labels: ArrayLike,
    classes: Sequence[Any],
    seed: int,
    *shares: float,
    source: Source | None = None,
    setting: str | None = None,
) -> tuple[NDArray[np.int64], ...]:
    """Rows to train on, then those of a share of all rows, of a share of what is left, …, by `stratified_split`.

    Args:
        labels: ``(n,)`` places in ``classes``.
        classes: their names.
        seed: of the draw.
        shares: in (0, 1).
        source: the user's data, if it is that.
        setting: the field of the config that holds the first share, if one does.

    Raises:
        DataError: a class has too few rows for the parts, or a part cannot hold one of each; it names the class.
    """
    y = np.asarray(labels)
    where = f"{source.path}: " if source is not None else ""
    unit, cure = ("rows", "name another column with --target")
    if source is None or source.kind == "images":
        unit, cure = ("images", "remove the class")
    rows, parts = np.arange(len(y)), []
    for share in shares:
        counts, size = np.bincount(y[rows], minlength=len(classes)), round(share * len(rows))
        if counts.min() < 2:
            few = int(counts.argmin())
            raise DataError(
                f"{where}class {classes[few]} has {(y == few).sum()} of {len(y)} {unit}, and {1 + len(shares)} parts "
                f"need one each; add {unit} of it, or {cure}"
            )
        if not len(classes) <= size <= len(rows) - len(classes):
            change = f", or change the share with --set {setting}=…" if setting else ""
            raise DataError(
                f"{where}{share:g} of {len(rows)} {unit}, and the rest of them, cannot each hold one of "
                f"{len(classes)} classes; add {unit}{change}"
            )
        kept, part = stratified_split(y[rows], seed, test=share)
        parts.append(rows[part])
        rows = rows[kept]
    return rows, *parts
