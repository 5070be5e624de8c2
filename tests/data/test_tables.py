"""Tables against values written down by hand and scikit-learn's encoder; then every defect that a file can have."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder

from throughline.data import DataError, binary, embedded, read_table, read_unlabelled
from throughline.errors import ThroughlineError


def write(folder: Path, text: str, name: str = "my.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_header_is_found_and_the_last_column_is_the_label(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "age,sex,ill\n1,f,no\n2.5,m,yes\n3,f,no\n"))
    assert table.name == "my"
    assert table.target == "ill"
    assert table.columns == ("age", "sex=f", "sex=m")
    np.testing.assert_array_equal(table.x, [[1, 1, 0], [2.5, 0, 1], [3, 1, 0]])
    assert table.x.dtype == np.float64
    assert table.y.tolist() == ["no", "yes", "no"]


@pytest.mark.parametrize(
    "first", ["1,2,3", "a,a,b", "a,,b", "'1',x,y"], ids=["numbers", "repeated", "an empty cell", "a quoted number"]
)
def test_a_first_row_that_is_no_header_is_data(tmp_path: Path, first: str) -> None:
    file = write(tmp_path, f"{first}\na,b,c\na,b,c\n")
    if ",," in first:
        with pytest.raises(DataError, match=r"column '1' in 1 of 3 rows"):
            read_table(file)
    else:
        table = read_table(file)
        assert len(table.y) == 3
        assert table.target == "2"


def test_a_name_over_numbers_is_not_taken_for_a_value(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"my\.csv: 'label' stands over numbers like a name, but the first row is no hea"
    ):
        read_table(write(tmp_path, "2019,2019,label\n1,2,0\n2,3,1\n4,4,0\n"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_blank_lines_byte_order_mark_and_spaces(tmp_path: Path, separator: str) -> None:
    text = "\ufeff\na, b ,label\n\n1, x y,0\n2,x y ,1\n".replace(",", separator)
    table = read_table(write(tmp_path, text))
    assert table.columns == ("a", "b=x y")
    assert table.y.tolist() == [0, 1]


def test_a_header_of_several_lines_and_blank_lines_above(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, '\n  \n"a\n(cm)",label\n1,0\n2,1\n'))
    assert table.columns == ("a\n(cm)",)
    assert table.x.tolist() == [[1], [2]]


def test_quotes_are_stripped(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "'a', \"b\",label\n'1', \"x, y\",'-1'\n'2',z,'1'\n"))
    assert table.columns == ("a", "b=x, y", "b=z")
    assert table.x[:, 0].tolist() == [1, 2]
    assert table.y.tolist() == [-1, 1]
    assert table.y.dtype.kind == "i"


@pytest.mark.parametrize(("target", "found"), [("b", "b"), ("1", "b"), (1, "b"), ("-3", "a"), (-1, "c"), (None, "c")])
def test_targets_by_name_and_index(tmp_path: Path, target: str | int | None, found: str) -> None:
    table = read_table(write(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), target)
    assert table.target == found
    assert table.y.tolist() == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}[found]
    assert found not in table.columns


def test_a_name_wins_over_an_index(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"1": [0, 1], "x": [5, 6], "0": [7, 8]}).to_parquet(file)
    assert read_table(file, "0").y.tolist() == [7, 8]
    assert read_table(file, 0).y.tolist() == [0, 1]


def test_dropped_columns_keep_the_names_of_the_others(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "1,2,3,0\n4,5,6,1\n"), drop=("0", -2))
    assert table.columns == ("1",)
    assert table.x.tolist() == [[2], [5]]
    with pytest.raises(DataError, match="column '3' is both the target and dropped"):
        read_table(tmp_path / "my.csv", drop=[3])


def test_one_hot_agrees_with_scikit_learn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.choice(list("zyxabc"), (200, 2))
    frame = pd.DataFrame({"u": texts[:, 0], "v": texts[:, 1], "label": rng.integers(0, 2, 200)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    expected = OneHotEncoder(sparse_output=False).fit_transform(frame[["u", "v"]])
    for name in ("t.csv", "t.parquet"):
        table = read_table(tmp_path / name)
        np.testing.assert_array_equal(table.x, expected)
        assert table.columns[:3] == ("u=a", "u=b", "u=c")
        np.testing.assert_array_equal(table.y, frame["label"])


def test_parquet_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "flag": [True, False],
            "kind": pd.Categorical(["q", "p"]),
            "count": pd.array([1, 2], dtype="Int64"),
            "small": np.array([0.5, 1.5], np.float32),
            "label": [False, True],
        }
    )
    frame.to_parquet(tmp_path / "t.pq")
    table = read_table(tmp_path / "t.pq")
    assert table.columns == ("flag", "kind=p", "kind=q", "count", "small")
    assert table.x.tolist() == [[1, 0, 1, 1, 0.5], [0, 1, 0, 2, 1.5]]
    assert binary(table, positive=True).y.tolist() == [0, 1]
    assert read_table(tmp_path / "t.pq", "count").y.dtype == np.int64


def test_parquet_without_pyarrow_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "", "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "fastparquet", None)
    with pytest.raises(ThroughlineError, match=r't\.parquet: .*pip install "throughline\[parquet\]"'):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        (",,\n,\n", "the file is empty"),
        ("a,b\n", "a header and no rows"),
        ("a,b\n1,2\n3,2\n", r"target column 'b' holds one class only \(2\); name another \(--target\)"),
        ("a,b\n1,2\n,1\n", "missing or infinite values: column 'a' in 1 of 2 rows; fill them in"),
        ("a,b\n1,2\nNA,1\nnan,3\n", "column 'a' in 2 of 3 rows"),
        ("a,b\n1,2\n?,1\n", "column 'a' in 1 of 2 rows"),
        ("a,b\n1,2\n2,?\n", "column 'b' in 1 of 2 rows"),
        ("a,b\n1,2\n-inf,1\n", "column 'a' in 1 of 2 rows"),
        ("a,b\nx,2\n,1\n", "column 'a' in 1 of 2 rows"),
        ("a,b,c,d,e\n1,,,,\n,2,3,4,5\n", "column 'c' in 1 of 2 rows and 2 more columns; fill"),
        ("a\n1\n2\n", "no column is left beside the target 'a'"),
        ("\n\n1,2\n1,2,3\n", r"cannot be read as a table \(.*line 4.*\); mend or replace"),
        ("a,b\n1,2\n1,2,3\n", r"cannot be read as a table \(.*line 3.*\); mend or replace"),
        ("a,b\n1,2,3\n1,2,3\n", "2 names in the header and 3 cells in a row"),
        ('a,b\n1,"2\n', "cannot be read as a table"),
    ],
)
def test_a_bad_csv_is_named_with_its_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(write(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path / 'my.csv'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["label", "3", "-4", 3])
def test_no_such_column(tmp_path: Path, target: str | int) -> None:
    file = write(tmp_path, "a,b,c\n1,2,3\n4,5,6\n")
    for use in ({"target": target}, {"drop": [target]}):
        with pytest.raises(DataError, match=rf"my\.csv: no column {target!r}; its 3 columns are a, b, c$"):
            read_table(file, **use)


def test_other_files_are_not_tables(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(b"a,b\n\xe9,1\nb,2\n")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"latin\.csv: not UTF-8 text .* save it as UTF-8"):
        read_table(tmp_path / "latin.csv")
    with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as a table"):
        read_table(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"my\.doc: not a table; its name must end in \.csv"):
        read_table(write(tmp_path, "", "my.doc"))
    with pytest.raises(DataError, match="a folder, where a table is wanted"):
        read_table(tmp_path)
    with pytest.raises(DataError, match=r"none\.csv: no such file, folder or registry key"):
        read_table(tmp_path / "none.csv")


def test_a_column_of_names_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"person {i},{i % 2}\n" for i in range(1001))
    with pytest.raises(DataError, match="column 'name' holds 1,001 different texts, too many for categories"):
        read_table(write(tmp_path, "name,label\n" + rows))


def test_a_column_with_nearly_as_many_texts_as_rows_is_warned_about(tmp_path: Path) -> None:
    rows = [f"person {i},{i % 3},{i % 2}\n" for i in range(16)]
    with pytest.warns(UserWarning, match="column 'name' holds 16 different texts in 20 rows, as names do") as caught:
        read_table(write(tmp_path, "name,b,label\n" + "".join(rows + rows[:4])))
    assert len(caught) == 1
    assert caught[0].filename == __file__  # it points at the call
    read_table(write(tmp_path, "name,b,label\n" + "".join(rows + rows[:5])))  # 16 of 21 are fewer
    read_table(write(tmp_path, "name,b,label\n" + "".join(rows[:9])))  # nine are few
    with pytest.warns(UserWarning, match="10 different texts in 10 rows"):
        read_table(write(tmp_path, "name,b,label\n" + "".join(rows[:10])))
    read_table(tmp_path / "my.csv", "name")  # and labels are not features


def test_what_was_read_is_described_in_one_line(tmp_path: Path) -> None:
    text = "age,sex,plan,ill\n" + "1,f,x,no\n2,m,y,yes\n3,m,z,no\n" * 400
    table = read_table(write(tmp_path, text))
    assert table.described() == (
        "my: 1,200 rows, 1 numeric column and 5 one-hot columns (sex 2, plan 3); target 'ill': no (800), yes (400), "
        "positive class yes"
    )
    assert binary(table).y.sum() == 400  # as described
    assert read_table(tmp_path / "my.csv", "plan").described().endswith("target 'plan': x (400), y (400), z (400)")
    assert read_table(tmp_path / "my.csv", "age", drop=("sex", "ill")).described() == (
        "my: 1,200 rows, 3 one-hot columns (plan 3); target 'age': 1 (400), 2 (400), 3 (400)"
    )
    assert embedded("diabetes").described() == (
        "diabetes: 442 rows, 10 numeric columns; target 'target': 214 different numbers from 25.0 to 346.0"
    )
    many = table._replace(y=np.arange(1200) % 9, x=table.x[:, :1], columns=("a=b",))
    assert many.described() == (
        "my: 1,200 rows, 1 numeric column; target 'ill': 0 (134), 1 (134), 2 (134), 3 (133), 4 (133), 5 (133) and 3 "
        "more classes"
    )
    flags = table._replace(x=np.eye(3)[np.arange(1200) % 3][:, :2], columns=("a=b", "a=c"))
    assert "2 numeric columns;" in flags.described()  # none is 1 in some rows: they are not of one column
    assert table._replace(y=np.arange(1200) % 20).described().endswith("5 (60) and 14 more classes")
    assert table._replace(y=np.arange(1200) % 21).described().endswith("21 different numbers from 0 to 20")
    tie = table._replace(y=np.array(["b", "a"] * 600))
    assert tie.described().endswith("a (600), b (600), positive class b")


def test_rows_without_labels_come_in_the_columns_of_a_table(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "age,sex,height,ill\n1,f,5,no\n2.5,m,6,yes\n3,f,7,no\n"))
    more = write(tmp_path, "sex,note,height,age\nm,hi,8,4\nx,ho,9,5\n", "more.csv")
    np.testing.assert_array_equal(read_unlabelled(more, table), [[4, 0, 1, 8], [5, 0, 0, 9]])
    np.testing.assert_array_equal(read_unlabelled(tmp_path / "my.csv", table), table.x)
    for text, message in (
        ("age,sex\n1,f\n2,m\n", "no column 'height'; its 2 columns are age, sex"),
        ("age,sex,height\n1,f,\n2,m,3\n", "missing or infinite values: column 'height' in 1 of 2 rows"),
        ("age,sex,height\nold,f,4\nyoung,m,3\n", "column 'age' must hold numbers, as in my; mend the file"),
        ("age,sex,height\n1,0,4\n2,1,3\n", "column 'sex' must hold texts, as in my; mend the file"),
    ):
        with pytest.raises(DataError, match=message):
            read_unlabelled(write(tmp_path, text, "bad.csv"), table)


def test_binary_labels(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "x,y\n" + "1,3\n2,7\n" * 2 + "3,3\n"))
    assert binary(table).y.tolist() == [0, 1, 0, 1, 0]
    assert binary(table).y.dtype == np.int64
    for three in (3, 3.0, "3", "3.0"):
        assert binary(table, three).y.tolist() == [1, 0, 1, 0, 1]
    assert binary(table._replace(y=np.array(["b", "a", "a", "b"]))).y.tolist() == [1, 0, 0, 1]
    for wrong in (5, "x"):
        with pytest.raises(DataError, match=rf"my: positive class {wrong!r} is not a label of 'y' \(3, 7\)"):
            binary(table, wrong)
    with pytest.raises(DataError, match=r"my: target 'y' has 3 classes \(1, 2, 3\), two are wanted; .* \(--target\)"):
        binary(table._replace(y=np.array([1, 2, 3])))
    assert binary(table._replace(y=np.array([1, 2, 3])), 2).y.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("key", "target", "drop", "positive", "shape", "positives"),
    [
        ("oil-spill", None, (0,), 1, (937, 48), 41),
        ("phoneme", None, (), 1, (5404, 5), 1586),
        ("haberman", None, (), 2, (306, 3), 81),
        ("pima-indians-diabetes", None, (), 1, (768, 8), 268),
        ("german", None, (), 2, (1000, 61), 300),
        ("ecoli", None, (), "imU", (336, 7), 35),
        ("glass", None, (), 7, (214, 9), 29),
        ("ionosphere", None, (), "b", (351, 34), 126),
        ("mammography", "6", (), "1", (11183, 6), 260),
        ("sonar", None, (), "M", (208, 60), 111),
        ("banknote_authentication", "-1", (), None, (1372, 4), 610),
        ("adult-train", None, (), ">50K", (32561, 108), 7841),
    ],
)
def test_registered_tables(
    key: str, target: str | None, drop, positive, shape: tuple[int, int], positives: int
) -> None:
    table = binary(read_table(f"tabular/{key}.csv", target, drop=drop), positive)
    assert table.name == key
    assert table.x.shape == shape == (len(table.y), len(table.columns))
    assert table.y.sum() == positives  # the class sizes that the UCI descriptions state


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("iris", (150, 4), 3), ("wine", (178, 13), 3), ("breast_cancer", (569, 30), 2), ("diabetes", (442, 10), 214)],
)
def test_embedded_tables(name, shape: tuple[int, int], classes: int) -> None:
    table = embedded(name)
    assert table.x.shape == shape == (len(table.y), len(table.columns))
    assert len(np.unique(table.y)) == classes


def test_an_unknown_embedded_table() -> None:
    with pytest.raises(ValueError, match="name must be one of breast_cancer, diabetes, iris, wine, got 'boston'"):
        embedded("boston")
