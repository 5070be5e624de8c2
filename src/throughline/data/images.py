"""Images with labels: scikit-learn's digits, MNIST, Omniglot, and folders of the user's own pictures."""

import gzip
import io
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data.download import DataError, fetch

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Images", "Omniglot", "digits", "image_files", "image_folder", "mnist", "omniglot", "read_image"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


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
    return Images(_unit(pixels[:, None]), torch.from_numpy(labels).long(), tuple("0123456789"))


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


def image_folder(path: str | Path, *, size: int | tuple[int, int] | None = None) -> Images:
    """Read ``<path>/<class>/<image>`` as RGB; classes and images in natural order ("img2" before "img10").

    Hidden files and files that are not images by their suffix are left out.

    Args:
        path: the folder of class folders.
        size: height and width, one number for a square: the largest centred part of that shape is cut out and resized.
            By default images are taken as they are, and must all have one size.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, an unreadable image, or images of
            different sizes and no ``size``.
        ValueError: ``size`` is not positive.
    """
    root = Path(path).expanduser()
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"size must be a positive number of pixels or (height, width), got {size}")
    folders = _class_folders(root)
    files = [_image_files(folder) for folder in folders]
    pixels: NDArray[np.uint8] | None = None
    for row, file in enumerate(file for inside in files for file in inside):
        image = _read_image(file, shape)
        if pixels is None:
            pixels = np.empty((sum(map(len, files)), *image.shape), np.uint8)
        elif image.shape != pixels.shape[1:]:
            height, width = image.shape[:2]
            raise DataError(
                f"{file}: {height} × {width} pixels, the images before it have {pixels.shape[1]} × {pixels.shape[2]}; "
                "bring them to one size with size="
            )
        pixels[row] = image
    assert pixels is not None  # no class folder is empty
    labels = torch.repeat_interleave(torch.tensor([len(inside) for inside in files]))
    return Images(_unit(pixels.transpose(0, 3, 1, 2)), labels, tuple(folder.name for folder in folders))


def image_files(path: str | Path) -> list[Path]:
    """Return all images below a folder in natural order, whatever its subfolders: pictures without labels.

    Raises:
        DataError: no such folder, or no image in it.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one with images in it")
    inside = (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    shown = [f for f in inside if not any(part.startswith(".") for part in f.relative_to(root).parts)]
    if not shown:
        raise DataError(f"{root}: no images ({', '.join(SUFFIXES)}) in it or below; add some or give another folder")
    return sorted(shown, key=lambda file: [_natural(Path(part)) for part in file.relative_to(root).parts])


def read_image(file: Path, size: int) -> Tensor:
    """Read an image as ``(3, size, size)`` in [0, 1]: the largest centred square, resized.

    Raises:
        DataError: it is not readable.
    """
    return _unit(_read_image(file, (size, size)).transpose(2, 0, 1))


def _unit(pixels: NDArray[np.uint8]) -> Tensor:
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


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in parts], path.name


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; an image folder holds one folder of images for each class")
    folders = sorted((f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")), key=_natural)
    if not folders:
        raise DataError(f"{root}: no class folders in it; put the images of each class into a folder named after it")
    if len(folders) == 1:
        raise DataError(
            f"{root}: one class only ({folders[0].name}); put the images of each class into a folder of its own"
        )
    return folders


def _image_files(folder: Path) -> list[Path]:
    inside = [file for file in folder.iterdir() if not file.name.startswith(".")]
    images = sorted((file for file in inside if file.suffix.lower() in SUFFIXES and file.is_file()), key=_natural)
    if not images:
        cure = "it holds folders: is it the one to give?" if any(map(Path.is_dir, inside)) else "add some or remove it"
        raise DataError(f"{folder}: an empty class folder, no images ({', '.join(SUFFIXES)}) in it; {cure}")
    return images


def _read_image(file: Path, shape: tuple[int, int] | None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = _rgb(ImageOps.exif_transpose(opened))
    except (OSError, EOFError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image ({error}); replace or remove it") from error
    if shape is not None:
        image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _rgb(image: "Image") -> "Image":
    from PIL import Image as pillow

    if image.mode == "F":
        raise ValueError("its pixels are floating point, and their range is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which a plain conversion would clip at 255
        return pillow.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
