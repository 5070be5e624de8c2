"""Frames of a video file, one at a time; public in `throughline.sensing.pulse`."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.core.checks import integer
from throughline.sensing.pulse.checks import Rate, frame_rate

__all__ = ["read_video"]

Box = tuple[float, float, float, float]
SETTLE = 0.5  # seconds in which a smoothed box follows a detector's
KEPT = 0.95  # of the frames that a file promises: fewer, and it is cut off


def read_video(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = (72, 72),
    box: tuple[float, float, float, float] | Callable[[np.ndarray], Any] | None = None,
    fs: Rate | None = None,
) -> tuple[Tensor, float]:
    """Read the face of a video file: cut out, averaged down, with the frame rate that its time stamps give.

    Frames are read one at a time; no more than one is held at full size. The rotation that a phone notes is applied
    first. Every pixel of the result is the mean over its area.

    Args:
        path: of the file, in any format that FFmpeg reads; ``~`` is the home folder.
        size: height and width of the result, or one number for both.
        box: (x, y, width, height) in pixels of the upright frame, or a detector that is called with every frame
            (uint8, ``(H, W, 3)``, RGB) and returns such a box, or None where it finds no face. What reaches over the
            edge of the frame is cut off. Detected boxes are smoothed over half a second, since their jitter would look
            like a pulse; where none is found the last one stays, and frames ahead of the first are left out. By default
            the whole frame.
        fs: resample to this rate, linearly in time; a Fraction too. Give it for phones, whose frames are not evenly
            spaced.

    Returns:
        Frames ``(3, T, h, w)`` in [0, 1], single precision, and frames per second: ``fs``, or the mean rate of the
        time stamps.

    Raises:
        ImportError: PyAV is not installed (extra "video").
        FileNotFoundError: there is no such file.
        ValueError: no video, no video stream, a file that is cut off, fewer than two frames, a box that lies outside
            of the frame, no face found, or an argument out of range.
        TypeError: ``size`` or ``fs`` is no number.

    >>> import av, tempfile
    >>> from fractions import Fraction
    >>> name = tempfile.mkdtemp() + "/grey.mkv"
    >>> with av.open(name, "w") as file:
    ...     stream = file.add_stream("ffv1", rate=25)
    ...     stream.width, stream.height, stream.pix_fmt = 32, 24, "bgr0"
    ...     for _ in range(10):
    ...         grey = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 51, np.uint8), format="rgb24")
    ...         file.mux(stream.encode(grey))
    ...     file.mux(stream.encode())
    >>> frames, fs = read_video(name, size=(8, 8), box=(4, 4, 16, 16))
    >>> frames.shape, round(fs, 3), frames.unique()
    (torch.Size([3, 10, 8, 8]), 25.0, tensor([0.2000]))
    """
    height, width = size if isinstance(size, Sequence) and len(size) == 2 else (size, size)
    height, width = (integer("size", n, "one or two whole numbers of pixels") for n in (height, width))
    if min(height, width) < 1:
        raise ValueError(f"size must be one or two positive numbers of pixels, got {size}")
    fs = None if fs is None else frame_rate(fs)
    times: list[float] = []
    frames: list[Tensor] = []
    cut = _Cutter((height, width), box)
    for time, image in _decode(path):
        if times and time <= times[-1]:
            continue  # a time stamp that does not advance is a repeated frame
        small = cut(image, time)
        if small is not None:
            times.append(time)
            frames.append(small)
    if not frames and callable(box):
        raise ValueError(f"box: the detector found no face in any frame of {path}")
    if len(frames) < 2:
        raise ValueError(f"{path}: a video must have at least two frames, got {len(frames)}")
    video, stamps = torch.stack(frames, 1), np.array(times) - times[0]
    if fs is None:
        return video, (len(stamps) - 1) / float(stamps[-1])
    return _resample(video, stamps, fs), fs


class _Cutter:
    """Cuts a box out of every frame and averages it down; follows a detector."""

    def __init__(self, size: tuple[int, int], box: Any) -> None:
        self.size, self.box = size, box
        self.place: tuple[float, np.ndarray] | None = None  # when, and where the smoothed box was

    def __call__(self, image: np.ndarray, time: float) -> Tensor | None:
        height, width = image.shape[:2]
        box: Any = (0, 0, width, height) if self.box is None else self.box
        if callable(box):
            box = self.follow(box(image), time, width, height)
            if box is None:
                return None
        x, y, w, h = _clipped(box, width, height)
        left, top = math.floor(x), math.floor(y)
        part = image[top : math.ceil(y + h), left : math.ceil(x + w)]
        pixels = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1).float().div_(255)
        rows = _shares(y - top, h, self.size[0], part.shape[0])
        columns = _shares(x - left, w, self.size[1], part.shape[1])
        return rows @ pixels @ columns.mT

    def follow(self, found: Any, time: float, width: int, height: int) -> np.ndarray | None:
        if found is None:
            return None if self.place is None else self.place[1]
        new = np.array(_clipped(found, width, height), dtype=float)
        if self.place is not None:
            before, old = self.place
            new = old + (new - old) * -math.expm1((before - time) / SETTLE)
        self.place = (time, new)
        return new


def _clipped(box: Any, width: int, height: int) -> Box:
    """The part of a box that lies inside of the frame."""
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError):
        raise ValueError(f"box must be (x, y, width, height), got {box!r}") from None
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    if not (math.isfinite(x + y + w + h) and left < right and top < bottom):
        frame = f"the frame of {width} × {height} pixels"
        raise ValueError(f"box must be finite and reach into {frame}, got (x, y, width, height) = {tuple(box)}")
    return left, top, right - left, bottom - top


def _shares(start: float, length: float, cells: int, pixels: int) -> Tensor:
    """How much of every pixel lies in every cell, ``(cells, pixels)``, rows of sum one."""
    edges = start + torch.arange(cells + 1, dtype=torch.float64, device="cpu").unsqueeze(-1) * (length / cells)
    covered = (edges - torch.arange(pixels, dtype=torch.float64, device="cpu")).clamp(0, 1)
    return (covered.diff(dim=0) * (cells / length)).float()


def _resample(video: Tensor, stamps: np.ndarray, fs: float) -> Tensor:
    count = math.floor(stamps[-1] * fs + 1e-6) + 1
    wanted = np.minimum(np.arange(count) / fs, stamps[-1])
    after = np.searchsorted(stamps, wanted, side="left").clip(1)
    share = (wanted - stamps[after - 1]) / (stamps[after] - stamps[after - 1])
    weight = torch.from_numpy(share).to(video.dtype).view(-1, 1, 1)
    return torch.lerp(video[:, after - 1], video[:, after], weight)


def _decode(path: str | os.PathLike[str]) -> Iterator[tuple[float, np.ndarray]]:
    """Time stamps in seconds and upright RGB frames, ``(H, W, 3)``."""
    try:
        import av
    except ImportError:
        raise ImportError('read_video needs PyAV; pip install "throughline[video]"') from None
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not file.is_file():
        raise ValueError(f"{path}: not a file; give a video")
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: the file has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            count, seconds, frames = 0, 0.0, _presentable(container, stream)
            for frame in container.decode(stream):
                nominal = count / float(stream.average_rate or 30)
                seconds = nominal if frame.time is None else frame.time
                yield seconds, np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                count += 1
            if not count:
                raise ValueError(f"{path}: no frame can be read; the file is cut off or damaged")
            if count < KEPT * frames:
                raise ValueError(f"{path}: the file is cut off, {count} of its {frames} frames are there")
            # some containers count seconds, not frames; a sound track may be longer than the pictures
            promised = (container.duration or 0) / av.time_base if len(container.streams) == 1 else 0.0
            if not frames and seconds < KEPT * promised * (count - 1) / count:
                raise ValueError(f"{path}: the file is cut off, {seconds:.1f} of its {promised:.1f} seconds are there")
    except av.FFmpegError as error:
        raise ValueError(f"{path}: not a video that can be read, or it is damaged ({error.strerror})") from error


def _presentable(container: Any, stream: Any) -> int:
    """How many frames a file promises to show, 0 where it does not say: a cut without encoding anew leaves in samples
    that are never shown, and the index of MP4 and QuickTime files knows them.
    """
    index = getattr(stream, "index_entries", ()) if "mov" in container.format.name.split(",") else ()
    shown = sum(not entry.is_discard for entry in index)
    return min(shown or stream.frames, int(stream.frames))
