"""Columns of texts that are numbers, units, dates or lists, made numbers; those that only may be are named."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.data.download import DataError
from throughline.data.frames.dates import days, read_dates
from throughline.data.frames.layout import unquoted
from throughline.data.frames.numbers import ABSENT, Mark, Written, possible_marks, read_number, value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_numbers", "spread_lists"]

MOST_CODES = 10  # different whole numbers among texts: up to here they may be codes of categories


def as_numbers(
    file: Path, frame: "pd.DataFrame", cells: "Callable[[list[str]], pd.DataFrame] | None" = None
) -> tuple["pd.DataFrame", list[str]]:
    """The frame with all columns that hold numbers or dates numeric, and what is to be said about them.

    Args:
        file: for messages.
        frame: of a file.
        cells: gives columns as they stand in the file; None where numbers were stored as such.
    """
    import pandas as pd

    frame, told = frame.copy(), []
    written: dict[str, dict[str, Written]] = {}
    for name in map(str, frame.columns):
        if pd.api.types.is_numeric_dtype(frame[name]):  # booleans, too
            continue
        texts = frame[name]
        if not pd.api.types.is_datetime64_any_dtype(texts):
            texts = texts[texts.notna()].astype(str).str.strip().map(unquoted)
            _refuse_nul(file, name, texts)
            frame[name] = texts.reindex(frame.index)
            plain = pd.to_numeric(texts, errors="coerce")
            if plain.notna().any() and (plain.notna() | texts.isin(ABSENT)).all():
                frame[name] = plain.reindex(frame.index)
                continue
            texts = texts[~texts.isin(ABSENT)]
            numbers = {cell: number for cell in texts.unique() if (number := read_number(cell)) is not None}
            alike = texts.isin(numbers).all() and len({number.unit for number in numbers.values()}) == 1
            if alike and possible_marks(list(numbers.values())):
                written[name] = numbers
                continue
        dated = _dates(file, name, texts)
        if dated is not None:
            frame[name] = dated.reindex(frame.index)
            told.append(f"{name} in days since 1970-01-01")
        else:
            _mixed(file, name, texts, numbers)
    marks = _marks(file, frame, written, cells)
    for name, numbers in written.items():
        digits = {c: n.sign + (value(n.body, marks[name]) or "") + n.power for c, n in numbers.items()}
        frame[name] = pd.to_numeric(frame[name].map(digits))
        unit = next(iter(numbers.values())).unit
        told += [f"{name} in {unit}"] if unit else []
    commas = [name for name, mark in marks.items() if mark == ","]
    told += [f"decimal commas in {', '.join(commas)}"] if commas else []
    return frame, told


def _marks(
    file: Path,
    frame: "pd.DataFrame",
    written: dict[str, dict[str, Written]],
    cells: "Callable[[list[str]], pd.DataFrame] | None",
) -> dict[str, Mark]:
    """The decimal mark of each column: its own numbers decide, else those of the other columns."""
    possible = {name: possible_marks(list(numbers.values())) for name, numbers in written.items()}
    fractions = [str(n) for n, c in frame.items() if c.dtype.kind == "f" and (c.dropna() % 1 != 0).any()]
    separated = [n for n, numbers in written.items() if any("," in w.body or "." in w.body for w in numbers.values())]
    commas = [name for name in separated if possible[name] == (",",)]
    points = fractions + [name for name in separated if possible[name] == (".",)]
    if commas and fractions and cells is not None:
        texts = cells(fractions)
        for name in fractions:
            numbers = {c: n for c in texts[name].dropna().unique() if (n := read_number(c.strip())) is not None}
            if len(possible_marks(list(numbers.values()))) > 1:
                raise _unclear(file, name, numbers)
    marks: dict[str, Mark] = {}
    for name, numbers in written.items():
        comma = any("," in number.body for number in numbers.values())
        if len(possible[name]) == 1:
            marks[name] = possible[name][0]
        elif next(iter(numbers.values())).money:  # which has no thousandths
            marks[name] = "." if comma else ","
        elif comma and bool(commas) != bool(points):
            marks[name] = "," if commas else "."
        elif not comma and not commas:
            marks[name] = "."
        else:
            raise _unclear(file, name, numbers)
    return marks


def _unclear(file: Path, name: str, numbers: dict[str, Written]) -> DataError:
    cell = next(cell for cell, number in numbers.items() if not number.body.isdecimal())
    low, high = sorted((value(numbers[cell].body, mark) or "" for mark in (".", ",")), key=float)
    return DataError(
        f"{file}: column {name!r}: {cell!r} may mean {high} or {low}; write its numbers with a point before the "
        "decimals and nothing between thousands"
    )


def _dates(file: Path, name: str, texts: "pd.Series[Any]") -> "pd.Series[Any] | None":
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(texts):
        return days(texts)
    different = pd.Series(texts.unique(), dtype=object)
    try:
        found = read_dates(different) if len(different) else None
    except ValueError as error:
        raise DataError(
            f"{file}: column {name!r} holds dates such as {different[0]}, and it is not clear what is meant ({error}); "
            "write them as 2024-01-31"
        ) from None
    return None if found is None else texts.map(dict(zip(different, found, strict=True)))


def _mixed(file: Path, name: str, texts: "pd.Series[Any]", numbers: dict[str, Written]) -> None:
    """Refuse what are numbers but for some cells, unless they are few whole ones: codes such as 1, 2, 3 or more."""
    number = texts.isin(numbers)
    measured = any(n.measured for n in numbers.values())
    if 2 * number.sum() <= len(texts) or not (measured or len(numbers) > MOST_CODES):
        return
    units = dict.fromkeys(n.unit for n in numbers.values())
    if not number.all():
        row = int(np.flatnonzero(~number)[0])
        cause = f"but {texts.iloc[row]!r} in row {int(texts.index[row]) + 1} is none"
    elif len(units) > 1:
        cause = f"but of different units ({', '.join(unit or 'none' for unit in list(units)[:4])})"
    else:
        cause = "but with commas and points in both meanings"
    if len(units) <= 4 and (measured or not number.all()):
        raise DataError(
            f"{file}: column {name!r} holds numbers, {cause}; mend those cells, or write a letter before each number "
            "if they name categories"
        )


def _refuse_nul(file: Path, name: str, texts: "pd.Series[Any]") -> None:
    bad = texts.str.contains("\0", regex=False).to_numpy()
    if bad.any():
        row = int(texts.index[int(bad.argmax())]) + 1
        raise DataError(f"{file}: column {name!r} has a NUL character in row {row}; mend the file")


def spread_lists(file: Path, frame: "pd.DataFrame") -> tuple["pd.DataFrame", list[str]]:
    """The frame with a column for each entry of a column of lists, and what is to be said about it."""
    import pandas as pd

    parts, told = [], []
    for name, column in frame.items():
        first = column.dropna().iloc[:1]
        if column.dtype != object or first.empty or not isinstance(first.iloc[0], (list, tuple, np.ndarray, dict)):
            parts.append(column.to_frame())
            continue
        try:
            block = np.array([np.asarray(cell, dtype=np.float64) for cell in column])
            if block.ndim != 2:
                raise ValueError
        except (TypeError, ValueError):
            raise DataError(
                f"{file}: column {name!r} does not hold as many numbers in each row; give a column for each number"
            ) from None
        parts.append(pd.DataFrame(block, frame.index, [f"{name}[{i}]" for i in range(block.shape[1])]))
        told.append(f"{name} in {block.shape[1]} columns")
    return (pd.concat(parts, axis=1) if told else frame), told
