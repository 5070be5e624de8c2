"""Images with labels that others have made: scikit-learn's digits, MNIST, Omniglot."""

import gzip
import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data.download import DataError, fetch

__all__ = ["Images", "Omniglot", "digits", "mnist", "omniglot", "unit"]


class Images(NamedTuple):
    """Images of one size with a class each."""

    images: Tensor  # (n, c, h, w) float32 in [0, 1]
    labels: Tensor  # (n,) int64
    classes: tuple[str, ...]


class Omniglot(NamedTuple):
    """Handwritten characters: every drawer drew every character once."""

    images: Tensor  # (n, 1, 105, 105) float32, ink 1 on paper 0
    labels: Tensor  # (n,) int64, the character
    drawers: Tensor  # (n,) int64 in 0 … 19, the place of the drawing among the twenty of its character
    classes: tuple[str, ...]  # "Alphabet/character"


def digits() -> Images:
    """Return scikit-learn's 1,797 handwritten digits, 1 × 8 × 8; nothing is downloaded.

    >>> digits().images.shape
    torch.Size([1797, 1, 8, 8])
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.as_tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return Images(pixels, torch.as_tensor(bunch.target, dtype=torch.int64), tuple("0123456789"))


def mnist() -> Images:
    """Return the 10,000 images of MNIST's test half, 1 × 28 × 28."""
    pixels = _idx(fetch("mnist/t10k-images-idx3-ubyte.gz"), 3)
    labels = _idx(fetch("mnist/t10k-labels-idx1-ubyte.gz"), 1)
    return Images(unit(pixels[:, None]), torch.from_numpy(labels).long(), tuple("0123456789"))


def omniglot() -> Omniglot:
    """Return the union of Omniglot's two small background sets: 242 characters, 20 drawings each."""
    drawings: dict[tuple[str, int], NDArray[np.uint8]] = {}
    for key in ("omniglot/images_background_small1.zip", "omniglot/images_background_small2.zip"):
        drawings |= _drawings(fetch(key))  # the sets share two alphabets, Greek and Latin, drawing by drawing
    order = sorted(drawings)
    classes = tuple(dict.fromkeys(name for name, _ in order))
    index = {name: i for i, name in enumerate(classes)}
    images = torch.from_numpy(np.stack([drawings[place] for place in order])[:, None]).float()
    labels = torch.tensor([index[name] for name, _ in order])
    return Omniglot(images, labels, torch.tensor([drawer for _, drawer in order]), classes)


def unit(pixels: NDArray[np.uint8]) -> Tensor:
    """Bytes as float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)


def _idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        with gzip.open(file) as stream:
            header = struct.unpack(f">{1 + dimensions}I", stream.read(4 + 4 * dimensions))
            values = np.frombuffer(stream.read(), np.uint8)
        if header[0] != 0x0800 + dimensions:
            raise ValueError(f"magic number {header[0]:#x} instead of {0x0800 + dimensions:#x}")
        return values.reshape(header[1:]).copy()
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise _broken(file, error) from error


def _drawings(file: Path) -> dict[tuple[str, int], NDArray[np.uint8]]:
    from PIL import Image

    found: dict[tuple[str, int], NDArray[np.uint8]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                parts = re.fullmatch(r"[^/]+/([^/]+/[^/]+)/\d+_(\d\d)\.png", name)
                if parts:
                    with Image.open(io.BytesIO(archive.read(name))) as image:
                        found[parts[1], int(parts[2]) - 1] = 1 - np.asarray(image.convert("1"), np.uint8)
        for character in {name for name, _ in found}:
            if count := sum((character, drawer) not in found for drawer in range(20)):
                raise ValueError(f"{count} of the 20 drawings of {character} are not in it")
        if not found:
            raise ValueError("no drawings in it")
    except (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise _broken(file, error) from error
    return found


def _broken(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file}: truncated or not the archive it should be ({error}); delete it and run `throughline data fetch`"
    )
