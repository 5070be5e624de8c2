"""Folders of images of different sizes, as squares of one."""

from pathlib import Path

from throughline.data import Images, image_folder

__all__ = ["square_images"]


def square_images(path: str, largest: int) -> Images:
    """`image_folder` with images cut and resized to one square: the largest that each holds, at most ``largest``.

    No image is enlarged.
    """
    return image_folder(path, size=_common_side(Path(path), largest))


def _common_side(root: Path, largest: int) -> int:
    from PIL import Image

    sides = []
    for file in root.glob("*/*"):
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except OSError:  # not an image, or a broken one: `image_folder` skips the former and names the latter
            continue
    return min([largest, *sides])
