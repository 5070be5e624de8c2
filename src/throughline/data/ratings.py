"""Ratings of items by users: tables in which ids are names, whatever they look like."""

import os
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError, resolve
from throughline.data.frames import read_frame

__all__ = ["Ratings", "read_ratings"]

COLUMNS = {  # what a column may be called, in small letters and without marks between words
    "user": ("user", "userid"),
    "item": ("item", "itemid", "movie", "movieid"),
    "rating": ("rating",),
}


class Ratings(NamedTuple):
    """A rating in each row: who, what, and how much."""

    name: str
    users: NDArray[np.int64]  # (n,), places in user_ids
    items: NDArray[np.int64]  # (n,), places in item_ids
    ratings: NDArray[np.float64]  # (n,)
    user_ids: tuple[str, ...]  # as in the file, in the order in which they appear
    item_ids: tuple[str, ...]

    def described(self) -> str:
        """What it holds in one line."""
        low, high = self.ratings.min(), self.ratings.max()
        return (
            f"{self.name}: {len(self.ratings):,} ratings from {low:g} to {high:g} by {len(self.user_ids):,} users of "
            f"{len(self.item_ids):,} items"
        )


def read_ratings(path: str | os.PathLike[str]) -> Ratings:
    """Read a table of ratings, or a registry key: the columns user, item and rating, others are left out.

    ``userId``, ``user_id``, ``itemId`` and ``movieId`` are known too, as GroupLens writes them. Ids may be anything and
    are told apart as texts: 7 and 007 are two. The text file or Parquet is read as `throughline.data.read_table` does.

    Raises:
        DataError: no such file, not a table, no such column or two of them, a missing id, a rating that is missing,
            infinite or no number.
        ThroughlineError: a Parquet file, and pyarrow is not installed.

    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False)
    >>> file.write("user,item,rating\\nann,007,4\\nbob,7,2.5\\nann,7,5\\n")
    45
    >>> file.close()
    >>> found = read_ratings(file.name)
    >>> found.users, found.item_ids, found.ratings
    (array([0, 1, 0]), ('007', '7'), array([4. , 2.5, 5. ]))
    """
    import pandas as pd

    file = resolve(path)
    frame = read_frame(file, verbatim=lambda name: _plain(name) in (*COLUMNS["user"], *COLUMNS["item"]))
    names = [str(name) for name in frame.columns]
    columns = {}
    for role, known in COLUMNS.items():
        found = [name for name in names if _plain(name) in known]
        if len(found) != 1:
            many = f"{len(found)} columns for {role} ({', '.join(found)})" if found else f"no column {role}"
            raise DataError(
                f"{file}: {many}; a header that names one user, one item and one rating column is wanted, the columns "
                f"are {', '.join(names[:12])}"
            )
        columns[role] = frame[found[0]]
    if not pd.api.types.is_numeric_dtype(columns["rating"]):
        raise DataError(f"{file}: ratings must be numbers, got texts such as {columns['rating'].iloc[0]!r}")
    for role, column in columns.items():
        missing = column.isna() if role != "rating" else ~np.isfinite(column.astype(float))
        if count := int(missing.sum()):
            raise DataError(f"{file}: no {role} in {count:,} of {len(frame):,} rows; fill it in, or leave the rows out")
    (users, user_ids), (items, item_ids) = (pd.factorize(columns[role].str.strip()) for role in ("user", "item"))
    codes = users.astype(np.int64), items.astype(np.int64)
    ratings = np.array(columns["rating"], np.float64)  # a copy: pandas hands out what cannot be written to
    return Ratings(file.stem, *codes, ratings, tuple(user_ids), tuple(item_ids))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
