"""Tables: CSV and Parquet files, registered or the user's own, as numbers and labels."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError, resolve
from throughline.data.frames import read_frame

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "binary", "embedded", "read_table", "read_unlabelled"]

MOST_TEXTS = 1000  # different texts in a column: beyond, it is a name, and one-hot columns would fill the memory
NAMES = 10, 0.8  # different texts and their share of the rows: from here on a column is suspected to hold names
SHOWN = 6  # classes or columns in a message
MOST_CLASSES = 20  # different numbers in a target: beyond, they are described as numbers


class Table(NamedTuple):
    """Rows of numbers with one label each."""

    name: str
    x: NDArray[np.float64]  # (n, d), text columns one-hot
    y: NDArray[Any]  # (n,): integers, floating point, booleans or texts, as in the file
    columns: tuple[str, ...]  # the d names; "sex=M" for a one-hot column
    target: str

    def described(self, positive: str | None = None) -> str:
        """What it holds in one line: rows, numeric and one-hot columns, the target, and which class is positive.

        Args:
            positive: the class that `binary` is told; of two it takes the rarer one without.

        >>> embedded("breast_cancer").described()
        "breast_cancer: 569 rows, 30 numeric columns; target 'target': 0 (212), 1 (357), positive class 0"
        """
        groups = _one_hot(self)
        hot = sum(map(len, groups.values()))
        numeric = len(self.columns) - hot
        parts = [f"{numeric:,} numeric column{'s' * (numeric != 1)}"] if numeric or not hot else []
        if hot:
            each = ", ".join(f"{name} {len(places):,}" for name, places in list(groups.items())[:SHOWN])
            parts.append(f"{hot:,} one-hot columns ({each}{', …' * (len(groups) > SHOWN)})")
        found = f"{self.name}: {len(self.y):,} rows, {' and '.join(parts)}"
        return f"{found}; target {self.target!r}: {_classes(self, positive)}"


def read_table(
    path: str | os.PathLike[str], target: str | int | None = None, *, drop: Sequence[str | int] = ()
) -> Table:
    """Read a text file (separated by comma, semicolon, tab, bar or blanks) or Parquet, or a registry key, with labels.

    The first row of a text file is its header when its cells are non-empty, different from each other and none of them
    is a number, or some are and another stands over numbers or over classes that it is not one of; otherwise columns
    are named "0", "1", …. Numbers are read as people write them, dates in days since 1970-01-01, and lists of numbers
    as one column for each entry. Text columns become one column of zeros and ones for each text, in sorted order; one
    with nearly as many texts as rows is warned about. Single quotes around values are stripped. A question mark or NA
    among numbers is a missing value.

    Args:
        path: a file, or a key of the registry.
        target: name or index (also "6" or "-1") of the label column; a name wins. The last column by default.
        drop: names or indices of columns to leave out.

    Raises:
        DataError: no such file or column, no rows, one class only, missing or infinite values, numbers or dates that
            may mean two things, or not a table.
        ThroughlineError: a Parquet file, and pyarrow is not installed.
    """
    file = resolve(path)
    return table_of(file, read_frame(file), target, drop=drop)


def table_of(
    file: Path, frame: "pd.DataFrame", target: str | int | None = None, *, drop: Sequence[str | int] = ()
) -> Table:
    """The table that a frame of this file holds; `read_table` says how."""
    names = [str(name) for name in frame.columns]
    goal = _column(file, names, -1 if target is None else target)
    left = {_column(file, names, name) for name in drop}
    if goal in left:
        raise DataError(f"{file}: column {names[goal]!r} is both the target and dropped; choose another")
    series = [(name, frame.iloc[:, i]) for i, name in enumerate(names) if i not in left and i != goal]
    if not series:
        raise DataError(f"{file}: no column is left beside the target {names[goal]!r}; give a table with features")
    labels = frame.iloc[:, goal]
    _complete(file, [*series, (names[goal], labels)])
    y = np.asarray(labels.to_numpy())
    y = y if y.dtype.kind in "iufb" else y.astype(str)
    if len(classes := np.unique(y)) < 2:
        raise DataError(
            f"{file}: target column {names[goal]!r} holds one class only ({classes[0]}); name another (--target)"
        )
    for name, column in series:
        _suspect(file, name, column)
    blocks = [_numbers(file, name, column) for name, column in series]
    x = np.concatenate([block for _, block in blocks], axis=1)
    return Table(file.stem, x, y, tuple(name for block_names, _ in blocks for name in block_names), names[goal])


def read_unlabelled(path: str | os.PathLike[str], like: Table) -> NDArray[np.float64]:
    """Read rows without labels, ``(n, d)`` in the columns of ``like``; whatever else the file has is left out.

    A text that ``like`` does not have is none of its categories: zero in each of their columns.

    Raises:
        DataError: no such file, a column of ``like`` is not in it or of another kind, missing or infinite values, or
            not a table.
        ThroughlineError: a Parquet file, and pyarrow is not installed.
    """
    file = resolve(path)
    frame = read_frame(file)
    names = [str(name) for name in frame.columns]
    wanted = dict.fromkeys(name if name in names else name.partition("=")[0] for name in like.columns)
    series = [(name, frame.iloc[:, _column(file, names, name)]) for name in wanted]
    _complete(file, series)
    found: dict[str, NDArray[np.float64]] = {}
    for name, column in series:
        block_names, block = _numbers(file, name, column)
        if (block_names == [name]) != (name in like.columns):
            wanted_kind = "numbers" if name in like.columns else "texts"
            raise DataError(f"{file}: column {name!r} must hold {wanted_kind}, as in {like.name}; mend the file")
        found |= dict(zip(block_names, block.T, strict=True))
    return np.stack([found.get(name, np.zeros(len(frame))) for name in like.columns], axis=1)


def binary(table: Table, positive: str | float | bool | None = None) -> Table:
    """Return the table with labels 0 and 1, as int64.

    Args:
        table: any table of classes.
        positive: the label that becomes 1, all others 0; by default the rarer of exactly two (the later one in a tie).

    Raises:
        DataError: other than two classes and no ``positive``, or ``positive`` is not a label.

    >>> binary(embedded("breast_cancer")).y.mean().round(3)
    np.float64(0.373)
    """
    classes, counts = np.unique(table.y, return_counts=True)
    shown = ", ".join(map(str, classes[:SHOWN])) + (", …" if len(classes) > SHOWN else "")
    if positive is None:
        if len(classes) != 2:
            raise DataError(
                f"{table.name}: target {table.target!r} has {len(classes)} classes ({shown}), two are wanted; "
                "name a column with two (--target), or the one to be found (--positive)"
            )
        chosen = _rarer(counts)
    else:
        found = [i for i, label in enumerate(classes) if _same(label, positive)]
        if not found:
            raise DataError(f"{table.name}: positive class {positive!r} is not a label of {table.target!r} ({shown})")
        chosen = found[0]
    return table._replace(y=(table.y == classes[chosen]).astype(np.int64))


def embedded(name: Literal["breast_cancer", "diabetes", "iris", "wine"]) -> Table:
    """Return a table that ships inside scikit-learn; diabetes has a number to predict, the others have classes.

    >>> embedded("wine").x.shape
    (178, 13)
    """
    from sklearn import datasets

    known = ("breast_cancer", "diabetes", "iris", "wine")
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}")
    bunch = getattr(datasets, f"load_{name}")()
    return Table(name, np.asarray(bunch.data, np.float64), bunch.target, tuple(map(str, bunch.feature_names)), "target")


def _column(file: Path, names: list[str], wanted: str | int) -> int:
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    try:
        return range(len(names))[int(wanted)]
    except (ValueError, IndexError):
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        raise DataError(f"{file}: no column {wanted!r}; its {len(names)} columns are {shown}") from None


def _complete(file: Path, columns: list[tuple[str, "pd.Series[Any]"]]) -> None:
    import pandas as pd

    gaps = {}
    for name, column in columns:
        bad = column.isna()
        if pd.api.types.is_float_dtype(column):
            bad |= np.isinf(column)
        if count := int(bad.sum()):
            gaps[name] = f"column {name!r} in {count:,} of {len(column):,} rows"
    if gaps:
        shown = ", ".join(list(gaps.values())[:3]) + (f" and {len(gaps) - 3} more columns" if len(gaps) > 3 else "")
        raise DataError(
            f"{file}: missing or infinite values: {shown}; fill them in, or leave out those rows or columns"
        )


def _numbers(file: Path, name: str, column: "pd.Series[Any]") -> tuple[list[str], NDArray[np.float64]]:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return [name], column.to_numpy(np.float64)[:, None]
    texts = column.astype(str)
    if (count := texts.nunique()) > MOST_TEXTS:
        raise DataError(
            f"{file}: column {name!r} holds {count:,} different texts, too many for categories "
            f"(at most {MOST_TEXTS:,}); leave it out of the file, or code it as numbers"
        )
    codes = pd.get_dummies(texts, prefix=name, prefix_sep="=", dtype=float)
    return [str(code) for code in codes.columns], codes.to_numpy(np.float64)


def _suspect(file: Path, name: str, column: "pd.Series[Any]") -> None:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return
    count, (least, share) = column.nunique(), NAMES
    if least <= count <= MOST_TEXTS and count >= share * len(column):
        warnings.warn(
            f"{file}: column {name!r} holds {count:,} different texts in {len(column):,} rows, as names do, and a "
            "column of zeros and ones is made of each; leave it out of the file if it tells nothing",
            stacklevel=4,
        )


def _one_hot(table: Table) -> dict[str, list[int]]:
    """Places of the columns that stand for the texts of one column, by its name: one of them is 1 in each row."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(table.columns):
        if "=" in name:
            groups.setdefault(name.partition("=")[0], []).append(place)
    blocks = {name: table.x[:, places] for name, places in groups.items()}
    zero_or_one = {name for name, x in blocks.items() if ((x == 0) | (x == 1)).all() and (x.sum(1) == 1).all()}
    return {name: places for name, places in groups.items() if name in zero_or_one}


def _classes(table: Table, positive: str | None) -> str:
    classes, counts = np.unique(table.y, return_counts=True)
    if table.y.dtype.kind in "iuf" and len(classes) > MOST_CLASSES:
        return f"{len(classes):,} different numbers from {classes[0]} to {classes[-1]}"
    each = [f"{label} ({count:,})" for label, count in zip(classes[:SHOWN], counts, strict=False)]
    shown = ", ".join(each) + (f" and {len(classes) - SHOWN:,} more classes" if len(classes) > SHOWN else "")
    if positive is None and len(classes) == 2:
        positive = classes[_rarer(counts)]
    return shown if positive is None else f"{shown}, positive class {positive}"


def _rarer(counts: NDArray[np.intp]) -> int:
    """The rarer of two classes, the later one in a tie."""
    return int(counts[1] <= counts[0])


def _same(label: object, wanted: object) -> bool:
    if str(label) == str(wanted):
        return True
    try:
        return float(str(label)) == float(str(wanted))  # 1, 1.0 and "1" are one label
    except ValueError:
        return False
