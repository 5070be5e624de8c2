"""Files of tables as pandas frames: separator and header found, and every defect named with its cure."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from throughline.data.download import DataError
from throughline.errors import ThroughlineError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TABLE_FILES", "read_frame", "unquoted"]

PARQUET_FILES = (".parquet", ".pq")
TABLE_FILES = (".csv", ".tsv", ".txt", ".data", *PARQUET_FILES)


def read_frame(file: Path) -> "pd.DataFrame":
    """Return the columns of a file under their names as texts; a CSV without a header has "0", "1", ….

    Raises:
        DataError: a folder, another kind of file, one that cannot be read, or one without rows.
        ThroughlineError: a Parquet file, and pyarrow is not installed.
    """
    import pandas as pd

    if file.is_dir():
        raise DataError(f"{file}: a folder, where a table is wanted; give a CSV or Parquet file")
    suffix = file.suffix.lower()
    if suffix not in TABLE_FILES:
        raise DataError(f"{file}: not a table; its name must end in {', '.join(TABLE_FILES)}")
    try:
        frame = pd.read_parquet(file) if suffix in PARQUET_FILES else _read_text(file)
    except ImportError as error:
        raise ThroughlineError(f'{file}: reading Parquet needs pyarrow; pip install "throughline[parquet]"') from error
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:  # the parser errors of pandas and Arrow are ValueErrors
        cause = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read as a table ({cause}); mend or replace the file") from error
    if not len(frame):
        raise DataError(f"{file}: the table has no rows; give one with data")
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _read_text(file: Path) -> "pd.DataFrame":
    import pandas as pd

    with file.open(encoding="utf-8-sig", newline="") as stream:
        line = next((line for line in stream if line.strip()), "")
        separator = max(",;\t", key=line.count)
        stream.seek(0)
        rows = enumerate(csv.reader(stream, delimiter=separator, skipinitialspace=True), start=1)
        number, first = next(((i, [*map(str.strip, row)]) for i, row in rows if any(map(str.strip, row))), (0, []))
        if not first:
            raise DataError(f"{file}: the file is empty; give one with data")
        header = all(first) and len(set(first)) == len(first) and not any(map(_is_number, first))
        stream.seek(0)
        skip = number if header else 0
        try:
            frame = pd.read_csv(
                stream, sep=separator, header=None, skiprows=skip, skipinitialspace=True, low_memory=False
            )
        except pd.errors.EmptyDataError:
            raise DataError(f"{file}: a header and no rows; give a table with data") from None
    if header:
        if frame.shape[1] != len(first):
            raise DataError(
                f"{file}: {len(first)} names in the header and {frame.shape[1]} cells in a row; name each column once"
            )
        frame.columns = pd.Index([unquoted(name) for name in first])
    return frame if header else _headless(file, frame)


def _headless(file: Path, frame: "pd.DataFrame") -> "pd.DataFrame":
    for i in range(frame.shape[1]) if len(frame) > 2 else ():
        first = str(frame.iat[0, i])
        if first != "?" and not _is_number(first) and all(map(_is_number, frame.iloc[1:, i].astype(str))):
            raise DataError(
                f"{file}: {first!r} stands over numbers like a name, but the first row is no header: "
                "its cells must be different and none may be empty or a number; rename the columns"
            )
    return frame


def _is_number(cell: str) -> bool:
    try:
        float(unquoted(cell))
    except ValueError:
        return False
    return True


def unquoted(cell: str) -> str:
    """Return a cell without single quotes around it."""
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == "'" else cell
