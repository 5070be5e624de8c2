"""Dates against Python's calendar."""

from datetime import UTC, date, datetime

import pandas as pd
import pytest

from throughline.data.frames.dates import looks_like_date, read_dates

DAYS = [date(2024, 1, 13), date(1969, 12, 31), date(2024, 2, 29), date(2000, 10, 5)]


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%d %b %Y", "%B %d, %Y", "%d-%b-%Y"],
)
def test_dates_are_days_since_1970(form: str) -> None:
    found = read_dates(pd.Series([day.strftime(form) for day in DAYS]))
    assert found is not None
    assert found.tolist() == [day.toordinal() - date(1970, 1, 1).toordinal() for day in DAYS]
    assert found.dtype.kind == "i"


def test_times_are_shares_of_a_day_in_universal_time() -> None:
    cells = ["2024-01-13T06:00:00Z", "2024-01-13 08:00+02:00", "2024-01-13T00:00:00.5"]
    found = read_dates(pd.Series(cells))
    assert found is not None
    start = datetime(2024, 1, 13, tzinfo=UTC).timestamp() / 86400
    assert found.tolist() == pytest.approx([start + 0.25, start + 0.25, start + 0.5 / 86400], abs=1e-9)
    assert read_dates(pd.Series(["13.1.2024 6:00"])).tolist() == [start + 0.25]


def test_months_and_short_numbers() -> None:
    assert read_dates(pd.Series(["1970-02", "1971-1"])).tolist() == [31, 365]
    assert read_dates(pd.Series(["1/2/1970", "13/1/1970"])).tolist() == [31, 12]
    assert read_dates(pd.Series(["1.2.1970"])).tolist() == [31]  # with points the day comes first


@pytest.mark.parametrize(
    ("cells", "cause"),
    [(["01/02/2024", "03/04/2024"], "the day or the month first"), (["13/02/24"], "years of two digits")],
)
def test_dates_that_may_mean_two_things(cells: list[str], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        read_dates(pd.Series(cells))


@pytest.mark.parametrize(
    "cells", [["2024"], ["13/13/2024"], ["2024-13-01"], ["2024-02-30"], ["2024-01-13", "later"], ["may"]]
)
def test_what_is_no_date(cells: list[str]) -> None:
    assert read_dates(pd.Series(cells)) is None


def test_a_cell_that_looks_like_one() -> None:
    for cell in ("2024-01-13", "13.1.2024", "2024-01", "1/2/24", "2024-01-13 10:00"):
        assert looks_like_date(cell)
    for cell in ("2024", "2024-13", "1.2.3", "1-2", "10:00", "1.2/2024"):
        assert not looks_like_date(cell)
