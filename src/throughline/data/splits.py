"""Splits by seed and scaling without leakage: whatever is learned from data is learned from the training part."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["standardize", "stratified_split"]


def stratified_split(
    labels: "NDArray[Any] | Tensor",
    seed: int,
    *,
    test: float | int = 0.3,
    validation: float | int = 0.0,
    classes: Sequence[str] = (),
) -> tuple[NDArray[np.int64], ...]:
    """Split rows at random: every class has the same share of every part, rounded, and at least one row in each.

    Where no class is short of rows, the test rows of a seed are the same with and without a validation part.

    Args:
        labels: ``(n,)`` classes.
        seed: of the draw, not negative.
        test: share of all rows in (0, 1), or their number.
        validation: the same for a validation part; 0 for none.
        classes: names of the classes 0, 1, …, for messages; labels stand for themselves by default.

    Returns:
        Disjoint indices in random order that cover all rows: ``(train, test)``, or ``(train, validation, test)``.

    Raises:
        DataError: one class only, a class with fewer rows than there are parts, or a part that is too small or too
            large to hold each class.
        ValueError: ``labels`` is not one-dimensional or holds NaN, or a part is no share or number of rows.

    >>> train, test = stratified_split(np.array([0] * 8 + [1] * 2), seed=0, test=0.5)
    >>> np.sort(train // 8), np.sort(test // 8)
    (array([0, 0, 0, 0, 1]), array([0, 0, 0, 0, 1]))
    """
    y = np.asarray(labels)
    if y.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, got shape {y.shape}")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise ValueError(f"labels must be classes, got NaN in row {int(np.isnan(y).argmax())}")
    every, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(every) < 2:
        raise DataError(f"labels hold {len(every)} class, and a split by class needs two or more; check the target")
    parts = 3 if validation else 2
    if counts.min() < parts:
        label = every[counts.argmin()]
        name = classes[int(label)] if len(classes) else label
        raise DataError(
            f"class {name} has {counts.min()} of {len(y)} rows, and {parts} parts need one each; add rows, or merge or "
            "remove the class; in a table, another column may be meant (--target)"
        )
    sizes = {"test": _rows("test", test, len(y))}
    if validation:
        sizes["validation"] = _rows("validation", validation, len(y))
    order = np.random.default_rng(seed).permutation(len(y))
    part = np.zeros(len(y), np.int64)  # of each row: 0 is the training part
    free = counts - 1 - len(sizes)  # rows that a class can give beyond one for each part
    for number, (name, size) in enumerate(sizes.items(), start=1):
        if not len(every) <= size <= len(every) + free.sum():
            raise DataError(
                f"{name} must leave one row of each of {len(every)} classes in every part, got {size} rows of "
                f"{len(y)}; add rows, or merge or remove classes"
            )
        quota = _apportion(counts * size / len(y), size, 1 + free)
        for code, count in enumerate(quota):
            part[order[(codes[order] == code) & (part[order] == 0)][:count]] = number
        free = free - quota + 1
    train, *held_out = (order[part[order] == number] for number in range(1 + len(sizes)))
    return train, *reversed(held_out)


def standardize(train: NDArray[Any], *others: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Shift and scale columns to mean 0 and variance 1 in the training part, and all other parts alike.

    A column that is constant in the training part is 0 in every part.

    Args:
        train: ``(n, d)`` with n >= 1.
        others: ``(m, d)`` each.

    Returns:
        New arrays, floating point, in the order given.

    >>> standardize(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[4.0, 6.0]]))[1]
    array([[2., 0.]])
    """
    first = np.asarray(train)
    if first.ndim != 2 or not len(first):
        raise ValueError(f"train must have shape (n, d) with n >= 1, got {first.shape}")
    for part in others:
        if np.ndim(part) != 2 or np.shape(part)[1] != first.shape[1]:
            raise ValueError(f"every part must have shape (m, {first.shape[1]}) like train, got {np.shape(part)}")
    mean, spread = first.mean(0), first.std(0)
    rounding = 10 * np.finfo(spread.dtype).eps * np.abs(first).max(0)  # a constant such as 0.1 need not have spread 0
    scale = np.where(spread > rounding, spread, np.inf)
    return tuple((np.asarray(part) - mean) / scale for part in (first, *others))


def _rows(name: str, share: float | int, total: int) -> int:
    count = int(share) if isinstance(share, int | np.integer) else max(1, round(share * total)) if 0 < share < 1 else 0
    if not 0 < count < total:
        raise ValueError(f"{name} must be a share in (0, 1) or a number of rows below {total}, got {share}")
    return count


def _apportion(shares: NDArray[np.float64], size: int, most: NDArray[np.int64]) -> NDArray[np.int64]:
    quota = np.clip(np.floor(shares).astype(np.int64), 1, most)  # then by largest remainders, within the bounds
    while quota.sum() < size:
        quota[np.where(quota < most, shares - quota, -np.inf).argmax()] += 1
    while quota.sum() > size:
        quota[np.where(quota > 1, shares - quota, np.inf).argmin()] -= 1
    return quota
