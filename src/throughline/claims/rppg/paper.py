"""PURE to train on and MMPD to test on, in the public layouts of both, read in parts."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.claims.rppg.data import Config, Domains, Video, span
from throughline.data import DataError
from throughline.sensing.pulse import heart_rate

__all__ = ["load"]

HELD_OUT = 0.2  # of every PURE video, from its end


def load(config: Config) -> Domains:
    """The same videos for every seed: PURE without its ends, these ends, and all of MMPD."""
    pure, mmpd = _folder(config.root, "root", "PURE"), _folder(config.test_root, "test_root", "MMPD")
    places = sorted(place for place in pure.glob("*-*") if place.is_dir())
    files = sorted(mmpd.glob("subject*/*.mat"))
    if not places:
        raise DataError(f"{pure}: no folders like 01-01 in it; give the folder of PURE with --set root=FOLDER")
    if not files:
        raise DataError(f"{mmpd}: no files like subject1/p1_0.mat in it; give that of MMPD with --set test_root=FOLDER")
    whole = [_pure(place, config) for place in places]
    short = next((video for video in whole if video.length < config.crop + config.frames), None)
    if short is not None:
        least = f"crop + frames = {config.crop + config.frames}"
        raise DataError(f"{pure}: {short.name} has {short.length} frames, and {least} are wanted")
    ends = [min(round(video.length * (1 - HELD_OUT)), video.length - config.frames) for video in whole]
    return Domains(
        train=[span(video, 0, max(end, config.crop)) for video, end in zip(whole, ends, strict=True)],
        same=[
            _rated(span(video, max(end, config.crop), video.length), config)
            for video, end in zip(whole, ends, strict=True)
        ],
        cross=[_mmpd(file, config) for file in files],
    )


def _pure(place: Path, config: Config) -> Video:
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

        return torch.stack([_small(np.array(Image.open(f).convert("RGB")), config) for f in images[start:stop]], 1)

    return _rated(Video(place.name, 0.0, pulse, len(images), read), config)


def _mmpd(file: Path, config: Config) -> Video:
    """A MATLAB file with ``video`` (T, H, W, 3) in [0, 1] and ``GT_ppg``."""
    content = _matlab(str(file), ("GT_ppg",))
    pulse = torch.from_numpy(np.asarray(content["GT_ppg"], np.float64).reshape(-1)).float()

    def read(start: int, stop: int) -> Tensor:
        video = _matlab(str(file), ("video",))["video"][start:stop]
        scale = 1 if video.dtype == np.uint8 else 255
        return torch.stack([_small(np.round(frame * scale).astype(np.uint8), config) for frame in video], 1)

    return _rated(Video(f"{file.parent.name}/{file.stem}", 0.0, pulse, len(pulse), read), config)


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


def _small(image: np.ndarray, config: Config) -> Tensor:
    """The box of a frame, averaged down to bytes: ``(3, size, size)``."""
    height, width = image.shape[:2]
    x, y, w, h = config.box
    part = image[round(y * height) : round((y + h) * height), round(x * width) : round((x + w) * width)]
    pixels = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1).float()
    return torch.nn.functional.adaptive_avg_pool2d(pixels, config.size).round().byte()


def _rated(video: Video, config: Config) -> Video:
    assert video.pulse is not None
    return video._replace(bpm=float(heart_rate(video.pulse, config.fs)))


def _folder(path: str, name: str, what: str) -> Path:
    if not path or not Path(path).is_dir():
        raise DataError(f"{name} must be the folder of {what}, got {path!r}; --set {name}=FOLDER")
    return Path(path)
