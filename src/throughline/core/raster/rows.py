"""Which pixels lie near which faces, as rows of pixels of a few widths: what every loop of this package runs over.

The pixels of a face's box are cut into rows, and rows of one width make a tile ``(width, rows)`` of (face, pixel)
pairs. Rows are last and contiguous: what a face does is constant along its row, so that it is gathered once a row and
broadcast, and what is affine in the pixel takes one multiply-add a pair. Rows are padded to the next of the widths, by
pixels that are farther from the face and count for as little as they are near.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Boxes", "Rows", "blocks", "boxes", "corner_numbers", "number_and_image", "rows", "tile_size"]

CACHED = 2**15  # pairs of a tile on a CPU, so that its arrays stay in the cache
SHORT = 4  # pairs, whose memory that of a row is at most
MARGIN = 2.0**-9  # pixels by which a box is widened against rounding


class Boxes(NamedTuple):
    """The pixels ``left`` … ``right`` of the lines ``top`` … ``bottom``, ``(n,)`` of each."""

    left: Tensor
    right: Tensor
    top: Tensor
    bottom: Tensor


class Rows(NamedTuple):
    """A tile of rows of pixels."""

    box: Tensor  # (rows,): the box that a row is of
    x: Tensor  # (rows,): the column of its first pixel
    y: Tensor  # (rows,): its line
    width: int

    def steps(self, like: Tensor) -> Tensor:
        """0, …, width - 1 down a column ``(width, 1)``, in the dtype of ``like``."""
        return torch.arange(self.width, dtype=like.dtype, device=like.device).unsqueeze(1)

    def pixels(self, first: Tensor, image_width: int) -> Tensor:
        """Where the pairs are in all images, ``(width · rows,)``; ``first`` is where the image of each box starts."""
        start = first.index_select(0, self.box) + torch.add(self.x, self.y, alpha=image_width)
        return (start + self.steps(start)).flatten()

    def select(self, chosen: Tensor) -> "Rows":
        """Some of the rows."""
        box, x, y = (values.index_select(0, chosen) for values in self[:3])
        return Rows(box, x, y, self.width)


def tile_size(max_pairs: int, device: torch.device) -> int:
    """How many pairs make a tile: a GPU is fastest with all that it may take, a CPU with what its cache holds."""
    return min(max_pairs, CACHED) if device.type == "cpu" else max_pairs


def blocks(images: int, faces: int, limit: int) -> Iterator[tuple[range, slice]]:
    """Images and faces in blocks of at most ``limit`` faces of all images together."""
    per_block = max(1, limit // max(faces, 1))
    for image in range(0, images, per_block):
        for face in range(0, faces, limit):
            yield range(image, min(image + per_block, images)), slice(face, min(face + limit, faces))


def corner_numbers(faces: Tensor, images: range, vertices: int) -> Tensor:
    """The vertices of faces ``(F, 3)`` among those of all images: ``(3, n)``, image by image."""
    offset = torch.arange(images.start * vertices, images.stop * vertices, vertices, device=faces.device)
    return (faces.mT.unsqueeze(1) + offset.unsqueeze(1)).flatten(1)


def number_and_image(chosen: Tensor, images: range, some: slice, faces: int) -> tuple[Tensor, Tensor]:
    """Which face, and of which image, the members of a block are that were chosen."""
    if len(images) == 1:
        return chosen + some.start, torch.full_like(chosen, images.start)
    image = chosen.div(faces, rounding_mode="floor")  # several images in a block have all of their faces there
    return chosen - image * faces, image + images.start


def boxes(low: Tensor, high: Tensor, drawn: Tensor | None, size: tuple[int, int], reach: float) -> tuple[Tensor, Boxes]:
    """The pixels within ``reach`` of rectangles, and which rectangles have any, ``(n,)``: a NaN has none.

    Args:
        low: least u and v of each rectangle, ``(2, N)``.
        high: largest ones.
        drawn: which may have pixels, ``(N,)``; all by default.
        size: of the image.
        reach: in pixels.
    """
    first = (low - (reach + MARGIN)).ceil_().clamp_(min=0)
    last = (high + (reach + MARGIN)).floor_()
    last[0].clamp_(max=size[1] - 1)
    last[1].clamp_(max=size[0] - 1)
    fits = (first[0] <= last[0]) & (first[1] <= last[1])
    chosen = (fits if drawn is None else fits & drawn).nonzero().squeeze(1)
    left, top = first.index_select(1, chosen).long()
    right, bottom = last.index_select(1, chosen).long()
    return chosen, Boxes(left, right, top, bottom)


def rows(found: Boxes, image_width: int, limit: int) -> Iterator[Rows]:
    """The rows of all boxes, in tiles of at most ``limit`` pairs, or of one row where that is longer."""
    widths = _widths(image_width)
    ladder = torch.tensor(widths, device=found.left.device)
    sizes = torch.arange(image_width + 1, device=found.left.device)
    kind = torch.bucketize(sizes, ladder).index_select(0, found.right - found.left + 1)
    present = torch.bincount(kind, minlength=len(widths)).tolist()
    for number, width in enumerate(widths):
        if not present[number]:
            continue
        members = (kind == number).nonzero().squeeze(1)
        left, top, bottom = (found[i].index_select(0, members) for i in (0, 2, 3))
        x = left.clamp_max(image_width - width)  # the row lies in the image
        heights = bottom - top + 1
        ends = heights.cumsum(0)
        begins = ends - heights
        table = torch.stack([members, x, top - begins])  # the last is the line of the box's row number 0
        total, step = int(ends[-1]), max(1, limit // max(width, SHORT))
        starts = torch.arange(0, total, step, device=ends.device)
        firsts = torch.searchsorted(ends, starts, right=True).tolist()
        lasts = torch.searchsorted(ends, (starts + (step - 1)).clamp_max_(total - 1), right=True).tolist()
        for start, one, other in zip(range(0, total, step), firsts, lasts, strict=True):
            stop, part = min(start + step, total), slice(one, other + 1)
            counts = ends[part].clamp_max(stop) - begins[part].clamp_min(start)
            local = torch.repeat_interleave(counts, output_size=stop - start) + one
            box, column, line = table.index_select(1, local)
            yield Rows(box, column, line.add_(torch.arange(start, stop, device=ends.device)), width)


def _widths(longest: int) -> list[int]:
    """The widths of rows: by at most a half more than a box needs, and never more than the image has."""
    widths = sorted({k * 2**n for k in (1, 3) for n in range(longest.bit_length())})
    return [width for width in widths if width < longest] + [longest]
