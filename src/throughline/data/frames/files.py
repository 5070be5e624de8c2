"""Files of tables as pandas frames; every defect is named with its cure."""

import csv
import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughline.data.download import DataError
from throughline.data.frames.columns import as_numbers, spread_lists
from throughline.data.frames.layout import INDEX, Layout, find_layout, is_value
from throughline.data.frames.numbers import ABSENT
from throughline.errors import ThroughlineError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE_FILES", "notes", "read_frame"]

PARQUET_FILES = (".parquet", ".pq")
TABLE_FILES = (".csv", ".tsv", ".txt", ".data", *PARQUET_FILES)
MISSING = ["", "nan", "NaN", "-nan", "-NaN", "null", "NULL", "<NA>", "#N/A", "#NA", "#N/A N/A"]
MISSING += ["1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"]  # of old Windows programs


def read_frame(file: Path, *, verbatim: Callable[[str], bool] | None = None) -> "pd.DataFrame":
    """Return the columns of a file under their names as texts; a CSV without a header has "0", "1", ….

    Numbers are read as people write them: with a decimal comma, thousands separators, a currency, a percent sign or a
    unit, which are left out; dates become days since 1970-01-01; lists of numbers a column for each entry, "e[0]",
    "e[1]", …. The index that pandas writes, titles and lines with # on top are left out; `notes` says so.

    Args:
        file: of one of `TABLE_FILES`.
        verbatim: of a column's name, whether its cells are names of something: they stay the texts that they are.

    Raises:
        DataError: a folder, another kind of file, one that cannot be read, one without rows, or numbers and dates
            that may mean two things.
        ThroughlineError: a Parquet file, and pyarrow is not installed.
    """
    import pandas as pd

    if file.is_dir():
        raise DataError(f"{file}: a folder, where a table is wanted; give a CSV or Parquet file")
    suffix = file.suffix.lower()
    if suffix not in TABLE_FILES:
        raise DataError(f"{file}: not a table; its name must end in {', '.join(TABLE_FILES)}")
    try:
        frame = (_read_parquet if suffix in PARQUET_FILES else _read_text)(file, verbatim or (lambda name: False))
    except ImportError as error:
        raise ThroughlineError(f'{file}: reading Parquet needs pyarrow; pip install "throughline[parquet]"') from error
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (OSError, ValueError, csv.Error, pd.errors.ParserError) as error:  # those of Arrow are ValueErrors
        cause = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read as a table ({cause}); mend or replace the file") from error
    if not len(frame):
        raise DataError(f"{file}: the table has no rows; give one with data")
    return frame


def notes(frame: "pd.DataFrame") -> tuple[str, ...]:
    """What `read_frame` has left out, and how it has read what is more than a number."""
    return tuple(frame.attrs.get("notes", ()))


def _read_parquet(file: Path, verbatim: Callable[[str], bool]) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.read_parquet(file)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1).reset_index(drop=True)
    texts = {name: (place, frame[name]) for place, name in enumerate(frame.columns) if verbatim(name)}
    frame, spread = spread_lists(file, frame.drop(columns=list(texts)))
    frame, told = as_numbers(file, frame)
    for name, (place, column) in texts.items():
        frame.insert(min(place, frame.shape[1]), name, column.astype(str).where(column.notna()))
    frame.attrs = {"notes": (*spread, *told)}
    return frame


def _read_text(file: Path, verbatim: Callable[[str], bool]) -> "pd.DataFrame":
    with file.open(encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file}: a NUL character in line {line}; save it as UTF-8 text")
    layout = find_layout(file, text)
    frame = _rows(file, text, layout)
    names = layout.names or ()
    if layout.unsure and len(names) == _width(frame, len(names)) and not _agrees(names, frame):
        layout = layout._replace(header=0, names=None)
        frame = _rows(file, text, layout)
    places, told = _columns(file, frame, layout)

    def cells(names: list[str]) -> "pd.DataFrame":
        texts = _rows(file, text, layout, dtype=str)
        return texts.iloc[:, [places[name] for name in names]].set_axis(names, axis=1)

    frame = frame.iloc[:, list(places.values())].set_axis(list(places), axis=1)
    order = list(frame.columns)
    named = [name for name in order if layout.names and verbatim(name)]
    frame, more = as_numbers(file, frame.drop(columns=named) if layout.names else _headless(file, frame), cells)
    if named:
        frame[named] = cells(named)
        frame = frame[order]
    frame.attrs = {"notes": (*layout.notes, *told, *more)}
    return frame


def _rows(file: Path, text: str, layout: Layout, dtype: Any = None) -> "pd.DataFrame":
    import pandas as pd

    stream = io.StringIO(text, newline="")
    above = layout.above + layout.header
    below = "\n" * sum(1 for _ in islice(stream, above)) + stream.read()  # the parser counts lines as the file does
    try:
        return pd.read_csv(
            io.StringIO(below, newline=""),
            sep=layout.separator,
            header=None,
            dtype=dtype,
            keep_default_na=False,
            na_values=MISSING,
            skipinitialspace=True,
            low_memory=False,
        )
    except pd.errors.EmptyDataError:
        raise DataError(f"{file}: a header and no rows; give a table with data") from None


def _columns(file: Path, frame: "pd.DataFrame", layout: Layout) -> tuple[dict[str, int], list[str]]:
    """Names and places of the columns, without an index that pandas or R wrote and what separators at line ends add."""
    width = _width(frame, len(layout.names or ()))
    if layout.names is None:
        return {str(place): place for place in range(width)}, []
    names = list(layout.names)
    first = frame.iloc[:, 0]
    if len(names) == width - 1 and first.tolist() == list(range(1, len(frame) + 1)):  # as R writes it
        names = ["", *names]
    if len(names) != width:
        raise DataError(
            f"{file}: {len(names)} names in the header and {width} cells in a row; name each column once, "
            "quote cells that hold a separator, and remove titles"
        )
    if names[0] not in INDEX:
        return {name: place for place, name in enumerate(names)}, []
    if not first.is_unique:
        raise DataError(f"{file}: the first column has no name, and is no index, for values repeat; name or remove it")
    return {name: place for place, name in enumerate(names) if place}, ["index left out"]


def _width(frame: "pd.DataFrame", least: int) -> int:
    """How many columns there are without empty ones at the end, but for ``least``."""
    width = frame.shape[1]
    while width > max(1, least) and frame.iloc[:, width - 1].isna().all():
        width -= 1
    return width


def _agrees(names: tuple[str, ...], below: "pd.DataFrame") -> bool:
    """Whether names, some of them numbers, stand over rows: one that is none, over numbers or classes without it."""
    texts = [(name, below.iloc[:, i]) for i, name in enumerate(names[: below.shape[1]]) if name and not is_value(name)]
    found = False
    for name, column in texts:
        different = column.dropna().astype(str).unique()
        if name in different:
            return False
        found |= len(below) > 1 and (all(map(is_value, different)) or 2 <= len(different) <= len(below) / 2)
    return found


def _headless(file: Path, frame: "pd.DataFrame") -> "pd.DataFrame":
    for i in range(frame.shape[1]) if len(frame) > 2 else ():
        first = str(frame.iat[0, i])
        if first not in ABSENT and not is_value(first) and all(map(is_value, frame.iloc[1:, i].astype(str).unique())):
            raise DataError(
                f"{file}: {first!r} stands over numbers like a name, but the first row is no header: "
                "its cells must be different and none may be empty; rename the columns"
            )
    return frame
