"""Pictures of the mocap claim, from stored results."""

from typing import TYPE_CHECKING, Any

import numpy as np

from throughline.lab import Results
from throughline.lab.plots import BASELINE, arm_color, bare, first_kept, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["overlaps", "skeletons"]

Kept = dict[str, np.ndarray]
BONE = "#d6477f"  # of the baseline, whose grey is the truth's here
LAYERS = ((47, 127, 214), (224, 105, 47), (42, 157, 98))  # of the mask alone, the body alone, both


def skeletons(results: Results) -> "Figure | None":
    """First and last frame of the first clip, in the image and from the side, by every arm."""
    found = first_kept(results, "joints")
    if found is None:
        return None
    kept = found[1]
    some = next(iter(kept.values()))
    frames = [0, len(some["joints"]) - 1]
    views = [(frame, view) for frame in frames for view in (_front, _side)]
    figure, axes = subplots(len(views), len(kept), size=(2.3 * len(kept) + 0.6, 2.1 * len(views)), squeeze=False)
    for column, (arm, arrays) in enumerate(kept.items()):
        color = arm_color(results, arm)
        for row, (frame, view) in enumerate(views):
            axis = axes[row, column]
            view(axis, arrays, frame, BONE if color == BASELINE else color)
            axis.set_aspect("equal")
            bare(axis)
            if column == 0:
                axis.set_ylabel(f"frame {frame + 1}, {'image' if view is _front else 'side'}")
        axes[0, column].set_title(arm.replace("_", " "))
    return figure


def overlaps(results: Results) -> "Figure | None":
    """The observed mask and the predicted body in a few frames of the first clip, by every arm."""
    found = first_kept(results, "mask")
    if found is None:
        return None
    kept = found[1]
    some = next(iter(kept.values()))
    frames = np.unique(np.linspace(0, len(some["mask"]) - 1, 4).round().astype(int))
    figure, axes = subplots(len(kept), len(frames), size=(1.7 * len(frames) + 0.8, 1.75 * len(kept)), squeeze=False)
    for row, (arm, arrays) in enumerate(kept.items()):
        for column, frame in enumerate(frames):
            axis, mask, body = axes[row, column], arrays["mask"][frame] > 0, arrays["covered"][frame] > 0
            picture = np.zeros((*mask.shape, 4), np.uint8)
            for layer, color in zip((mask & ~body, body & ~mask, mask & body), LAYERS, strict=True):
                picture[layer] = (*color, 255)
            axis.imshow(picture, interpolation="nearest")
            bare(axis)
            share = (mask & body).sum() / max((mask | body).sum(), 1)
            axis.set_xlabel(f"{share:.2f}")
            if column == 0:
                axis.set_ylabel(arm.replace("_", " "))
    for column, frame in enumerate(frames):
        axes[0, column].set_title(f"frame {frame + 1}")
    return figure


def _front(axis: "Axes", arrays: Kept, frame: int, color: str) -> None:
    """In pixels, over the keypoints."""
    axis.plot(*arrays["keypoints"][frame].T, "o", color=BASELINE, markersize=2.5)
    _bones(axis, arrays["pixels"][frame], arrays["parents"], color=color)
    axis.invert_yaxis()


def _side(axis: "Axes", arrays: Kept, frame: int, color: str) -> None:
    """Depth to the right and height up, in metres, both bodies from their pelvis."""
    for name, shade in (("truth", BASELINE), ("joints", color)):
        if name in arrays:
            joints = arrays[name][frame] - arrays[name][frame, 0]
            _bones(axis, np.stack((joints[:, 2], -joints[:, 1]), 1), arrays["parents"], color=shade)


def _bones(axis: "Axes", points: np.ndarray, parents: np.ndarray, **style: Any) -> None:
    for joint, parent in enumerate(parents):
        if parent >= 0:
            axis.plot(*points[[joint, parent]].T, linewidth=1.4, solid_capstyle="round", **style)
