"""Files of planar instances: the published text format of Pointer Networks, and tables of instance, x, y."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from throughline.data.download import DataError, resolve
from throughline.data.frames import read_frame

__all__ = ["PlanarBatch", "batch_of", "read_planar"]

STOP, PAD = -1, -100  # as in `throughline.discrete.pointer`
COLUMNS = ("instance", "x", "y")


class PlanarBatch(NamedTuple):
    """Instances of different sizes side by side, each with an index sequence."""

    points: Tensor  # (B, n, 2), zeros behind the last point
    targets: Tensor  # (B, m) int64 indices, -1 (STOP) at the end and -100 (PAD) behind it; only PAD without a label
    lengths: Tensor  # (B,) int64


def batch_of(points: Tensor, labels: Tensor, lengths: Tensor) -> PlanarBatch:
    """A batch of padded points and labels ``(B, m)``, which are negative behind their end; an empty label is none."""
    count = (labels >= 0).sum(-1, keepdim=True)
    width = int(count.max())
    targets = F.pad(labels[:, :width].masked_fill(labels[:, :width] < 0, PAD), (0, 1), value=PAD)
    end = torch.where(count > 0, STOP, PAD)
    return PlanarBatch(points, targets.scatter(1, count, end), lengths)


def read_planar(path: str | os.PathLike[str]) -> PlanarBatch:
    """Read instances from the published text format, or from a table with the columns instance, x and y.

    A line of the text format is an instance: ``x1 y1 x2 y2 … output i1 i2 …`` with indices from 1, which become
    indices from 0. The word output and what follows may be missing. When a sequence ends by repeating its first index
    (a closed hull or tour), the repetition is left out. A table (a header with these three names among its columns, in
    CSV or Parquet) has a row for each point and no labels.

    Args:
        path: a file.

    Returns:
        Points in float64; a row of ``targets`` without a label is all -100 (PAD).

    Raises:
        DataError: no such file, a line that is not of that form, or an instance whose points all coincide.

    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False)
    >>> file.write("0 0 1 0 0 1 output 1 2 3 1")
    26
    >>> file.close()
    >>> read_planar(file.name).targets
    tensor([[ 0,  1,  2, -1]])
    """
    file = resolve(path)
    if file.is_dir():
        raise DataError(f"{file}: a folder, where a file of planar instances is wanted")
    instances = _table(file) if _is_table(file) else _text(file)
    lengths = torch.tensor([len(points) for points, _ in instances])
    points = pad_sequence([torch.from_numpy(p) for p, _ in instances], batch_first=True)
    labels = [torch.tensor(label, dtype=torch.int64) for _, label in instances]
    return batch_of(points, pad_sequence(labels, batch_first=True, padding_value=PAD), lengths)


def _is_table(file: Path) -> bool:
    if file.suffix.lower() in (".parquet", ".pq"):
        return True
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        first = next((line for line in stream if line.strip()), "")
    return any(mark in first for mark in ",;\t") or first.split()[:1] == ["instance"]


def _table(file: Path) -> list[tuple[np.ndarray, list[int]]]:
    import pandas as pd

    frame = read_frame(file)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        shown = ", ".join(map(str, frame.columns[:12]))
        raise DataError(f"{file}: no column {missing[0]!r}; wanted instance, x and y, its columns are {shown}")
    xy = frame[["x", "y"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(xy).all(1) | frame["instance"].isna().to_numpy()
    if bad.any():
        raise DataError(f"{file}: row {int(bad.argmax()) + 1} has no finite x and y or no instance; mend or remove it")
    codes, names = pd.factorize(frame["instance"])
    instances = [xy[codes == code] for code in range(len(names))]
    for name, points in zip(names, instances, strict=True):
        _check_apart(f"{file}: instance {name}", points)
    return [(points, []) for points in instances]


def _text(file: Path) -> list[tuple[np.ndarray, list[int]]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    instances = [_instance(f"{file}: line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not instances:
        raise DataError(f"{file}: the file is empty; give one with a line x1 y1 x2 y2 … output i1 i2 … an instance")
    return instances


def _instance(where: str, line: str) -> tuple[np.ndarray, list[int]]:
    numbers, output, indices = line.partition("output")
    try:
        points = np.array(numbers.split(), np.float64)
    except ValueError:
        wrong = next(word for word in numbers.split() if not _is_number(word))
        raise DataError(f"{where}: {wrong!r} is no coordinate; wanted x1 y1 x2 y2 … output i1 i2 …") from None
    if not len(points) or len(points) % 2:
        raise DataError(f"{where}: {len(points)} coordinates before output; wanted two for each point")
    if not np.isfinite(points).all():
        raise DataError(f"{where}: a coordinate is not finite; mend or remove the line")
    count = len(points) // 2
    label = []
    for word in indices.split():
        if not word.isdecimal() or not 1 <= int(word) <= count:
            raise DataError(f"{where}: {word!r} is no index of its {count} points; indices count from 1")
        label.append(int(word) - 1)
    if output and not label:
        raise DataError(f"{where}: nothing follows output; give indices, or leave the word out")
    _check_apart(where, points.reshape(count, 2))
    closed = len(label) > 1 and label[0] == label[-1] and len(set(label)) == len(label) - 1
    return points.reshape(-1, 2), label[:-1] if closed else label


def _check_apart(where: str, points: np.ndarray) -> None:
    if len(points) > 1 and (points == points[0]).all():
        raise DataError(f"{where}: its {len(points)} points all coincide; mend or remove it")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
