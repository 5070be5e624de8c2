"""PURE to train on and MMPD to test on."""

from pathlib import Path

from throughline.claims.rppg.config import Config
from throughline.claims.rppg.data import Domains, framing
from throughline.claims.shared.pulse_videos import mmpd, pure, rated, span
from throughline.data import DataError

__all__ = ["load"]

HELD_OUT = 0.2  # of every PURE video, from its end


def load(config: Config) -> Domains:
    """The same videos for every seed: PURE without its ends, these ends, and all of MMPD."""
    train, test = _folder(config.root, "root", "PURE"), _folder(config.test_root, "test_root", "MMPD")
    places = sorted(place for place in train.glob("*-*") if place.is_dir())
    files = sorted(test.glob("subject*/*.mat"))
    if not places:
        raise DataError(f"{train}: no folders like 01-01 in it; give the folder of PURE with --set root=FOLDER")
    if not files:
        raise DataError(f"{test}: no files like subject1/p1_0.mat in it; give that of MMPD with --set test_root=FOLDER")
    whole = [pure(place, framing(config)) for place in places]
    short = next((video for video in whole if video.length < config.crop + config.frames), None)
    if short is not None:
        least = f"crop + frames = {config.crop + config.frames}"
        raise DataError(f"{train}: {short.name} has {short.length} frames, and {least} are wanted")
    ends = [min(round(video.length * (1 - HELD_OUT)), video.length - config.frames) for video in whole]
    return Domains(
        train=[span(video, 0, max(end, config.crop)) for video, end in zip(whole, ends, strict=True)],
        same=[
            rated(span(video, max(end, config.crop), video.length), config.fs)
            for video, end in zip(whole, ends, strict=True)
        ],
        cross=[mmpd(file, framing(config)) for file in files],
    )


def _folder(path: str, name: str, what: str) -> Path:
    if not path or not Path(path).is_dir():
        raise DataError(f"{name} must be the folder of {what}, got {path!r}; --set {name}=FOLDER")
    return Path(path)
