"""A folder of pictures of single people, each with a parsing, keypoints and, where it is known, the body in 3D."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError

__all__ = ["Person", "read_people"]

SUFFIX = "_parsing"
JOINTS, LABELS = 24, 20


class Person(NamedTuple):
    """A square picture of one person.

    Args:
        name: of the files, without a suffix.
        image: the picture.
        parsing: a picture of the same size, one byte a pixel, labels of human parsing.
        keypoints: ``(24, 3)``, u, v and a confidence in [0, 1]; pixel centres are whole numbers.
        K: ``(3, 3)``, the camera of the picture, or None.
        joints: ``(24, 3)`` in metres, y down, or None.
        vertices: ``(V, 3)`` likewise, or None.
    """

    name: str
    image: Path
    parsing: Path
    keypoints: NDArray[np.float64]
    K: NDArray[np.float64] | None
    joints: NDArray[np.float64] | None
    vertices: NDArray[np.float64] | None


def read_people(folder: str | Path) -> list[Person]:
    """Read ``NAME.png``, ``NAME_parsing.png`` (0 to 19), ``NAME.json`` and, where there is one, ``NAME.npz``.

    The JSON file has ``keypoints``, 24 of (u, v, confidence) in SMPL's order, and may have ``K``; the ``.npz`` has
    ``joints`` and may have ``vertices``. Other files are left out.

    Raises:
        DataError: no people; a picture that is not square, or whose parsing is missing, of another size or has other
            labels; keypoints, camera or bodies that cannot be ones. Names the file.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise DataError(
            f"{place}: no such folder; give one with NAME.png, NAME_parsing.png and NAME.json for each person"
        )
    images = sorted(f for f in place.glob("*.png") if not f.stem.endswith(SUFFIX) and f.name[0] != ".")
    if not images:
        raise DataError(
            f"{place}: no people in this folder; NAME.png, NAME_parsing.png and NAME.json are wanted for each"
        )
    return [_person(image) for image in images]


def _person(image: Path) -> Person:
    parsing, notes, bodies = (image.with_name(image.stem + end) for end in (f"{SUFFIX}.png", ".json", ".npz"))
    for file in (parsing, notes):
        if not file.is_file():
            raise DataError(f"{image}: there is no {file.name} beside it")
    _check_pictures(image, parsing)
    try:
        content = json.loads(notes.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{notes}: not JSON ({error})") from error
    if not isinstance(content, dict) or "keypoints" not in content:
        raise DataError(f"{notes}: an object with keypoints is wanted")
    keypoints = _numbers(notes, "keypoints", content["keypoints"], (JOINTS, 3))
    if not ((keypoints[:, 2] >= 0) & (keypoints[:, 2] <= 1)).all():
        raise DataError(f"{notes}: the confidences of keypoints, third of each, must lie in [0, 1]")
    K = _numbers(notes, "K", content["K"], (3, 3)) if content.get("K") is not None else None
    if K is not None and not (K[0, 0] > 0 and K[1, 1] > 0 and np.allclose(K[2], (0, 0, 1))):
        raise DataError(f"{notes}: K must have positive focal lengths and a last row of 0, 0, 1")
    return Person(image.stem, image, parsing, keypoints, K, *_bodies(bodies))


def _bodies(file: Path) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    if not file.is_file():
        return None, None
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, AttributeError, BadZipFile) as error:
        raise DataError(f"{file}: not a .npz of arrays ({error})") from error
    if "joints" not in arrays:
        raise DataError(f"{file}: no array joints in it")
    vertices = arrays.get("vertices")
    return (
        _numbers(file, "joints", arrays["joints"], (JOINTS, 3)),
        None if vertices is None else _numbers(file, "vertices", vertices, (len(np.atleast_1d(vertices)), 3)),
    )


def _check_pictures(image: Path, parsing: Path) -> None:
    from PIL import Image, UnidentifiedImageError

    sizes = []
    for file in (image, parsing):
        try:
            with Image.open(file) as picture:
                sizes.append(picture.size)
                if file is parsing:
                    labels = np.array(picture)
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{file}: not a picture that can be read ({error})") from error
    if sizes[0][0] != sizes[0][1]:
        raise DataError(f"{image}: a square picture is wanted, got {sizes[0][0]} × {sizes[0][1]}")
    if sizes[1] != sizes[0]:
        raise DataError(
            f"{parsing}: {sizes[1][0]} × {sizes[1][1]} pixels, and its picture has {sizes[0][0]} × {sizes[0][1]}"
        )
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.max() >= LABELS:
        raise DataError(f"{parsing}: one byte a pixel is wanted, a label from 0 to {LABELS - 1}")


def _numbers(file: Path, name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{file}: {name} must be numbers") from None
    if array.shape != shape or not np.isfinite(array).all():
        raise DataError(f"{file}: {name} must be {' × '.join(map(str, shape))} finite numbers, got {array.shape}")
    return array
