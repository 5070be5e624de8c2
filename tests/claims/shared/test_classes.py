"""Classes of the user's own data: the split is the data layer's, and what cannot be split is one line with a cure."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.claims.stand_ins import colour_folder

from throughline.claims.shared.classes import class_split, class_table_of
from throughline.cli import main
from throughline.data import DataError, Source, stratified_split

DRAW = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], (30, 20, 10))


def table(folder: Path, labels: list[object], columns: int = 2) -> Source:
    rows = [",".join(map(str, [*DRAW.normal(size=columns).round(3), label])) for label in labels]
    (folder / "own.csv").write_text("\n".join([",".join([*"abcdefgh"[:columns], "kind"]), *rows]))
    return Source.of(folder / "own.csv")


def test_one_share_is_a_stratified_split_and_more_take_from_what_is_left() -> None:
    train, test = stratified_split(LABELS, 3, test=0.2)
    for ours, theirs in zip(class_split(LABELS, "abc", 3, 0.2), (train, test), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rest, first, second = class_split(LABELS, "abc", 3, 0.2, 0.25)
    np.testing.assert_array_equal(first, test)
    assert sorted([*rest, *first, *second]) == list(range(60))
    assert np.bincount(LABELS[second]).tolist() == [6, 4, 2]  # a quarter of 24, 16 and 8


def test_a_table_of_classes(tmp_path: Path) -> None:
    source = table(tmp_path, ["oak", "elm", "ash", "elm"])
    found, classes = class_table_of(source)
    assert classes == ("ash", "elm", "oak")
    assert found.y.tolist() == [2, 1, 0, 1]
    np.testing.assert_array_equal(found.x, source.table().x)


def test_what_is_no_table_of_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"own\.csv: column 'kind' holds 101 different values, .* with --target$"):
        class_table_of(table(tmp_path, list(range(101))))
    (tmp_path / "flat.csv").write_text("a,b,kind\n1,2,x\n1,2,y\n1,2,x\n")
    with pytest.raises(DataError, match=r"flat\.csv: every column beside 'kind' is constant"):
        class_table_of(Source.of(tmp_path / "flat.csv"))


def test_a_class_that_is_too_rare_is_named(tmp_path: Path) -> None:
    source = table(tmp_path, ["oak"])
    with pytest.raises(DataError, match=r"class elm has 1 of 9 rows, and 2 parts need .*; add rows .* --target$"):
        class_split([0] * 8 + [1], ("oak", "elm"), 0, 0.3, source=source)
    with pytest.raises(DataError, match=r"^class elm has 2 of 12 images, and 3 parts need one each; add images"):
        class_split([0] * 10 + [1] * 2, ("oak", "elm"), 0, 0.3, 0.3)


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_cannot_hold_every_class(share: float) -> None:
    with pytest.raises(DataError, match=rf"^{share} of 60 images, and the rest .* 3 classes; .* --set test=…$"):
        class_split(LABELS, "abc", 0, share, setting="test")
    with pytest.raises(DataError, match=r"; add images$"):
        class_split(LABELS, "abc", 0, share)


@pytest.mark.parametrize(
    ("paper", "says"),
    [
        ("groco", "class green has 1 of 2 images, and 2 parts need one each"),
        ("sensor-layout", "class green has 1 of 2 images, and 2 parts need one each"),
        ("distill-quant", "class green has 1 of 2 images, and 2 parts need one each"),
        ("g-acil", "class green has 1 of 2 images, and 2 parts need one each"),
        ("dkvb", "5 tasks need as many classes, got 2; --set tasks=2"),
        ("tell", "a cluster for each of 2 classes wants two samples a class, and there are 2 in all; add some"),
    ],
)
def test_one_image_in_each_class(paper: str, says: str, tmp_path: Path) -> None:
    colour_folder(tmp_path / "pictures", count=1)
    refuses(["run", paper, "--scale", "smoke", "--data", str(tmp_path / "pictures")], says, tmp_path)


@pytest.mark.parametrize("paper", ["anyloss", "g-acil", "distill-quant"])
def test_a_row_in_each_class(paper: str, tmp_path: Path) -> None:
    source = table(tmp_path, ["oak", "elm"])
    refuses(["run", paper, "--scale", "smoke", "--data", source.path], "class elm has 1 of 2 rows", tmp_path)
    source = table(tmp_path, ["oak", "elm"] * 2)
    refuses(["run", paper, "--scale", "smoke", "--data", source.path], "of 4 rows, and the rest", tmp_path)


def refuses(command: list[str], says: str, out: Path) -> None:
    """The command ends before any unit, with exit code 2 and a line that starts with the data's path."""
    result = CliRunner().invoke(main, [*command, "--out", str(out / "runs")])
    last = result.output.splitlines()[-1]
    assert result.exit_code == 2, result.output
    assert last.startswith(f"Error: {out}"), result.output
    assert says in last
    assert not (out / "runs").exists()
