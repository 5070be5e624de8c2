"""A number as people write it in a cell: decimal comma, thousands separators, currency, percent, unit."""

import re
import unicodedata
from typing import Literal, NamedTuple

__all__ = ["ABSENT", "MARKS", "Mark", "Written", "possible_marks", "read_number", "value"]

Mark = Literal[".", ","]  # what stands before the decimals
MARKS: tuple[Mark, Mark] = (".", ",")
ABSENT = frozenset({"?", "NA", "N/A", "n/a", "None"})  # a gap among numbers, a text among texts

CURRENCY = "[$€£¥₹₩₽₺₪₫₴฿]|EUR|USD|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|KRW"
LETTERS = r"[^\W\d_]{1,9}[23]?"
NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?P<before>{CURRENCY})? ?(?P<inner>-?)"
    r"(?P<body>\d(?:[\d.,'_ ]*\d)?|[.,]\d+)(?P<power>[eE][+-]?\d+)?"
    rf"(?P<gap> ?)(?P<after>{CURRENCY}|[%‰°]|°?{LETTERS}(?:/{LETTERS})?)?"
)
GROUPED = re.compile(r"[1-9]\d{0,2}([.,'_ ])\d{3}(?:\1\d{3})*|[1-9]\d?(?:,\d{2})+,\d{3}")  # the latter as in India
PLAIN = str.maketrans({"−": "-", "–": "-", "’": "'", "‘": "'"})


class Written(NamedTuple):
    """The parts of a number."""

    sign: str  # empty, or a minus
    body: str  # digits and what stands between them
    power: str  # empty, or such as e-3
    unit: str  # empty; a currency, a percent sign or a unit of measurement
    money: bool
    measured: bool  # more than a whole number with letters behind, which may be the code of a category


def read_number(cell: str) -> Written | None:
    """The parts of a number, or None where the cell is none, whatever its decimal mark.

    >>> read_number("−1.234,5 km/h")
    Written(sign='-', body='1.234,5', power='', unit='km/h', money=False, measured=True)
    """
    found = NUMBER.fullmatch(unicodedata.normalize("NFKC", cell).strip().translate(PLAIN))
    if found is None or (found["before"] and found["after"]) or (found["sign"] and found["inner"]):
        return None
    body, unit, power = found["body"], found["before"] or found["after"] or "", found["power"] or ""
    if all(value(body, mark) is None for mark in MARKS):
        return None
    money = re.fullmatch(CURRENCY, unit) is not None
    measured = not body.isdecimal() or bool(power) or money or unit in ("%", "‰") or bool(unit and found["gap"])
    return Written("-" if "-" in found["sign"] + found["inner"] else "", body, power, unit, money, measured)


def value(body: str, mark: Mark) -> str | None:
    """The digits with a point before the decimals, or None where they cannot be read with this decimal mark.

    >>> value("1,234", "."), value("1,234", ","), value("0,123", "."), value("1'234'567.5", ".")
    ('1234', '1.234', None, '1234567.5')
    """
    whole, point, decimals = body.partition(mark)
    if whole and not whole.isdecimal():
        if not GROUPED.fullmatch(whole):
            return None
        whole = re.sub(r"\D", "", whole)
    if point and not decimals.isdecimal():
        return None
    return f"{whole or 0}.{decimals}" if point else whole


def possible_marks(numbers: list[Written]) -> tuple[Mark, ...]:
    """The decimal marks with which all numbers of a column can be read; one alone where it makes no difference."""
    possible = tuple(mark for mark in MARKS if all(value(number.body, mark) is not None for number in numbers))
    alike = all(value(number.body, ".") == value(number.body, ",") for number in numbers)
    return (".",) if possible and alike else possible
