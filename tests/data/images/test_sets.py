"""Sets that others have made: known pixels and counts, and archives cut short."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from throughline.data import DataError, digits, mnist, omniglot

MNIST = "mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"
OMNIGLOT = "omniglot/images_background_small1.zip", "omniglot/images_background_small2.zip"


def test_digits_are_those_of_scikit_learn() -> None:
    data = digits()
    np.testing.assert_array_equal(data.images[:, 0].numpy() * 16, load_digits().images)
    np.testing.assert_array_equal(data.labels, load_digits().target)
    assert data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert data.classes == tuple("0123456789")
    data.images.zero_()
    assert digits().images.any()  # nothing is shared between calls


def test_mnist() -> None:
    data = mnist()
    assert data.images.shape == (10_000, 1, 28, 28)
    assert data.images.dtype == torch.float32
    assert data.images.min() == 0
    assert data.images.max() == 1
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # the well-known first digits
    assert torch.bincount(data.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_omniglot() -> None:
    data = omniglot()
    assert data.images.shape == (4840, 1, 105, 105)
    assert data.images.dtype == torch.float32
    assert ((data.images == 0) | (data.images == 1)).all()
    assert 0.02 < data.images.mean() < 0.2  # ink is rare
    assert len(data.classes) == len(set(data.classes)) == 242
    assert list(data.classes) == sorted(data.classes)
    assert data.classes[0] == "Balinese/character01"
    table = torch.zeros(242, 20)
    table[data.labels, data.drawers] += 1
    assert (table == 1).all()


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    return gzip.compress(header + values.astype(np.uint8).tobytes())


def test_idx_files_are_read_to_the_last_byte(register) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 2))
    register(MNIST[0], idx(pixels))
    register(MNIST[1], idx(np.arange(5)))
    np.testing.assert_allclose(mnist().images[:, 0], pixels / 255, rtol=1e-6)
    assert mnist().labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("defect", ["cut", "short", "magic", "not gzip", "empty"])
def test_a_broken_idx_file_is_named(register, mirror: Path, defect: str) -> None:
    whole = idx(np.random.default_rng(0).integers(0, 256, (50, 9, 9)))
    content = {
        "cut": whole[:-100],
        "short": gzip.compress(gzip.decompress(whole)[:-1]),
        "magic": gzip.compress(b"\0\0\x08\x01" + gzip.decompress(whole)[4:]),
        "not gzip": b"<html>",
        "empty": b"",
    }[defect]
    register(MNIST[0], content)
    register(MNIST[1], idx(np.arange(50)))
    with pytest.raises(DataError, match="truncated or not the archive it should be") as caught:
        mnist()
    assert str(caught.value).startswith(str(mirror / MNIST[0]))


def drawings(alphabets: dict[str, int], count: int = 20) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                for drawer in reversed(range(count)):
                    picture = io.BytesIO()
                    image = Image.new("1", (105, 105), 1)
                    image.putpixel((drawer, character), 0)
                    image.save(picture, "png")
                    archive.writestr(
                        f"set/{alphabet}/character{character:02}/0001_{drawer + 1:02}.png", picture.getvalue()
                    )
    return stream.getvalue()


def test_omniglot_drawings_get_their_places(register) -> None:
    register(OMNIGLOT[0], drawings({"Greek": 2}))
    register(OMNIGLOT[1], drawings({"Greek": 2, "Aramaic": 1}))
    data = omniglot()
    assert data.classes == ("Aramaic/character01", "Greek/character01", "Greek/character02")
    assert data.images.sum() == len(data.images) == 60
    for image, label, drawer in zip(data.images, data.labels, data.drawers, strict=True):
        row = 2 if label == 2 else 1
        assert image[0, row, drawer] == 1  # the pixel that the drawing has in ink


@pytest.mark.parametrize("defect", ["cut", "a drawing missing", "nothing in it"])
def test_a_broken_omniglot_archive_is_named(register, mirror: Path, defect: str) -> None:
    whole = drawings({"Greek": 1})
    content = {"cut": whole[:-300], "a drawing missing": drawings({"Greek": 1}, 19), "nothing in it": drawings({})}[
        defect
    ]
    register(OMNIGLOT[0], content)
    register(OMNIGLOT[1], whole)
    with pytest.raises(DataError, match="truncated or not the archive it should be") as caught:
        omniglot()
    assert str(caught.value).startswith(str(mirror / OMNIGLOT[0]))
