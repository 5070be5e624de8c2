"""Tables of two classes, most of them imbalanced: some of the registry, and the collection of imbalanced-learn."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughline.data import DataError, Table, binary, read_table
from throughline.lab import require

__all__ = ["REGISTERED", "imblearn_tables", "registered_table"]

Positive = str | int | Callable[[NDArray[Any]], NDArray[Any]]

REGISTERED: dict[str, Positive] = {  # file in the registry: the positive class
    "oil-spill": 1,
    "phoneme": 1,
    "haberman": 2,
    "pima-indians-diabetes": 1,
    "german": 2,
    "ecoli": "imU",
    "glass": 7,
    "winequality-red": lambda quality: quality <= 4,
    "abalone": lambda rings: rings >= 15,
    "ionosphere": "b",
}
IDS = {"oil-spill": (0,)}  # columns that only number the rows


def registered_table(name: str) -> Table:
    """One of `REGISTERED`, with 1 for its positive class and 0 for all others."""
    table = read_table(f"tabular/{name}.csv", drop=IDS.get(name, ()))
    positive = REGISTERED[name]
    return binary(table._replace(y=positive(table.y)), True) if callable(positive) else binary(table, positive)


def imblearn_tables(names: Sequence[str] = ()) -> list[Table]:
    """The tables of imblearn by name, all 27 by default, with 1 for the rare class and 0 for the other.

    Raises:
        DataError: one cannot be downloaded, or there is none of that name.
    """
    datasets = require("imblearn.datasets", extra="paper")
    try:
        found = datasets.fetch_datasets(filter_data=tuple(names) or None)
    except (OSError, ValueError) as error:  # no network, or no such set
        raise DataError(f"imblearn.datasets.fetch_datasets: {error}") from None
    return [_table(name, bunch) for name, bunch in found.items()]


def _table(name: str, bunch: Any) -> Table:
    x = np.asarray(bunch.data, np.float64)
    y = (np.asarray(bunch.target) == 1).astype(np.int64)
    return Table(name, x, y, tuple(map(str, range(x.shape[1]))), "target")
