"""A folder of people: what is read, and what is refused with the file's name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from throughline.data import DataError, Source, read_people

SIDE = 12


def person(folder: Path, name: str, **changes: Any) -> None:
    draw = np.random.default_rng(len(name))
    Image.fromarray(draw.integers(256, size=(SIDE, SIDE, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(draw.integers(20, size=(SIDE, SIDE), dtype=np.uint8)).save(folder / f"{name}_parsing.png")
    keypoints = np.concatenate([draw.uniform(0, SIDE, (24, 2)), draw.integers(2, size=(24, 1))], 1)
    notes = {"keypoints": keypoints.tolist(), **changes}
    (folder / f"{name}.json").write_text(json.dumps(notes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    person(tmp_path, "anna")
    person(tmp_path, "ben", K=[[50, 0, 5.5], [0, 50, 5.5], [0, 0, 1]])
    np.savez(tmp_path / "ben.npz", joints=np.ones((24, 3)), vertices=np.zeros((7, 3)))
    (tmp_path / "readme.txt").write_text("left out")
    return tmp_path


def test_reads_people(folder: Path) -> None:
    anna, ben = Source.of(folder).people()
    assert (anna.name, anna.image, anna.parsing) == ("anna", folder / "anna.png", folder / "anna_parsing.png")
    assert anna.keypoints.shape == (24, 3)
    assert anna.keypoints.tolist() == json.loads((folder / "anna.json").read_text())["keypoints"]
    assert (anna.K, anna.joints, anna.vertices) == (None, None, None)
    assert ben.K is not None
    assert ben.K.tolist() == [[50, 0, 5.5], [0, 50, 5.5], [0, 0, 1]]
    assert ben.joints is not None
    assert ben.joints.tolist() == [[1, 1, 1]] * 24
    assert ben.vertices is not None
    assert ben.vertices.shape == (7, 3)


def test_says_what_is_read(folder: Path) -> None:
    source = Source.of(folder)
    assert "people" in source.kinds
    assert source.described("people") == f"{folder.name}: 2 people, 1 with the body in 3D"


def test_bodies_without_vertices(folder: Path) -> None:
    np.savez(folder / "anna.npz", joints=np.zeros((24, 3)))
    anna = read_people(folder)[0]
    assert anna.joints is not None
    assert anna.vertices is None


def test_palettes_are_labels_too(folder: Path) -> None:
    labels = Image.fromarray(np.full((SIDE, SIDE), 7, np.uint8), "L").convert("P")
    labels.save(folder / "anna_parsing.png")
    assert len(read_people(folder)) == 2


@pytest.mark.parametrize(
    ("notes", "match"),
    [
        ("{", r"anna\.json: not JSON"),
        ("[]", r"anna\.json: an object with keypoints is wanted"),
        ("{}", r"anna\.json: an object with keypoints is wanted"),
        ({"keypoints": [[0, 0, 1]] * 23}, r"anna\.json: keypoints must be 24 × 3 finite numbers, got \(23, 3\)"),
        ({"keypoints": [[0, 0, "?"]] * 24}, r"anna\.json: keypoints must be numbers"),
        ({"keypoints": [[0, 0]] * 23 + [[0]]}, r"anna\.json: keypoints must be numbers"),
        ({"keypoints": [[0, float("nan"), 1]] * 24}, r"keypoints must be 24 × 3 finite numbers"),
        ({"keypoints": [[0, 0, 2]] * 24}, r"anna\.json: the confidences of keypoints, .* must lie in \[0, 1\]"),
        ({"keypoints": [[0, 0, -1]] * 24}, r"confidences"),
        ({"keypoints": [[0, 0, 1]] * 24, "K": [[1, 0], [0, 1]]}, r"anna\.json: K must be 3 × 3 finite numbers"),
        ({"keypoints": [[0, 0, 1]] * 24, "K": np.zeros((3, 3)).tolist()}, r"anna\.json: K must have positive focal"),
        ({"keypoints": [[0, 0, 1]] * 24, "K": np.ones((3, 3)).tolist()}, r"a last row of 0, 0, 1"),
    ],
)
def test_notes_that_cannot_be(folder: Path, notes: Any, match: str) -> None:
    (folder / "anna.json").write_text(notes if isinstance(notes, str) else json.dumps(notes))
    with pytest.raises(DataError, match=match):
        read_people(folder)


def test_pictures_that_cannot_be(folder: Path) -> None:
    def saved(name: str, shape: tuple[int, ...], value: int = 0) -> None:
        Image.fromarray(np.full(shape, value, np.uint8)).save(folder / name)

    saved("anna_parsing.png", (SIDE, SIDE), 20)
    with pytest.raises(DataError, match=r"anna_parsing\.png: one byte a pixel is wanted, a label from 0 to 19"):
        read_people(folder)
    saved("anna_parsing.png", (SIDE, SIDE, 3))
    with pytest.raises(DataError, match=r"anna_parsing\.png: one byte a pixel is wanted"):
        read_people(folder)
    saved("anna_parsing.png", (SIDE, SIDE - 2))
    with pytest.raises(DataError, match=r"anna_parsing\.png: 10 × 12 pixels, and its picture has 12 × 12"):
        read_people(folder)
    saved("anna.png", (SIDE, SIDE - 2, 3))
    with pytest.raises(DataError, match=r"anna\.png: a square picture is wanted, got 10 × 12"):
        read_people(folder)
    (folder / "anna.png").write_text("none")
    with pytest.raises(DataError, match=r"anna\.png: not a picture that can be read"):
        read_people(folder)
    (folder / "anna_parsing.png").unlink()
    with pytest.raises(DataError, match=r"anna\.png: there is no anna_parsing\.png beside it"):
        read_people(folder)


def test_bodies_that_cannot_be(folder: Path) -> None:
    for arrays, match in (
        ({"points": np.zeros(3)}, r"ben\.npz: no array joints in it"),
        ({"joints": np.zeros((17, 3))}, r"ben\.npz: joints must be 24 × 3 finite numbers, got \(17, 3\)"),
        ({"joints": np.full((24, 3), np.inf)}, r"joints must be 24 × 3 finite"),
        ({"joints": np.zeros((24, 3)), "vertices": np.zeros((5, 2))}, r"ben\.npz: vertices must be 5 × 3 finite"),
    ):
        np.savez(folder / "ben.npz", **arrays)
        with pytest.raises(DataError, match=match):
            read_people(folder)
    (folder / "ben.npz").write_text("none")
    with pytest.raises(DataError, match=r"ben\.npz: not a \.npz of arrays"):
        read_people(folder)


def test_no_people(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no people in this folder; NAME\.png, NAME_parsing\.png and NAME\.json"):
        read_people(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_people(tmp_path / "none")
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match=r"a\.png: there is no a_parsing\.png beside it"):
        read_people(tmp_path)
