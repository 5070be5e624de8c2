"""Signals of one length with a class each: MNIST-1D, and the user's own arrays."""

import functools
import os
import random
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data.download import DataError

__all__ = ["Signals", "mnist1d", "read_signals"]


class Signals(NamedTuple):
    """Signals of one length with a class each."""

    signals: Tensor  # (n, channels, length) float32
    labels: Tensor  # (n,) int64
    classes: tuple[str, ...]


def mnist1d() -> tuple[Signals, Signals]:
    """The 4,000 training and 1,000 test signals of MNIST-1D (arXiv 2011.14439), 1 × 40, as its package draws them.

    Nothing is downloaded: the package ``mnist1d`` makes them from ten templates, with its own seed, in a second. The
    global generators of NumPy and Python, which it draws from, are left as they were.

    Raises:
        ImportError: the package is not installed.

    >>> train, test = mnist1d()
    >>> train.signals.shape, len(test.labels)
    (torch.Size([4000, 1, 40]), 1000)
    """
    made = _made()
    classes = tuple("0123456789")
    train, test = (
        Signals(torch.tensor(x, dtype=torch.float32)[:, None], torch.tensor(y, dtype=torch.int64), classes)
        for x, y in ((made["x"], made["y"]), (made["x_test"], made["y_test"]))
    )
    return train, test


def read_signals(path: str | os.PathLike[str]) -> Signals:
    """Read a ``.npz`` with the arrays ``x``, ``(n, channels, length)`` or ``(n, length)``, and ``y``, ``(n,)``.

    Args:
        path: the file, as ``numpy.savez("mine.npz", x=x, y=y)`` writes it. The labels ``y`` may be whole numbers, truth
            values or texts; classes are in their order.

    Raises:
        DataError: the file is missing or unreadable, an array is missing or has another shape, values that are not
            finite, or fewer than two classes; names the file.
    """
    file = Path(path).expanduser()
    try:
        with np.load(file, allow_pickle=False) as content:
            found = {name: np.asarray(content[name]) for name in content.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:  # a TypeError of a .npy
        raise DataError(f"{file}: not a readable .npz of plain arrays ({error})") from None
    for name in ("x", "y"):
        if name not in found:
            raise DataError(f"{file}: no array {name!r}, got {', '.join(sorted(found)) or 'none'}; x and y are wanted")
    x, y = found["x"], found["y"]
    if x.ndim not in (2, 3) or x.dtype.kind not in "fiub" or not x.size:
        raise DataError(f"{file}: x must be numbers (n, channels, length) or (n, length), got {x.dtype} {x.shape}")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iubUS":
        raise DataError(
            f"{file}: y must be {len(x)} whole numbers or texts, one for each signal, got {y.dtype} {y.shape}"
        )
    wrong = ~np.isfinite(x).reshape(len(x), -1).all(1)
    if wrong.any():
        raise DataError(
            f"{file}: x holds values that are not finite in {int(wrong.sum()):,} of {len(x):,} signals, the first is "
            f"number {int(wrong.argmax())}"
        )
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"{file}: y holds one class only ({_text(classes[0])}); two or more are wanted")
    values = torch.from_numpy(x.astype(np.float32).reshape(len(x), -1, x.shape[-1]))
    return Signals(values, torch.from_numpy(labels.astype(np.int64)), tuple(map(_text, classes)))


def _text(label: Any) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)


@functools.cache
def _made() -> dict[str, NDArray[Any]]:
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError:
        raise ImportError('mnist1d is not installed; pip install "throughline[signals]"') from None
    states = np.random.get_state(), random.getstate()  # noqa: NPY002 - the package seeds both
    try:
        made: dict[str, NDArray[Any]] = make_dataset(get_dataset_args())
    finally:
        np.random.set_state(states[0])  # noqa: NPY002
        random.setstate(states[1])
    return made
