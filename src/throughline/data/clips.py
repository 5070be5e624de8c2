"""A folder of clips of people as detectors see them: keypoints, and flow, masks and truth where there are any."""

import math
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError

__all__ = ["DetectedClip", "read_clips"]

FILES = ".npz"
LEAST = 1e-6  # of a focal length in pixels


class DetectedClip(NamedTuple):
    """T frames of one person and the K joints that were looked for in them."""

    name: str  # of the file in its folder, without suffix
    keypoints: NDArray[np.float32]  # (T, K, 2), pixels, whose centres are integers; 0 where nothing was found
    confidence: NDArray[np.float32]  # (T, K), 0 where nothing was found
    intrinsics: NDArray[np.float64]  # (3, 3)
    size: tuple[int, int]  # of the images, height and width
    flow: NDArray[np.float32] | None  # (T - 1, H, W, 2), pixels, from each frame to the next
    mask: NDArray[np.bool_] | None  # (T, H, W), the person
    joints3d: NDArray[np.float32] | None  # (T, K, 3), the truth, in metres in the camera's axes


def read_clips(folder: str | os.PathLike[str]) -> list[DetectedClip]:
    """Read every ``.npz`` in and below a folder, in the order of their names.

    Each holds ``keypoints`` ``(T, K, 2)``, and as far as known ``confidence`` ``(T, K)``, ``K`` ``(3, 3)``, the
    camera's matrix, ``size``, height and width, ``flow`` ``(T - 1, H, W, 2)``, ``mask`` ``(T, H, W)`` and ``joints3d``
    ``(T, K, 3)``. The size is that of mask or flow, or twice as far as the principal point, where it is not given;
    without ``K`` the focal length is the diagonal of the image and the principal point its centre. Keypoints that are
    not finite are taken as not found.

    Raises:
        DataError: there is no such file, or one that is unreadable, lacks what is needed or contradicts itself; names
            the file.
    """
    place = Path(folder).expanduser()
    files = sorted(
        file
        for file in place.rglob(f"*{FILES}")
        if not any(part.startswith(".") for part in file.relative_to(place).parts)
    )
    if not files:
        raise DataError(f"{place}: no {FILES} in this folder; give one with a file for each clip")
    return [_clip(file, file.relative_to(place).with_suffix("").as_posix()) for file in files]


def _clip(file: Path, name: str) -> DetectedClip:
    found = _arrays(file)
    if "keypoints" not in found:
        raise DataError(f"{file}: no array 'keypoints', got {', '.join(sorted(found)) or 'none'}")
    keypoints = _numbers(file, "keypoints", found["keypoints"])
    if keypoints.ndim != 3 or keypoints.shape[2] != 2 or 0 in keypoints.shape:
        raise DataError(f"{file}: keypoints must be (frames, joints, 2), got shape {keypoints.shape}")
    frames, joints = keypoints.shape[:2]
    seen = np.isfinite(keypoints[..., 0]) & np.isfinite(keypoints[..., 1])
    confidence = _shaped(file, "confidence", found, (frames, joints))
    confidence = np.ones((frames, joints), np.float32) if confidence is None else np.nan_to_num(confidence)
    if (confidence < 0).any():
        raise DataError(f"{file}: confidence must not be negative, got {confidence.min():g}")
    confidence = np.where(seen, confidence, 0).astype(np.float32)
    size = _size(file, found)
    flow = _shaped(file, "flow", found, (frames - 1, *size, 2))
    mask = _shaped(file, "mask", found, (frames, *size))
    for what, array in {"flow": flow, "mask": mask}.items():
        if array is not None and not np.isfinite(array).all():
            raise DataError(f"{file}: {what} holds values that are not finite")
    truth = _shaped(file, "joints3d", found, (frames, joints, 3))
    return DetectedClip(
        name,
        np.where(seen[..., None], keypoints, 0).astype(np.float32),
        confidence,
        _intrinsics(file, found, size),
        size,
        flow,
        None if mask is None else np.greater(mask, 0.5),
        truth,
    )


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as content:
            return {name: np.asarray(content[name]) for name in content.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: not a readable .npz of plain arrays ({error})") from None


def _numbers(file: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{file}: {name} must be numbers, got {array.dtype}")
    return array.astype(np.float32)


def _shaped(
    file: Path, name: str, found: dict[str, NDArray[Any]], shape: tuple[int, ...]
) -> NDArray[np.float32] | None:
    if name not in found:
        return None
    if found[name].shape != shape:
        raise DataError(f"{file}: {name} must be {shape}, to go with the other arrays, got shape {found[name].shape}")
    return _numbers(file, name, found[name])


def _size(file: Path, found: dict[str, NDArray[Any]]) -> tuple[int, int]:
    if "size" in found:
        height, width = _shaped(file, "size", found, (2,))  # type: ignore[misc]
    elif "mask" in found:
        height, width = (*found["mask"].shape, 0, 0, 0)[1:3]
    elif "flow" in found:
        height, width = (*found["flow"].shape, 0, 0, 0)[1:3]
    elif "K" in found:
        intrinsics = _shaped(file, "K", found, (3, 3))
        assert intrinsics is not None
        width, height = (2 * intrinsics[:2, 2] + 1).round()
    else:
        raise DataError(f"{file}: neither K, size, mask nor flow in it; one of them must tell how large the images are")
    if not (1 <= height < math.inf and 1 <= width < math.inf):
        raise DataError(f"{file}: images must have a pixel or more, got a size of {height:g} x {width:g}")
    return int(height), int(width)


def _intrinsics(file: Path, found: dict[str, NDArray[Any]], size: tuple[int, int]) -> NDArray[np.float64]:
    height, width = size
    if "K" not in found:
        focal = math.hypot(height, width)
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float64)
    _shaped(file, "K", found, (3, 3))
    intrinsics = found["K"].astype(np.float64)
    if not np.isfinite(intrinsics).all() or min(intrinsics[0, 0], intrinsics[1, 1]) < LEAST:
        raise DataError(f"{file}: K must be finite with positive focal lengths, got {intrinsics.tolist()}")
    if not np.array_equal(intrinsics[2], [0, 0, 1]):
        raise DataError(f"{file}: the last row of K must be 0, 0, 1, got {intrinsics[2].tolist()}")
    return intrinsics
