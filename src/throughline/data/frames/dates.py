"""Columns of dates as days."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["days", "looks_like_date", "read_dates"]

TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?Z| ?[+-]\d{2}:?\d{2})?)?"
ISO = re.compile(rf"\d{{4}}[-/](?:0?[1-9]|1[0-2])(?:[-/]\d{{1,2}}{TIME})?")
NUMERIC = re.compile(rf"(\d{{1,2}})([./-])(\d{{1,2}})\2(\d{{4}}|\d{{2}})({TIME})")
MONTHS = ("%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d. %B %Y", "%b %d, %Y", "%B %d, %Y")


def looks_like_date(cell: str) -> bool:
    """Whether a cell is a date in digits.

    >>> looks_like_date("2024-01-31"), looks_like_date("31.1.2024"), looks_like_date("2024")
    (True, True, False)
    """
    return ISO.fullmatch(cell) is not None or NUMERIC.fullmatch(cell) is not None


def read_dates(cells: "pd.Series[Any]") -> "pd.Series[Any] | None":
    """Different texts as days since 1970-01-01, or None where one of them is no date.

    Raises:
        ValueError: they are dates, and which is meant is not clear.
    """
    import pandas as pd

    if all(map(ISO.fullmatch, cells)):
        texts = cells.str.replace("/", "-").str.replace(r"-(\d)(?!\d)", r"-0\1", regex=True)
        return _parsed(texts, "ISO8601")
    parts = [NUMERIC.fullmatch(cell) for cell in cells]
    if all(parts):
        first, second = (np.array([int(part[i]) for part in parts if part]) for i in (1, 3))
        orders = [first.max() <= 31 and second.max() <= 12, first.max() <= 12 and second.max() <= 31]
        if not any(orders):
            return None
        if any(part and len(part[4]) == 2 for part in parts):
            raise ValueError("years of two digits")
        if all(orders) and any(part and part[2] != "." for part in parts):
            raise ValueError("the day or the month first")
        day, month = (1, 3) if orders[0] else (3, 1)
        made = [f"{part[4]}-{int(part[month]):02}-{int(part[day]):02}{part[5]}" for part in parts if part]
        return _parsed(pd.Series(made, index=cells.index), "ISO8601")
    named = (_parsed(cells, form) for form in MONTHS if re.search("[^\\W\\d_]{3}", cells.iloc[0]))
    return next((found for found in named if found is not None), None)


def days(stamps: "pd.Series[Any]") -> "pd.Series[Any]":
    """Times as days since 1970-01-01, whole numbers where none has a time of the day."""
    import pandas as pd

    number = (stamps - pd.Timestamp(0, tz=stamps.dt.tz)) / pd.Timedelta(days=1)
    return number.astype(np.int64) if (number % 1 == 0).all() else number


def _parsed(cells: "pd.Series[Any]", form: str) -> "pd.Series[Any] | None":
    import pandas as pd

    stamps = pd.to_datetime(cells, format=form, errors="coerce", utc=True)
    return None if stamps.isna().any() else days(stamps)
