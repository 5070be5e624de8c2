"""How a text file lays out its table: separator, what stands above the rows, and the names of the columns."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from throughline.data.download import DataError
from throughline.data.frames.dates import looks_like_date
from throughline.data.frames.numbers import read_number

__all__ = ["BLANKS", "Layout", "find_layout", "is_value", "unquoted"]

BLANKS = r"\s+"
SAMPLE = 200  # rows that tell the separator and the number of columns
QUOTED = re.compile(r'(?:(?<=[,;|\s])|^)"(?:[^"]|"")*"', re.MULTILINE)
DECIMALS = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
INDEX = ("", "Unnamed: 0")  # over the index of a pandas frame


class Layout(NamedTuple):
    """Where the rows of a text begin, and how they are divided."""

    separator: str  # one character, or `BLANKS`
    above: int  # lines above header and rows
    header: int  # lines that it takes; 0 where there is none among the rows
    names: tuple[str, ...] | None  # None without a header; an empty one over an index
    unsure: bool  # numbers are among the names: a header where what stands below agrees
    notes: tuple[str, ...]  # what is to be said about it


def find_layout(file: Path, text: str) -> Layout:
    """The layout of a text that is not empty.

    Raises:
        DataError: it has nothing but blanks and separators.
    """
    lines = list(islice(io.StringIO(text, newline=""), 5 * SAMPLE))
    start, separator, remarks = _preamble(lines)
    separator = separator or _separator("".join(lines[start:]))
    rows = [(n, row) for n, row in islice(_rows(lines[start:], separator), SAMPLE) if any(row)]
    if not rows:
        raise DataError(f"{file}: the file is empty; give one with data")
    width = Counter(len(row) for _, row in rows[1:] or rows).most_common(1)[0][0]
    notes = []
    while len(rows) > 1 and width > 1 and sum(map(bool, rows[0][1])) == 1 and _title(rows[0][1], rows[1][1]):
        notes.append(f"title left out: {' '.join(filter(None, rows[0][1]))}")
        start, rows = start + rows[0][0], [(n - rows[0][0], row) for n, row in rows[1:]]
    number, first = rows[0]
    names, unsure = _header(first)
    if remarks and (names is None or unsure):  # as NumPy writes it: the names in a remark
        told = next((row for _, row in _rows([remarks[-1].lstrip("# ")], separator)), [])
        remarked, doubtful = _header(told)
        if remarked is not None and len(told) == width and not doubtful:
            return Layout(separator, start, 0, remarked, False, (*notes, *_left_out(remarks[:-1])))
    return Layout(separator, start, number if names else 0, names, unsure, (*notes, *_left_out(remarks)))


def is_value(cell: str) -> bool:
    """Whether a cell is a number, without letters, or a date: what stands in rows and not in a header."""
    cell = unquoted(cell.strip())
    try:
        float(cell)
    except ValueError:
        number = read_number(cell)
        return looks_like_date(cell) or (number is not None and (number.measured or not number.unit))
    return True


def unquoted(cell: str) -> str:
    """Return a cell without single quotes around it."""
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == "'" else cell


def _preamble(lines: list[str]) -> tuple[int, str, list[str]]:
    """How many lines come before the table, the separator where one of them names it, and those that start with #."""
    separator, remarks, start = "", [], 0
    for line in lines:
        text = line.strip(" \r\n").strip('"')
        if text.startswith("#"):
            remarks.append(text)
        elif text[:4].lower() == "sep=" and len(text) == 5 and not separator:
            separator = text[4]
        elif text.strip():
            break
        start += 1
    return start, separator, remarks


def _left_out(remarks: list[str]) -> list[str]:
    return [f"{len(remarks)} line{'s' * (len(remarks) > 1)} with # left out"] if remarks else []


def _separator(text: str) -> str:
    lines = [line for line in islice(QUOTED.sub("", text).splitlines(), SAMPLE) if line.strip()]
    counts = {s: [line.count(s) for line in lines] for s in ",;\t|"} | {BLANKS: [len(x.split()) - 1 for x in lines]}

    def share(separator: str) -> tuple[float, int]:
        """Of lines with the commonest number of separators, and that number; 0 where the commonest is none."""
        number, times = Counter(counts[separator] or [0]).most_common(1)[0]
        return (times / len(lines), number) if number else (0.0, 0)

    best = max(",;\t|", key=share)
    if best == ",":
        for other in (";", "\t", "|", BLANKS):
            cells = (
                c.strip() for line in lines for c in re.split(other if other == BLANKS else re.escape(other), line)
            )
            if share(other)[0] >= max(share(",")[0], 0.5) and all(
                map(DECIMALS.fullmatch, (c for c in cells if "," in c))
            ):
                return other
    return best


def _rows(lines: list[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line on which each ends."""
    blanks = separator == BLANKS
    reader = csv.reader(
        (re.sub(r"[ \t]+", " ", line.strip(" \t")) for line in lines) if blanks else lines,
        delimiter=" " if blanks else separator,
        skipinitialspace=True,
    )
    for row in reader:
        cells = [cell.strip() for cell in row]
        yield reader.line_num, cells[:-1] if blanks and cells and not cells[-1] else cells


def _header(first: list[str]) -> tuple[tuple[str, ...] | None, bool]:
    """Names from a first row, with an empty one over an index, and whether numbers are among them."""
    names = [unquoted(cell) for cell in first]
    while names and not names[-1]:
        names.pop()
    rest = names[names[:1] == [""] :]
    if not rest or not all(rest) or len(set(rest)) < len(rest):
        return None, False
    values = sum(map(is_value, first))
    return (None, False) if values == len(rest) else (tuple(names), values > 0)


def _title(row: list[str], below: list[str]) -> bool:
    """Whether a row with one cell is a title: it is no number, and a header comes next."""
    names, unsure = _header(below)
    return not is_value(next(filter(None, row))) and names is not None and not unsure
