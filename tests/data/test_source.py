"""Sources: what they resolve to, and a digest that follows the content and nothing else."""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from throughline.data import DataError, Source, read_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "my.csv").write_text("a,label\n1,0\n2,1\n")
    return tmp_path / "my.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / name / "1.png")
    return tmp_path / "pictures"


def test_a_table(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    source = Source.of("my.csv", "a")
    assert source == Source(str(table.resolve()), "a", None, source.digest)
    assert source.kind == "table"
    assert source.table().target == "a"
    assert source.digest == subprocess.run(["sha256sum", table], capture_output=True, text=True).stdout.split()[0]
    assert pickle.loads(pickle.dumps(source)) == source


def test_an_image_folder(folder: Path) -> None:
    source = Source.of(folder, size=3)
    assert source.kind == "images"
    assert source.images().images.shape == (2, 3, 3, 3)
    assert Source.of(str(folder)).images().images.shape == (2, 3, 5, 5)


def test_a_text(tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text("\ufeffTo be, or not to bé", encoding="utf-8")
    source = Source.of(tmp_path / "play.txt")
    assert source.kinds == ("table", "binary", "planar", "ratings", "text")
    assert source.text() == "To be, or not to bé"
    (tmp_path / "play.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"play\.txt: not UTF-8 text .*byte 3"):
        source.text()
    (tmp_path / "play.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"play\.txt: the file is empty"):
        source.text()


def test_a_folder_of_tables(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("x1,y\n0,1\n")
    (tmp_path / "a.tsv").write_text("x1\ty\n0.5\t2\n1\t3\n")
    (tmp_path / ".hidden.csv").write_text("not,counted\n1,2\n")
    source = Source.of(tmp_path)
    assert source.kinds == ("images", "tables", "simulation", "videos", "people", "meshes", "clips")
    tables = source.tables()
    assert list(tables) == ["a", "b"]
    assert tables["a"]["y"].tolist() == [2, 3]
    (tmp_path / "b.tsv").write_text("x1\ty\n0.5\t2\n")
    with pytest.raises(DataError, match="two tables are named b; rename one"):
        source.tables()


def test_a_folder_without_tables(folder: Path) -> None:
    with pytest.raises(DataError, match="no table in this folder"):
        Source.of(folder).tables()


def test_a_registry_key(register, mirror: Path) -> None:
    entry = register("sets/one.csv", b"a,label\n1,0\n2,1\n")
    source = Source.of("sets/one.csv")
    assert source == Source("sets/one.csv", None, None, entry.sha256)
    assert source.kind == "table"
    assert source.table().y.tolist() == [0, 1]


def test_the_digest_of_a_folder_is_that_of_its_checksum_lines(folder: Path) -> None:
    lines = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    expected = subprocess.run(lines, shell=True, cwd=folder, capture_output=True, text=True).stdout.split()[0]
    assert Source.of(folder).digest == expected


def test_the_digest_follows_names_and_content(folder: Path) -> None:
    before = Source.of(folder).digest
    shutil.copytree(folder, folder.parent / "copy")
    (folder.parent / "copy" / ".DS_Store").write_text("hidden files do not count")
    assert Source.of(folder.parent / "copy").digest == before
    (folder / "a" / "1.png").rename(folder / "a" / "2.png")
    assert Source.of(folder).digest != before
    (folder / "a" / "2.png").rename(folder / "a" / "1.png")
    Image.new("RGB", (5, 5), (0, 0, 9)).save(folder / "a" / "1.png")
    assert Source.of(folder).digest != before


def test_what_does_not_fit_is_refused(table: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv: no such file, folder or registry key"):
        Source.of(table.parent / "nothing.csv")
    with pytest.raises(DataError, match=r"did you mean tabular/sonar\.csv"):
        Source.of("tabular/sonarr.csv")
    with pytest.raises(DataError, match=r"1\.png: neither a table .* nor an image folder"):
        Source.of(folder / "a" / "1.png")
    with pytest.raises(DataError, match=r"a target column \('a'\) is for tables"):
        Source.of(folder, "a")
    with pytest.raises(DataError, match=r"an image size \(3\) is for image folders"):
        Source.of(table, size=3)
    with pytest.raises(DataError, match="an image size must be a positive number of pixels, got 0"):
        Source.of(folder, size=0)


def test_what_a_source_holds_is_described_in_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(",a,y\n0,$1,u\n1,$2,v\n2,$3,u\n")
    assert Source.of(tmp_path / "index.csv").described("table") == (
        "index: 3 rows, 1 numeric column; target 'y': u (2), v (1), positive class v; index left out; a in $"
    )
    (folder / "readme.txt").write_text("no image")
    assert Source.of(folder).described("images") == "pictures: 2 images in 2 classes (a 1, b 1); 1 other file left out"
    (tmp_path / "words.txt").write_text("to be or not")
    assert Source.of(tmp_path / "words.txt").described("text") == "words.txt: a text of 12 characters"
    (tmp_path / "points.csv").write_text("instance,x,y\n" + "".join(f"{i // 3},{i},{i * i}\n" for i in range(9)))
    assert Source.of(tmp_path / "points.csv").described("planar") == "points.csv: 3 instances of 3 to 3 points"
    (tmp_path / "stars.csv").write_text("user,item,rating\na,x,1\na,y,5\nb,y,2.5\n")
    assert (
        Source.of(tmp_path / "stars.csv").described("ratings") == "stars: 3 ratings from 1 to 5 by 2 users of 2 items"
    )
    (tmp_path / "runs").mkdir()
    for name, rows in (("a", 2), ("b", 1)):
        (tmp_path / "runs" / f"{name}.csv").write_text("u,v\n" + "1,2\n" * rows)
    assert Source.of(tmp_path / "runs").described("tables") == "runs: 2 tables (a 2 rows, b 1 rows)"
    (folder / "labels.csv").write_text("file,bpm,subject\na/1.png,60,ann\nb/1.png,70,ann\n")
    assert Source.of(folder).described("videos") == "pictures: 2 videos of 1 subjects, 0 with a waveform"


def test_the_positive_class_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("a,y\n1,u\n2,v\n3,u\n4,u\n")
    plain, chosen, wrong = (Source.of(tmp_path / "y.csv", positive=name) for name in (None, "u", "w"))
    assert plain.described("binary").endswith("target 'y': u (3), v (1), positive class v")
    assert chosen.described("binary").endswith("target 'y': u (3), v (1), positive class u")
    assert plain.digest == chosen.digest
    with pytest.raises(DataError, match=r"y: positive class 'w' is not a label of 'y' \(u, v\)"):
        wrong.described("binary")
    with pytest.raises(DataError, match=r"a positive class \('u'\) is for tables, and this is a folder"):
        Source.of(tmp_path, positive="u")


def test_data_that_has_changed_is_refused(table: Path, folder: Path) -> None:
    for source, file in ((Source.of(table), table), (Source.of(folder), folder / "a" / "1.png")):
        source.check_unchanged()
        file.write_bytes(file.read_bytes() + b"0")
        with pytest.raises(DataError, match="its content is not what the run was started with; restore it"):
            source.check_unchanged()


def test_names_that_are_not_utf_8(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    plain = Source.of(folder).digest
    (folder / "a" / "1.png").rename(folder / "a" / f"{name}.png")
    (folder / "b").rename(folder / name)
    source = Source.of(folder)
    assert source.digest != plain
    lines = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    expected = subprocess.run(lines, shell=True, cwd=folder, capture_output=True, check=True).stdout.split()[0]
    assert source.digest == expected.decode()
    assert source.images().classes == ("a", "caf\\xe9")
    assert "caf\\xe9 1" in source.described("images")
    (folder / name / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="not a readable image") as caught:
        source.images()
    assert str(caught.value).encode()  # it can be printed
    (folder.parent / name).symlink_to(folder, target_is_directory=True)
    assert Source.of(folder.parent / name).digest


@pytest.mark.parametrize("place", ["table", "within a folder"])
def test_a_pipe_is_refused_before_it_is_opened(folder: Path, place: str) -> None:
    pipe = folder.parent / "pipe.csv" if place == "table" else folder / "a" / "pipe.png"
    os.mkfifo(pipe)
    for read in (Source.of, read_table) if place == "table" else (Source.of,):
        with pytest.raises(
            DataError, match=r"pipe\.(csv|png): a pipe or device, .*; save its content in a file and give"
        ):
            read(pipe if place == "table" else folder)
