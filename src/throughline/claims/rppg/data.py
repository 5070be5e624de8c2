"""What the rppg claim trains and tests on: generated clips, the user's videos, PURE and MMPD."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughline.data import DataError, Source
from throughline.data.cache import kept
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.sensing.pulse import read_video, synthetic_pulse_video

__all__ = ["SHORTEST", "STRENGTHS", "Config", "Difficulty", "Domains", "Video", "check", "load", "span", "strengths"]

STRENGTHS = (0.0, 0.4, 0.8, 1.2)  # of motion and of light, one at a time, for the pictures
SHORTEST = 5.0  # seconds of a video: enough for a spectrum


@dataclass(frozen=True)
class Difficulty:
    """Of generated clips."""

    motion: float
    light: float
    melanin: tuple[float, float]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    dataset: Literal["synthetic", "pure-mmpd"] = "synthetic"  # unless data is given
    train: int = 80  # generated clips
    same: int = 24
    cross: int = 48
    curve: int = 12  # of each strength in the pictures
    easy: Difficulty = Difficulty(0.2, 0.15, (0.0, 0.4))
    hard: Difficulty = Difficulty(0.5, 0.8, (0.3, 0.9))
    frames: int = 192  # that are read at a time in evaluation; all of a generated clip
    crop: int = 96  # that are trained on at a time
    size: int = 16  # pixels on a side
    fs: float = 15.0
    channels: tuple[int, int, int] = (6, 12, 24)
    batch: int = 4
    steps: int = 300
    lr: float = 2e-3
    weight_decay: float = 0.0
    time_weight: tuple[float, float] = (1.0, 0.05)  # of the hybrid loss
    frequency_weight: tuple[float, float] = (0.01, 5.0)
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # of the face, in shares of the frame (x, y, w, h)
    test: float = 0.3  # share of the user's subjects, at least one
    root: str = ""  # of PURE: folders 01-01, 01-02, …
    test_root: str = ""  # of MMPD: folders subject1, subject2, …
    device: str = "cpu"
    data: Source | None = None


class Video(NamedTuple):
    """A video that is read in parts."""

    name: str
    bpm: float
    pulse: Tensor | None  # (T,)
    length: int
    read: Callable[[int, int], Tensor]  # (3, stop - start, size, size), bytes


class Domains(NamedTuple):
    """Videos to train on, held-out ones like them, and the others that the claim is about."""

    train: list[Video]
    same: list[Video]
    cross: list[Video]


def check(config: Config) -> None:
    """Read and validate what the units need, so that a fault is one line before anything runs."""
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ThroughlineError(f"device={config.device}: this machine has no GPU that torch can use; --set device=cpu")
    x, y, w, h = config.box
    if not (0 <= x < x + w <= 1 and 0 <= y < y + h <= 1):
        raise ThroughlineError(f"box must be x, y, width and height in shares of the frame, got {config.box}")
    if not 4 <= config.crop <= config.frames:
        raise ThroughlineError(f"crop must be at least 4 and at most frames={config.frames}, got {config.crop}")
    if config.frames < SHORTEST * config.fs:
        raise ThroughlineError(f"frames must last {SHORTEST:g} s at fs={config.fs:g}, got {config.frames}")
    load(config, 0)


def load(config: Config, seed: int) -> Domains:
    """The videos of a seed, alike in every arm."""
    if config.data is not None:
        return _own(config, seed)
    if config.dataset == "pure-mmpd":
        from throughline.claims.rppg import paper

        return paper.load(config)
    counts = {"train": config.train, "same": config.same, "cross": config.cross}
    return Domains(
        *(
            _generated(config, config.hard if part == "cross" else config.easy, count, 10 * seed + number)
            for number, (part, count) in enumerate(counts.items())
        )
    )


def strengths(config: Config, seed: int) -> dict[str, list[list[Video]]]:
    """Clips of growing motion in easy light, and of growing light on calm faces; generated ones alone."""
    if config.data is not None or config.dataset != "synthetic":
        return {}
    changes: dict[str, Callable[[float], Difficulty]] = {
        "motion": lambda s: replace(config.easy, motion=s),
        "light": lambda s: replace(config.easy, light=s),
    }
    return {
        name: [_generated(config, change(s), config.curve, 10 * seed + 3 + number) for s in STRENGTHS]
        for number, (name, change) in enumerate(changes.items())
    }


def _generated(config: Config, how: Difficulty, count: int, seed: int) -> list[Video]:
    sizes = {"frames": config.frames, "size": config.size, "fs": config.fs}

    def make() -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        made = synthetic_pulse_video(count, **sizes, **asdict(how), generator=draw)  # type: ignore[arg-type]
        return {**made, "frames": (made["frames"] * 255).round().byte()}

    found = kept("rppg", {"version": 2, "count": count, "seed": seed, **sizes, **asdict(how)}, make)
    return [
        Video(str(place), float(bpm), pulse, config.frames, partial(_part, frames))
        for place, (frames, pulse, bpm) in enumerate(zip(found["frames"], found["pulse"], found["bpm"], strict=True))
    ]


def _part(frames: Tensor, start: int, stop: int) -> Tensor:
    return frames[:, start:stop]


def _own(config: Config, seed: int) -> Domains:
    """Test videos are those of held-out subjects; of the others the last window is held out too."""
    assert config.data is not None
    require("av", extra="video")
    labelled = config.data.videos()
    subjects = sorted({video.subject for video in labelled})
    if len(subjects) < 2:
        raise DataError(f"{config.data.path}: videos of two subjects or more are wanted, got {len(subjects)}")
    order = np.random.default_rng(seed).permutation(len(subjects))
    held = {subjects[i] for i in order[: max(1, round(config.test * len(subjects)))]}
    train, same, cross = [], [], []
    for item in labelled:
        video = _decoded(config.data, str(item.path), config.size, config.fs, config.box)
        least = max(config.crop, math.ceil(SHORTEST * config.fs))
        if video.shape[1] < least:
            raise DataError(
                f"{item.path}: {video.shape[1]} frames at {config.fs:g} a second, and {least} or more are wanted "
                f"({SHORTEST:g} s, and crop={config.crop})"
            )
        pulse = None
        if item.pulse is not None:
            time = np.arange(video.shape[1]) / config.fs
            if item.pulse[0, 0] > time[-1] or item.pulse[0, -1] < time[-1] - 1:
                raise DataError(f"{item.path}.pulse.csv: its times must cover the video's {time[-1]:.1f} seconds")
            pulse = torch.from_numpy(np.interp(time, *item.pulse)).float()
        whole = Video(item.path.name, item.bpm, pulse, video.shape[1], partial(_part, video))
        if item.subject in held:
            cross.append(whole)
        elif whole.length >= config.crop + config.frames:
            train.append(span(whole, 0, whole.length - config.frames))
            same.append(span(whole, whole.length - config.frames, whole.length))
        else:
            train.append(whole)
    if not same:
        raise DataError(
            f"{config.data.path}: no training video is longer than crop + frames = {config.crop + config.frames} "
            f"frames at {config.fs:g} a second; its end would be held out. Give longer ones, or --set frames=…"
        )
    return Domains(train, same, cross)


def span(video: Video, start: int, stop: int) -> Video:
    """A part of a video, with the rate of that part where the waveform is known."""
    pulse = None if video.pulse is None else video.pulse[start:stop]

    def read(first: int, last: int) -> Tensor:
        return video.read(start + first, start + last)

    return Video(video.name, video.bpm, pulse, stop - start, read)


def _decoded(source: Source, path: str, size: int, fs: float, box: tuple[float, float, float, float]) -> Tensor:
    """A video as bytes, decoded once for all units."""

    def find(image: np.ndarray) -> tuple[float, ...]:
        height, width = image.shape[:2]
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    def make() -> dict[str, Tensor]:
        try:
            frames, _ = read_video(path, size=(size, size), box=find, fs=fs)
        except ValueError as error:
            raise DataError(str(error)) from error
        return {"frames": (frames * 255).round().byte()}

    key = {"data": source.digest, "video": Path(path).name, "size": size, "fs": fs, "box": box}
    return kept("rppg", key, make)["frames"]
