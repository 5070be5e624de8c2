"""Folders of the user's own pictures, a folder for each class or without labels."""

import operator
import os
import re
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data.download import DataError
from throughline.data.images.sets import Images, unit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["describe_images", "image_files", "image_folder", "read_image"]

NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG"}  # formats that Pillow recognises and does not read
KNOWN = ".bmp, .jpg, .png, .tif, … as Pillow opens"
HEIC = {".heic", ".heif", ".hif"}


def image_folder(path: str | Path, *, size: int | tuple[int, int] | None = None) -> Images:
    """Read ``<path>/<class>/<image>`` as RGB; classes and images in natural order ("img2" before "img10").

    Files that Pillow opens, by their suffix, are images. Hidden and other files are left out, and so are images beside
    the class folders or in folders below them, which is warned about.

    Args:
        path: the folder of class folders.
        size: height and width, one number for a square: the largest centred part of that shape is cut out and resized.
            By default images are taken as they are, and must all have one size.

    Raises:
        DataError: no such folder, fewer than two classes, a class without images, an unreadable image or one in HEIC,
            or images of different sizes and no ``size``.
        ValueError: ``size`` is not positive.
    """
    root = Path(path).expanduser()
    shape = _shape(size)
    folders = _class_folders(root)
    files = [_image_files(folder) for folder in folders]
    loose, nested, _ = _left_out(root, folders, files)
    if loose or nested:
        warnings.warn(f"{root}: {_uncounted(loose, nested)}: put them into a class folder or elsewhere", stacklevel=2)
    pixels: NDArray[np.uint8] | None = None
    for row, file in enumerate(file for inside in files for file in inside):
        image = _read_image(file, shape)
        if pixels is None:
            pixels = np.empty((sum(map(len, files)), *image.shape), np.uint8)
        elif image.shape != pixels.shape[1:]:
            height, width = image.shape[:2]
            raise DataError(
                f"{file}: {height} × {width} pixels, the images before it have {pixels.shape[1]} × {pixels.shape[2]}; "
                "bring them to one size (--size)"
            )
        pixels[row] = image
    assert pixels is not None  # no class folder is empty
    labels = torch.repeat_interleave(torch.tensor([len(inside) for inside in files]))
    return Images(unit(pixels.transpose(0, 3, 1, 2)), labels, tuple(map(_name, folders)))


def describe_images(path: str | Path) -> str:
    """What `image_folder` reads of a folder, and what it leaves out, in one line; nothing is decoded."""
    root = Path(path).expanduser()
    folders = _class_folders(root)
    files = [_image_files(folder) for folder in folders]
    loose, nested, other = _left_out(root, folders, files)
    each = ", ".join(f"{_name(folder)} {len(inside):,}" for folder, inside in zip(folders[:6], files, strict=False))
    found = f"{sum(map(len, files)):,} images in {len(folders):,} classes ({each}{', …' * (len(folders) > 6)})"
    rest = [_uncounted(loose, nested)] if loose or nested else []
    rest += [f"{other:,} other file{'s' * (other != 1)} left out"] if other else []
    return "; ".join([f"{_name(root)}: {found}", *rest])


def image_files(path: str | Path) -> list[Path]:
    """Return all images below a folder in natural order, whatever its subfolders: pictures without labels.

    Raises:
        DataError: no such folder, no image in it, or one in HEIC.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one with images in it")
    shown = _images(_below(root))
    if not shown:
        raise DataError(f"{root}: no images ({KNOWN}) in it or below; add some or give another folder")
    return sorted(shown, key=lambda file: [_natural(Path(part)) for part in file.relative_to(root).parts])


def read_image(file: Path, size: int) -> Tensor:
    """Read an image as ``(3, size, size)`` in [0, 1]: the largest centred square, resized.

    Raises:
        DataError: it is not readable.
    """
    return unit(_read_image(file, (size, size)).transpose(2, 0, 1))


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.split(r"(\d+)", path.name)  # text and digits in turn
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in parts], path.name


def _name(folder: Path) -> str:
    return os.fsencode(folder.name).decode("utf-8", "backslashreplace")  # which can be printed


def _shape(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    try:
        shape = tuple(map(operator.index, size)) if isinstance(size, tuple | list) else (operator.index(size),) * 2
    except TypeError:
        shape = ()
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"size must be a positive number of pixels or (height, width), got {size}")
    return shape


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; an image folder holds one folder of images for each class")
    folders = sorted((f for f in root.iterdir() if f.is_dir() and not f.name.startswith(".")), key=_natural)
    if not folders:
        loose = len(_images(root.iterdir()))
        found = f" and {loose:,} image{'s' * (loose != 1)} of no class" if loose else ""
        raise DataError(
            f"{root}: no class folders{found} in it; put the images of each class into a folder named after it"
        )
    if len(folders) == 1:
        raise DataError(
            f"{root}: one class only ({_name(folders[0])}); put the images of each class into a folder of its own"
        )
    return folders


def _image_files(folder: Path) -> list[Path]:
    inside = [file for file in folder.iterdir() if not file.name.startswith(".")]
    images = sorted(_images(inside), key=_natural)
    if not images:
        cure = "it holds folders: is it the one to give?" if any(map(Path.is_dir, inside)) else "add some or remove it"
        raise DataError(f"{folder}: an empty class folder, no images ({KNOWN}) in it; {cure}")
    return images


def _images(files: Iterable[Path]) -> list[Path]:
    """Those of some files that Pillow opens, by their suffix."""
    from PIL import Image

    known = Image.registered_extensions()
    suffixes = {suffix for suffix, form in known.items() if form in Image.OPEN and form not in NO_PICTURES}
    shown = [file for file in files if not file.name.startswith(".") and file.is_file()]
    heic = [file for file in shown if file.suffix.lower() in HEIC - suffixes]
    if heic:
        raise DataError(
            f"{heic[0]}: a picture in HEIC, which Pillow does not open, and one of {len(heic):,}; convert them to JPEG"
        )
    return [file for file in shown if file.suffix.lower() in suffixes]


def _below(root: Path) -> list[Path]:
    return [f for f in root.rglob("*") if not any(part.startswith(".") for part in f.relative_to(root).parts)]


def _left_out(root: Path, folders: list[Path], files: list[list[Path]]) -> tuple[int, int, int]:
    """How many images lie beside the class folders, how many below them in others, and how many files are none."""
    every = [file for file in _below(root) if file.is_file()]
    images = _images(every)
    loose = sum(file.parent == root for file in images)
    return loose, len(images) - loose - sum(map(len, files)), len(every) - len(images)


def _uncounted(loose: int, nested: int) -> str:
    places = [f"{loose:,} beside the class folders"] if loose else []
    places += [f"{nested:,} in folders within them"] if nested else []
    return f"images left out, {' and '.join(places)}"


def _read_image(file: Path, shape: tuple[int, int] | None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # up to twice the limit is read
            with Image.open(file) as opened:
                image = _rgb(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DataError(f"{file}: more than {most:,} pixels; make the image smaller, or remove it") from error
    except (OSError, EOFError, ValueError, SyntaxError, struct.error) as error:
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
