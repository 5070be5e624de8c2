"""Numbers as people write them against values written down by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughline.data.frames.numbers import possible_marks, read_number, value


@pytest.mark.parametrize(
    ("cell", "mark", "expected", "unit"),
    [
        ("1234.5", ".", 1234.5, ""),
        ("1,5", ",", 1.5, ""),
        (",5", ",", 0.5, ""),
        ("1.234.567,8", ",", 1234567.8, ""),
        ("1,234,567.8", ".", 1234567.8, ""),
        ("12,34,567", ".", 1234567, ""),
        ("1'234.5", ".", 1234.5, ""),
        ("1’234", ".", 1234, ""),
        ("1 234 567", ".", 1234567, ""),
        ("1\u202f234,5", ",", 1234.5, ""),
        ("1\u00a0234", ".", 1234, ""),
        ("1_234", ".", 1234, ""),
        ("−3", ".", -3, ""),
        ("–3,5", ",", -3.5, ""),
        ("+3", ".", 3, ""),
        ("1,5e-3", ",", 0.0015, ""),
        ("$5", ".", 5, "$"),
        ("-$5.20", ".", -5.2, "$"),
        ("$-5.20", ".", -5.2, "$"),
        ("1.234,50 €", ",", 1234.5, "€"),
        ("EUR 12", ".", 12, "EUR"),
        ("12%", ".", 12, "%"),
        ("12,5 %", ",", 12.5, "%"),
        ("3.5kg", ".", 3.5, "kg"),
        ("100 km/h", ".", 100, "km/h"),
        ("20 °C", ".", 20, "°C"),
        ("45°", ".", 45, "°"),
        ("30 m²", ".", 30, "m2"),
        ("５", ".", 5, ""),
    ],
)
def test_what_is_a_number(cell: str, mark, expected: float, unit: str) -> None:
    found = read_number(cell)
    assert found is not None
    assert float(found.sign + (value(found.body, mark) or "nothing") + found.power) == expected
    assert found.unit == unit
    assert mark in possible_marks([found])


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "x",
        "1,23,45",
        "1.2.3",
        "12:30",
        "1-2",
        "10x20",
        "$5 kg",
        "€5$",
        "--5",
        "-$-5",
        "1,5.",
        "5 1/2",
        "A11",
        "1 2 3",
    ],
)
def test_what_is_none(cell: str) -> None:
    assert read_number(cell) is None


@pytest.mark.parametrize(
    ("cell", "marks"),
    [("1,234", ".,"), ("1,5", ","), ("0,123", ","), ("1,2345", ","), ("1234,567", ","), ("1.5", "."), ("1,234.5", ".")],
)
def test_which_decimal_marks_a_number_may_have(cell: str, marks: str) -> None:
    found = read_number(cell)
    assert found is not None
    assert "".join(possible_marks([found])) == marks


def test_a_whole_number_with_letters_may_be_a_code() -> None:
    for cell, measured in (("3A", False), ("3", False), ("3 A", True), ("3%", True), ("$3", True), ("3.5", True)):
        found = read_number(cell)
        assert found is not None
        assert found.measured is measured


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=2), st.sampled_from([(",", "."), (".", ","), (" ", ",")]))
def test_what_is_grouped_is_read_back(number, marks: tuple[str, str]) -> None:
    between, before = marks
    cell = f"{number:,.2f}".translate(str.maketrans({",": between, ".": before}))
    found = read_number(cell)
    assert found is not None
    assert float(found.sign + (value(found.body, before) or "nothing")) == float(number)
