"""Files of planar instances: the published format, tables, and every defect."""

from pathlib import Path

import pytest
import torch

from throughline.data import DataError, Source
from throughline.data.planar import read_planar

TEXT = "0 0 1 0 1 1 0 1 0.5 0.5 output 1 2 3 4 1\n\n0 0 2 0 0 2 output 2 3 1\n0.25 0 2 0 0 2\n"


def test_reads_the_published_format(tmp_path: Path) -> None:
    (tmp_path / "hulls.txt").write_text(TEXT)
    batch = read_planar(tmp_path / "hulls.txt")
    assert batch.lengths.tolist() == [5, 3, 3]
    assert batch.points[0, 4].tolist() == [0.5, 0.5]
    assert batch.points[2].tolist() == [[0.25, 0], [2, 0], [0, 2], [0, 0], [0, 0]]
    assert batch.targets.tolist() == [[0, 1, 2, 3, -1], [1, 2, 0, -1, -100], [-100] * 5]
    (tmp_path / "triangles.txt").write_text("0 0 1 0 0 1 1 1.1 output 2 3 4 1 2 3\n")
    assert read_planar(tmp_path / "triangles.txt").targets.tolist() == [[1, 2, 3, 0, 1, 2, -1]]
    (tmp_path / "plain.txt").write_text("0 0 1 0 0 1\n")
    assert (read_planar(tmp_path / "plain.txt").targets == -100).all()


def test_reads_a_table_of_points(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("id,instance,x,y\n1,b,0,0\n2,a,5,6\n3,b,1,0.5\n4,b,2,2\n5,a,7,8\n")
    batch = read_planar(file)
    assert batch.lengths.tolist() == [3, 2]  # in the order of their first rows
    assert batch.points[1].tolist() == [[5, 6], [7, 8], [0, 0]]
    assert (batch.targets < 0).all()
    source = Source.of(file)
    assert torch.equal(source.planar().points, batch.points)
    with pytest.raises(DataError, match=r"points\.csv: a target column \('x'\) is for tables of features"):
        Source.of(file, "x").planar()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "the file is empty; give one with a line x1 y1"),
        ("a.txt", "0 0 1 0 1\n", "line 1: 5 coordinates before output; wanted two for each point"),
        ("a.txt", "0 0 1 0\n0 zero output 1\n", "line 2: 'zero' is no coordinate; wanted x1 y1"),
        ("a.txt", "output 1 2\n", "line 1: 0 coordinates before output"),
        ("a.txt", "0 0 1 nan output 1\n", "line 1: a coordinate is not finite"),
        ("a.txt", "0 0 1 0 output\n", "line 1: nothing follows output; give indices"),
        ("a.txt", "0 0 1 0 output 1 3\n", "line 1: '3' is no index of its 2 points; indices count from 1"),
        ("a.txt", "0 0 1 0 output 0 1\n", "line 1: '0' is no index of its 2 points"),
        ("a.txt", "0 0 1 0 output 1.0\n", r"line 1: '1\.0' is no index of its 2 points"),
        ("a.txt", "0 0 1 0 0 1\n2 2 2 2 2 2 output 1 2 3\n", "line 2: its 3 points all coincide; mend or remove it"),
        ("a.csv", "instance,x,y\nu,1,2\nv,3,4\nu,5,6\nv,3,4\n", "instance v: its 2 points all coincide; mend"),
        ("a.csv", "instance,x,z\n1,2,3\n", "no column 'y'; wanted instance, x and y, its columns are instance, x, z"),
        ("a.csv", "instance,x,y\n1,2,3\n1,,3\n", "row 2 has no finite x and y or no instance"),
        ("a.csv", "instance,x,y\n1,2,up\n", "row 1 has no finite x and y"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_planar(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_other_files_are_no_instances(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"0 0 1 \xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8 text"):
        read_planar(tmp_path / "latin.txt")
    with pytest.raises(DataError, match="a folder, where a file of planar instances is wanted"):
        read_planar(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_planar(tmp_path / "none.txt")
