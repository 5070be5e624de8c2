"""Small pictures to learn from: the user's or built-in ones, in grey, and of another size."""

from torch import Tensor
from torch.nn import functional as F

from throughline.data import Images, Source, digits, image_folder, mnist

__all__ = ["grey", "labelled_images", "resized"]

LUMA = (0.299, 0.587, 0.114)


def labelled_images(source: Source | None, dataset: str, size: int | None = None) -> Images:
    """The user's folder, ``size`` pixels on a side unless it says otherwise; without one "digits" or "mnist"."""
    if source is not None:
        return image_folder(source.path, size=source.size or size)
    return digits() if dataset == "digits" else mnist()


def grey(images: Tensor) -> Tensor:
    """The luma ``(..., 1, h, w)`` of colours ``(..., 3, h, w)``."""
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(-3, keepdim=True)


def resized(images: Tensor, side: int) -> Tensor:
    """Images ``(n, c, h, w)`` as squares, averaged where they are made smaller."""
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
