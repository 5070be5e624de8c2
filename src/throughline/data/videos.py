"""A folder of videos with a table of their heart rates, labels only: who decodes the files is not decided here."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from throughline.data.download import DataError
from throughline.data.frames import read_frame

__all__ = ["LabelledVideo", "read_videos"]

LABELS = "labels.csv"


class LabelledVideo(NamedTuple):
    """A video file and what is known of its pulse.

    Args:
        path: of the file.
        bpm: mean heart rate in beats per minute.
        subject: whose it is; the file's own name where the table has no such column.
        pulse: ``(2, n)``, seconds from the first frame and the measured waveform, or None.
    """

    path: Path
    bpm: float
    subject: str
    pulse: NDArray[np.float64] | None


def read_videos(folder: str | Path) -> list[LabelledVideo]:
    """Read ``labels.csv``: columns file and bpm, and subject where there is one.

    A file ``<file>.pulse.csv`` beside a video, with the columns time and value, holds its waveform.

    Raises:
        DataError: no such table, a column or a video that is missing or outside of the folder, a rate or waveform that
            cannot be one.
    """
    place = Path(folder).expanduser()
    if not (place / LABELS).is_file():
        raise DataError(f"{place}: no {LABELS} in this folder; give one with the columns file and bpm")
    table = read_frame(place / LABELS)
    for column in ("file", "bpm"):
        if column not in table:
            raise DataError(f"{place / LABELS}: no column {column}, the columns are {', '.join(map(str, table))}")
    if not len(table):
        raise DataError(f"{place / LABELS}: the table has no rows")
    names = [str(name) for name in table["file"]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{place / LABELS}: two rows are about {twice}; keep one")
    subjects = table.get("subject", names)
    return [
        LabelledVideo(_video(place, name), _rate(place, name, bpm), str(subject), _pulse(place, name))
        for name, bpm, subject in zip(names, table["bpm"], subjects, strict=True)
    ]


def _video(place: Path, name: str) -> Path:
    video = place / name
    if not video.resolve().is_relative_to(place.resolve()):
        raise DataError(f"{place / LABELS}: {name} lies outside of the folder; put the video into it")
    if not video.is_file():
        raise DataError(f"{place / LABELS}: {name} is listed, and there is no such file")
    return video


def _rate(place: Path, name: str, value: object) -> float:
    try:
        bpm = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        bpm = math.nan
    if not 20 <= bpm <= 250:
        raise DataError(f"{place / LABELS}: {name} must have a rate from 20 to 250 beats per minute, got {value}")
    return bpm


def _pulse(place: Path, name: str) -> NDArray[np.float64] | None:
    if not (place / f"{name}.pulse.csv").exists():
        return None
    file = _video(place, f"{name}.pulse.csv")
    table = read_frame(file)
    if not {"time", "value"} <= set(table):
        raise DataError(f"{file}: the columns time and value are wanted, got {', '.join(map(str, table))}")
    try:
        pulse = table[["time", "value"]].to_numpy(np.float64).T
    except (TypeError, ValueError):
        raise DataError(f"{file}: a value is not a number") from None
    if pulse.shape[1] < 2 or not np.isfinite(pulse).all() or not (np.diff(pulse[0]) > 0).all():
        raise DataError(f"{file}: two rows or more are wanted, finite, with times that increase")
    return pulse
