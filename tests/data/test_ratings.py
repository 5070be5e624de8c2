"""Tables of ratings: ids as they stand in the file, columns by several names, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from throughline.data import DataError, Source, read_ratings


def written(folder: Path, text: str, name: str = "stars.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_ids_are_texts_whatever_they_look_like(tmp_path: Path) -> None:
    users = ["7", "007", "1,234", "2024-01-31", "ann@x.org", "9007199254740993", "9007199254740992", "NA", "7"]
    rows = [f'"{user}",{place % 2},{place % 5},88' for place, user in enumerate(users)]
    found = read_ratings(written(tmp_path, "user,item,rating,timestamp\n" + "\n".join(rows)))
    assert found.user_ids == tuple(users[:-1])
    assert found.users.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert found.item_ids == ("0", "1")
    assert found.items.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert found.ratings.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert all(array.flags.writeable for array in (found.users, found.items, found.ratings))
    assert (found.users.dtype, found.items.dtype, found.ratings.dtype) == (np.int64, np.int64, np.float64)


@pytest.mark.parametrize(
    "text",
    [
        "userId,movieId,rating,timestamp\n1,2,4.5,0\n3,2,1,0\n",
        "timestamp\tRating\titem_id\tUser ID\n0\t4.5\t2\t1\n0\t1\t2\t3\n",
        "user;item;rating\n1;2;4,5\n3;2;1,0\n",
        ",user,item,rating\n0,1,2,4.5\n1,3,2,1\n",
    ],
)
def test_files_as_people_write_them(tmp_path: Path, text: str) -> None:
    found = read_ratings(written(tmp_path, text))
    assert (found.user_ids, found.item_ids) == (("1", "3"), ("2",))
    assert found.ratings.tolist() == [4.5, 1]
    assert found.described() == "stars: 2 ratings from 1 to 4.5 by 2 users of 1 items"


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"user": [2**53 + 1, 2**53], "item": ["a", "b"], "rating": [1, 2]})
    frame.to_parquet(tmp_path / "stars.parquet")
    found = read_ratings(tmp_path / "stars.parquet")
    assert found.user_ids == (str(2**53 + 1), str(2**53))
    assert found.ratings.tolist() == [1, 2]
    frame.loc[0, "item"] = None
    frame.to_parquet(tmp_path / "stars.parquet")
    with pytest.raises(DataError, match="no item in 1 of 2 rows"):
        read_ratings(tmp_path / "stars.parquet")


def test_the_registered_ratings() -> None:
    found = Source.of("movielens-100k/u.data").ratings()
    assert found.described() == "u: 100,000 ratings from 1 to 5 by 943 users of 1,682 items"
    assert (found.user_ids[0], found.item_ids[0], found.ratings[0]) == ("196", "242", 3)
    assert np.bincount(found.users).max() == 737


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "user,item,stars\n1,2,3\n",
            "no column rating; a header that names one user, .* columns are user, item, stars",
        ),
        ("1,2,3\n4,5,6\n", "no column user; .* the columns are 0, 1, 2"),
        ("user,userid,item,rating\n1,1,2,3\n", r"2 columns for user \(user, userid\)"),
        ("user,item,rating\n1,2,good\n1,3,bad\n", "ratings must be numbers, got texts such as 'good'"),
        ("user,item,rating\n1,2,3\n,3,4\n", "no user in 1 of 2 rows; fill it in"),
        ("user,item,rating\n1,2,3\n1,3,\n", "no rating in 1 of 2 rows"),
        ("user,item,rating\n1,2,3\n1,3,inf\n", "no rating in 1 of 2 rows"),
        ("user,item,rating\n", "no rows|header"),
    ],
)
def test_tables_that_are_no_ratings(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_ratings(written(tmp_path, text))


def test_a_target_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "user,item,rating\n1,2,3\n")
    with pytest.raises(DataError, match=r"a target column \('rating'\) is for tables of features; leave it out"):
        Source.of(file, "rating").ratings()
