"""What the rppg claim trains and tests on by default or for its user: generated clips, or own videos."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np

from throughline.claims.rppg.config import Config, Difficulty
from throughline.claims.shared.pulse_videos import Framing, Video, decoded, generated, own, span
from throughline.data import DataError
from throughline.errors import ThroughlineError
from throughline.lab import require

__all__ = ["STRENGTHS", "Domains", "check", "framing", "load", "strengths"]

STRENGTHS = (0.0, 0.4, 0.8, 1.2)  # of motion and of light, one at a time, for the pictures
SHORTEST = 5.0  # seconds of a video: enough for a spectrum


class Domains(NamedTuple):
    """Videos to train on, held-out ones like them, and the others that the claim is about."""

    train: list[Video]
    same: list[Video]
    cross: list[Video]


def check(config: Config) -> None:
    """Refuse settings that do not go together."""
    x, y, w, h = config.box
    if not (0 <= x < x + w <= 1 and 0 <= y < y + h <= 1):
        raise ThroughlineError(f"box must be x, y, width and height in shares of the frame, got {config.box}")
    if config.crop > config.frames:
        raise ThroughlineError(f"crop must be at most frames={config.frames}, got {config.crop}")
    for name in ("easy", "hard"):
        low, high = getattr(config, name).melanin
        if low > high:
            raise ThroughlineError(f"{name}: melanin must be the least and the most, got {low:g} and {high:g}")
    if config.frames < SHORTEST * config.fs:
        raise ThroughlineError(f"frames must last {SHORTEST:g} s at fs={config.fs:g}, got {config.frames}")


def load(config: Config, seed: int) -> Domains:
    """The user's videos, or generated ones."""
    if config.data is not None:
        return _own(config, seed)
    counts = {"train": config.train, "same": config.same, "cross": config.cross}
    return Domains(
        *(
            _generated(config, config.hard if part == "cross" else config.easy, count, 10 * seed + number)
            for number, (part, count) in enumerate(counts.items())
        )
    )


def framing(config: Config) -> Framing:
    """How frames are read."""
    return Framing(config.size, config.fs, config.box)


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
    return generated(count, frames=config.frames, size=config.size, fs=config.fs, seed=seed, **asdict(how))


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
        frames = decoded(str(item.path), framing(config), config.data.digest)
        least = max(config.crop, math.ceil(SHORTEST * config.fs))
        if frames.shape[1] < least:
            raise DataError(
                f"{item.path}: {frames.shape[1]} frames at {config.fs:g} a second, and {least} or more are wanted "
                f"({SHORTEST:g} s, and crop={config.crop})"
            )
        whole = own(item, frames, config.fs)
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
