"""The tables that people have: how programs lay them out, and what is said of each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from throughline.data import DataError, read_table
from throughline.data.frames import notes, read_frame

ROWS = 12


def write(folder: Path, text: str, name: str = "my.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def lines(first: str, row: str) -> str:
    """A first line and twelve rows; in them {i} is the number of the row, and {y} one of two classes."""
    return first + "".join(row.format(i=i, y="uv"[i % 2]) + "\n" for i in range(ROWS))


NUMBERS = [[i + 0.5, 2.0] for i in range(ROWS)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lines("a;b;y\n", "{i},5;2,0;{y}"), ("decimal commas in a, b",)),
        (lines("a,b,y\n", '"{i},5","2,0",{y}'), ("decimal commas in a, b",)),
        (lines("a\tb\ty\n", "{i},5\t2,0\t{y}"), ("decimal commas in a, b",)),
        (lines("a b y\n", "{i},5  2,0 {y}"), ("decimal commas in a, b",)),
        (lines(",a,b,y\n", "{i},{i}.5,2,{y}"), ("index left out",)),
        (lines(",a,b,y\n", "r{i},{i}.5,2,{y}"), ("index left out",)),
        (lines("Unnamed: 0,a,b,y\n", "{i},{i}.5,2,{y}"), ("index left out",)),
        (lines("a b y\n", "  {i}.5   2 {y} "), ()),
        (lines("a|b|y\n", "{i}.5|2|{y}"), ()),
        (lines("Sales of 2024\n\na,b,y\n", "{i}.5,2,{y}"), ("title left out: Sales of 2024",)),
        (lines("Sales of 2024,,\na,b,y\n", "{i}.5,2,{y}"), ("title left out: Sales of 2024",)),
        (lines("# made 2024\n#\n\na,b,y\n", "{i}.5,2,{y}"), ("2 lines with # left out",)),
        (lines("# by me\n# a b y\n", "{i}.5 2 {y}"), ("1 line with # left out",)),
        (lines("# made by me on Monday\na b y\n", "{i}.5 2 {y}"), ("1 line with # left out",)),
        (lines("# made by me on Monday, early\n" * 300 + "a,b,y\n", "{i}.5,2,{y}"), ("300 lines with # left out",)),
        (lines("sep=;\na;b;y\n", "{i}.5;2;{y}"), ()),
        (lines('"sep=|"\r\na|b|y\r\n', "{i}.5|2|{y}\r"), ()),
        (lines("a,b,y,\n", "{i}.5,2,{y},"), ()),
        (lines("a,b,y\n", "{i}.5,2,{y},"), ()),
        (lines('"a","b","y"\n', '"{i}.5","2","{y}"'), ()),
        (lines("a,b,y\n", "${i}.50,2%,{y}"), ("a in $", "b in %")),
        (lines("a,b,y\n", "{i}.5 kg,−2,{y}").replace("−2", "2"), ("a in kg",)),
    ],
)
def test_a_layout_is_read(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    file = write(tmp_path, text)
    table = read_table(file)
    assert table.columns == ("a", "b")
    assert table.target == "y"
    assert table.x.tolist() == NUMBERS
    assert table.y.tolist() == ["u", "v"] * 6
    assert notes(read_frame(file)) == said


@pytest.mark.parametrize(
    "row", ["{i},5;2,0;{y}", "{i}.5 2 {y}", "{i}.5|2|{y}", "{i}.5,2,{y},", "{i}.5\t2\t{y}", '"{i},5"\t"2,0"\t{y}']
)
def test_rows_without_a_header(tmp_path: Path, row: str) -> None:
    table = read_table(write(tmp_path, lines("", row)))
    assert table.columns == ("0", "1")
    assert table.target == "2"
    assert table.x.tolist() == NUMBERS


def test_a_remark_of_other_length_than_the_rows_is_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, lines("# made by me on Monday\n", "{i}.5 2 {y}")))
    assert table.columns == ("0", "1")
    assert table.x.tolist() == NUMBERS


def test_a_header_as_r_writes_it_lacks_a_name_over_the_index(tmp_path: Path) -> None:
    file = write(tmp_path, '"a" "b" "y"\n' + "".join(f'"{i + 1}" {i}.5 2 "{"uv"[i % 2]}"\n' for i in range(ROWS)))
    assert read_table(file).x.tolist() == NUMBERS
    assert notes(read_frame(file)) == ("index left out",)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("400,410,420,label\n", "0.{i},2,3,{y}"),
        ("2019,2020,2021,label\n", "0.{i},2,3,{i}"),
        ("label,400,410,420\n", "{y},0.{i},2,3"),
        (",400,410,420,label\n", "{i},0.{i},2,3,{y}"),
        ("2024-01,2024-02,2024-03,label\n", "0.{i},2,3,{y}"),
    ],
)
def test_numbers_are_names_where_the_label_says_so(tmp_path: Path, header: str, row: str) -> None:
    table = read_table(write(tmp_path, lines(header, row)), "label")
    assert len(table.y) == ROWS
    assert table.columns == tuple(name for name in header.strip().split(",") if name not in ("", "label"))


def test_a_rare_class_in_the_first_row_is_no_header(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, lines("1,2,u\n", "3,{i},{y}")))
    assert len(table.y) == ROWS + 1  # u is a class below, too
    table = read_table(write(tmp_path, "1,2,u\n3,4,v\n5,6,w\n7,8,x\n"))
    assert len(table.y) == 4  # no class comes twice: nothing says that u is a name


def test_separators_and_new_lines_within_quotes(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, lines('"a;b;c","d\n|e",y\n', '{i},"p;q;""r"" ;",{y}')))
    assert table.columns == ("a;b;c", 'd\n|e=p;q;"r" ;')
    assert len(table.y) == ROWS


def test_what_means_missing_among_numbers_is_a_text_among_texts(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path, lines("where,y\n", "EU,{y}").replace("EU,v", "NA,v").replace("EU,u", "None,u", 1))
    )
    assert table.columns == ("where=EU", "where=NA", "where=None")
    for mark in ("NA", "N/A", "n/a", "None", "?", "nan", "null", ""):
        with pytest.raises(DataError, match=r"missing or infinite values: column 'a' in 1 of 13 rows"):
            read_table(write(tmp_path, lines("a,y\n", "{i},{y}") + f"{mark},u\n"))
    with pytest.raises(DataError, match=r"column 'a' in 1 of 13 rows"):
        read_table(write(tmp_path, lines("a,y\n", "p,{y}") + "nan,u\n"))


def test_other_columns_tell_what_a_comma_means(tmp_path: Path) -> None:
    row = '"1{i},234"'
    some = lines("a,b,y\n", row + ",1,{y}") + '"11,234",0.5,u\n'
    assert read_table(write(tmp_path, some)).x[[1, -1]].tolist() == [[11234, 1], [11234, 0.5]]
    assert read_table(write(tmp_path, lines("a,b,y\n", row + ",0.5,{y}"))).x[1, 0] == 11234
    assert read_table(write(tmp_path, lines("a,b,y\n", row + ',"1,234,567",{y}'))).x[1].tolist() == [11234, 1234567]
    assert read_table(write(tmp_path, lines("a,b,y\n", row + ',"0,5",{y}'))).x[1].tolist() == [11.234, 0.5]
    assert read_table(write(tmp_path, lines("a,y\n", '"$1{i},234",{y}'))).x[1, 0] == 11234  # money has no thousandths
    assert read_table(write(tmp_path, lines("a;y\n", "€1{i}.234;{y}"))).x[1, 0] == 11234
    assert read_table(write(tmp_path, lines("a;y\n", "1{i}.234 kg;{y}"))).x[1, 0] == 11.234


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines("a,y\n", '"1{i},234",{y}'), r"column 'a': '10,234' may mean 10234 or 10\.234"),
        (lines("a,y\n", '"1{i},234",{y}') + "5,u\n", r"column 'a': '10,234' may mean 10234 or 10\.234"),
        (lines("", "nan\n"), "no column is left beside the target '0'"),
        ("The sun was up. Nobody,\nit seemed, had seen\nit rise\n" * 3, "no column is left|cannot be read as a table"),
        (lines("a;b;y\n", "1.234;1,5;{y}"), r"column 'a': '1\.234' may mean 1234 or 1\.234; write its numbers with a"),
        (lines("a;b;y\n", "1.234 kg;1,5;{y}"), r"column 'a': '1\.234 kg' may mean 1234 or 1\.234"),
        (lines("a,b,c,y\n", '"1,234","0,5",0.5,{y}'), r"column 'a': '1,234' may mean 1234 or 1\.234"),
        (lines("a,y\n", "{i}.5,{y}") + "high,u\n", r"column 'a' holds numbers, but 'high' in row 13 is none; mend"),
        (lines("a,y\n", "{i},{y}") + "high,u\n", r"column 'a' holds numbers, but 'high' in row 13 is none"),
        (lines("a,y\n", "{i} kg,{y}") + "9 g,u\n", r"column 'a' holds numbers, but of different units \(kg, g\)"),
        (lines("a,y\n", "{i}%,{y}") + "9,u\n", r"different units \(%, none\)"),
        (
            lines("a,y\n", '"{i},5",{y}') + "9.5,u\n",
            r"column 'a' holds numbers, but with commas and points in",
        ),
        (
            lines("a,y\n", "01/02/2024,{y}"),
            r"column 'a' holds dates such as 01/02/2024, .* month first\); write",
        ),
        (lines("a,b,y\n", "{i},p\0,{y}"), r"a NUL character in line 2; save it as UTF-8 text"),
        (lines("Sales, 2024\na,b,y\n", "{i},2,{y}"), "2 names in the header and 3 cells in a row"),
        (lines(",a,y\n", "same,{i},{y}"), "the first column has no name, and is no index, for values repeat"),
    ],
)
def test_what_may_mean_two_things_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'my.csv'}: ")
    assert "\n" not in str(caught.value)


def test_whole_numbers_among_texts_are_codes(tmp_path: Path) -> None:
    text = lines("a,y\n", "{i},{y}") + lines("", "{i},{y}") + "12 or more,u\n" * 3
    text = text.replace("\n11,v", "\n9,v")
    with pytest.raises(DataError, match="but '12 or more' in row 25 is none"):
        read_table(write(tmp_path, text))  # eleven different
    table = read_table(write(tmp_path, text.replace("\n10,u", "\n9,u")))
    assert table.columns == ("a=0", "a=1", "a=12 or more", *(f"a={i}" for i in range(2, 10)))
    few = "".join(f"{i}.5,u\n" for i in range(9)) + "low,v\nhigh,v\n" * 6
    assert len(read_table(write(tmp_path, "a,y\n" + few)).columns) == 11  # more texts than numbers: they are names
    sizes = "".join(f"{i % 9} {unit},u\n{i % 9} {unit},v\n" for i, unit in enumerate(["l", "m", "s", "g", "t"] * 3))
    assert len(read_table(write(tmp_path, "a,y\n" + sizes)).columns) == 15  # so many units are none
    grades = read_table(write(tmp_path, lines("a,y\n", "1A,{y}") + lines("", "2B,{y}")))
    assert grades.columns == ("a=1A", "a=2B")


def test_dates_become_days(tmp_path: Path) -> None:
    text = lines("a,y\n", "2024-01-1{i},{y}").replace("-110", "-20").replace("-111", "-21")
    table = read_table(write(tmp_path, text))
    assert table.x[:, 0].tolist() == list(range(19732, 19732 + ROWS))
    assert notes(read_frame(tmp_path / "my.csv")) == ("a in days since 1970-01-01",)
    frame = pd.DataFrame({"a": pd.date_range("2024-01-10", periods=ROWS, freq="12h"), "y": ["u", "v"] * 6})
    frame.to_parquet(tmp_path / "my.parquet")
    assert read_table(tmp_path / "my.parquet").x[:3, 0].tolist() == [19732, 19732.5, 19733]


def test_lists_become_a_column_for_each_entry(tmp_path: Path) -> None:
    file = tmp_path / "my.parquet"
    frame = pd.DataFrame({"e": [[1.0, 2.0, 3.0]] * 6 + [[4.0, 5.0, 6.0]] * 6, "self": "p", "y": ["u", "v"] * 6})
    frame.to_parquet(file)
    table = read_table(file)
    assert table.columns == ("e[0]", "e[1]", "e[2]", "self=p")
    assert table.x[[0, -1]].tolist() == [[1, 2, 3, 1], [4, 5, 6, 1]]
    assert notes(read_frame(file)) == ("e in 3 columns",)
    for bad in ([[1.0, 2.0]] * 11 + [[1.0]], [["p"]] * 12, [{"p": 1}] * 12):
        pd.DataFrame({"e": bad, "y": ["u", "v"] * 6}).to_parquet(file)
        with pytest.raises(DataError, match=r"my\.parquet: column 'e' does not hold as many numbers in each row"):
            read_table(file)


def test_a_nul_in_a_text_of_parquet_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["p", "p\0", "q"] * 4, "y": ["u", "v"] * 6})
    frame.to_parquet(tmp_path / "my.parquet")
    with pytest.raises(DataError, match="column 'a' has a NUL character in row 2"):
        read_table(tmp_path / "my.parquet")


def test_every_table_of_two_kinds_of_columns_that_pandas_writes_comes_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=40), "b": draw.integers(0, 9, 40), "y": draw.choice(["u", "v"], 40)})
    for options in ({}, {"index": False}, {"sep": ";", "decimal": ","}, {"sep": "|"}, {"sep": "\t", "header": False}):
        frame.to_csv(tmp_path / "my.csv", **options)
        table = read_table(tmp_path / "my.csv", drop=["0"] if options.get("header") is False else ())
        np.testing.assert_allclose(table.x, frame[["a", "b"]], rtol=1e-15)
        assert table.y.tolist() == frame["y"].tolist()
