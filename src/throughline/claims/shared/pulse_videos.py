"""Videos of faces with their pulse, read in parts: generated or a user's, and PURE and MMPD in their public layouts."""

import json
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.data import DataError, LabelledVideo
from throughline.data.cache import kept
from throughline.sensing.pulse import heart_rate, read_video, synthetic_pulse_video

__all__ = ["Framing", "Video", "decoded", "generated", "mmpd", "own", "pure", "rated", "span"]


class Framing(NamedTuple):
    """How frames are read."""

    size: int  # pixels on a side
    fs: float  # frames a second
    box: tuple[float, float, float, float]  # of the face, in shares of the frame (x, y, w, h)


class Video(NamedTuple):
    """A video that is read in parts."""

    name: str
    bpm: float
    pulse: Tensor | None  # (T,)
    length: int
    read: Callable[[int, int], Tensor]  # (3, stop - start, size, size), bytes


def span(video: Video, start: int, stop: int) -> Video:
    """A part of a video, with the rate of that part where the waveform is known."""
    pulse = None if video.pulse is None else video.pulse[start:stop]

    def read(first: int, last: int) -> Tensor:
        return video.read(start + first, start + last)

    return Video(video.name, video.bpm, pulse, stop - start, read)


def rated(video: Video, fs: float) -> Video:
    """The same with the rate of its waveform."""
    assert video.pulse is not None
    return video._replace(bpm=float(heart_rate(video.pulse, fs)))


def generated(count: int, *, frames: int, size: int, fs: float, seed: int, **scene: Any) -> list[Video]:
    """Clips by `synthetic_pulse_video`, whose other options are ``scene``; they are kept once they are made."""
    sizes = {"frames": frames, "size": size, "fs": fs}

    def make() -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        made = synthetic_pulse_video(count, **sizes, **scene, generator=draw)  # type: ignore[arg-type]
        return {**made, "frames": (made["frames"] * 255).round().byte()}

    found = kept("rppg", {"version": 2, "count": count, "seed": seed, **sizes, **scene}, make)
    return [
        Video(str(place), float(bpm), pulse, frames, partial(_part, clip))
        for place, (clip, pulse, bpm) in enumerate(zip(found["frames"], found["pulse"], found["bpm"], strict=True))
    ]


def own(item: LabelledVideo, frames: Tensor, fs: float) -> Video:
    """A user's video of these frames, with the measured waveform at their times."""
    pulse = None
    if item.pulse is not None:
        time = np.arange(frames.shape[1]) / fs
        if item.pulse[0, 0] > time[-1] or item.pulse[0, -1] < time[-1] - 1:
            raise DataError(f"{item.path}.pulse.csv: its times must cover the video's {time[-1]:.1f} seconds")
        pulse = torch.from_numpy(np.interp(time, *item.pulse)).float()
    return Video(item.path.name, item.bpm, pulse, frames.shape[1], partial(_part, frames))


def decoded(path: str, framing: Framing, digest: str) -> Tensor:
    """All frames of a file as bytes, ``(3, T, size, size)``, decoded once; ``digest`` is of the data that it is in."""
    size, fs, box = framing

    def find(image: np.ndarray) -> tuple[float, ...]:
        height, width = image.shape[:2]
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    def make() -> dict[str, Tensor]:
        try:
            frames, _ = read_video(path, size=(size, size), box=find, fs=fs)
        except ValueError as error:
            raise DataError(str(error)) from error
        return {"frames": (frames * 255).round().byte()}

    key = {"data": digest, "video": Path(path).name, "size": size, "fs": fs, "box": box}
    return kept("rppg", key, make)["frames"]


def pure(place: Path, framing: Framing) -> Video:
    """A folder of PNG files named by their time in nanoseconds, and a JSON file with the pulse and its times."""
    images = sorted(place.rglob("*.png"))
    note = next((f for f in (place / f"{place.name}.json", place.parent / f"{place.name}.json") if f.exists()), None)
    if note is None or len(images) < 2:
        raise DataError(f"{place}: PNG files and {place.name}.json are wanted")
    try:
        package = json.loads(note.read_text(encoding="utf-8"))["/FullPackage"]
        measured = np.array([(row["Timestamp"], row["Value"]["waveform"]) for row in package], np.float64).T
        times = np.array([int("".join(filter(str.isdigit, image.stem))) for image in images], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{note}: not the notes of a PURE video ({type(error).__name__}: {error})") from error
    pulse = torch.from_numpy(np.interp(times, *measured)).float()

    def read(start: int, stop: int) -> Tensor:
        from PIL import Image

        return torch.stack([_small(np.array(Image.open(f).convert("RGB")), framing) for f in images[start:stop]], 1)

    return rated(Video(place.name, 0.0, pulse, len(images), read), framing.fs)


def mmpd(file: Path, framing: Framing) -> Video:
    """A MATLAB file with ``video`` (T, H, W, 3) in [0, 1] and ``GT_ppg``."""
    content = _matlab(str(file), ("GT_ppg",))
    pulse = torch.from_numpy(np.asarray(content["GT_ppg"], np.float64).reshape(-1)).float()

    def read(start: int, stop: int) -> Tensor:
        video = _matlab(str(file), ("video",))["video"][start:stop]
        scale = 1 if video.dtype == np.uint8 else 255
        return torch.stack([_small(np.round(frame * scale).astype(np.uint8), framing) for frame in video], 1)

    return rated(Video(f"{file.parent.name}/{file.stem}", 0.0, pulse, len(pulse), read), framing.fs)


def _part(frames: Tensor, start: int, stop: int) -> Tensor:
    return frames[:, start:stop]


@lru_cache(1)
def _matlab(file: str, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(file, variable_names=names)
    except (NotImplementedError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{file}: cannot be read as a MATLAB file up to version 7 ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{file}: no variable {missing[0]} in it; is it of MMPD?")
    return content


def _small(image: np.ndarray, framing: Framing) -> Tensor:
    """The box of a frame, averaged down to bytes: ``(3, size, size)``."""
    height, width = image.shape[:2]
    x, y, w, h = framing.box
    part = image[round(y * height) : round((y + h) * height), round(x * width) : round((x + w) * width)]
    pixels = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, framing.size).round().byte()
