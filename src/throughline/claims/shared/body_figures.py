"""Pictures of bodies: the edge of a mask over an image, and a mesh painted with a value at each vertex."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

__all__ = ["outline", "paint"]


def outline(axis: "Axes", mask: np.ndarray, size: int, color: str, width: float) -> None:
    """The edge of a square mask of any resolution, over an image of ``size`` pixels."""
    if mask.any() and not mask.all():
        places = (np.arange(len(mask)) + 0.5) * size / len(mask) - 0.5
        axis.contour(places, places, mask.astype(float), levels=[0.5], colors=[color], linewidths=width)


def paint(axis: "Axes", vertices: np.ndarray, faces: np.ndarray, values: np.ndarray, high: float) -> "PolyCollection":
    """A mesh with z towards the reader, each face in the colour of its corners' mean value, from 0 to ``high``."""
    from matplotlib.collections import PolyCollection

    corners = vertices[faces]
    order = corners[..., 2].mean(1).argsort()  # from behind
    painted = PolyCollection(
        corners[order, :, :2], array=values[faces].mean(1)[order], cmap="magma", clim=(0, high), edgecolors="face"
    )
    axis.add_collection(painted)
    axis.autoscale_view()
    axis.set_aspect("equal")
    return painted
