"""Random crops of videos with a pulse, to train a network on."""

from typing import NamedTuple

import torch
from torch import Tensor

from throughline.claims.shared.pulse_rates import rate
from throughline.claims.shared.pulse_videos import Video
from throughline.sensing.pulse import PulseLoss

__all__ = ["Crops", "random_crops"]


class Crops(NamedTuple):
    """A batch of parts of videos."""

    frames: Tensor  # (B, 3, T, size, size), bytes
    pulse: Tensor  # (B, T), zeros where it is unknown
    known: Tensor  # (B,)
    bpm: Tensor  # (B,), inside of the range of `PulseLoss`


def random_crops(videos: list[Video], count: int, length: int, fs: float, draw: torch.Generator) -> Crops:
    """``count`` parts of ``length`` frames, half of them mirrored, with the rate of the part where there is one."""
    frames, pulses, known, rates = [], [], [], []
    for place in torch.randint(len(videos), (count,), generator=draw).tolist():
        video = videos[place]
        start = int(torch.randint(video.length - length + 1, (), generator=draw))
        part = video.read(start, start + length)
        frames.append(part.flip(-1) if torch.rand((), generator=draw) < 0.5 else part)
        known.append(video.pulse is not None)
        pulses.append(torch.zeros(length) if video.pulse is None else video.pulse[start : start + length])
        rates.append(video.bpm)
    pulse = torch.stack(pulses)
    flags, given = torch.tensor(known), torch.tensor(rates)
    found = rate(pulse, fs)
    bpm = torch.where(flags & found.isfinite(), found, given)
    low, high = PulseLoss(fs).bpm_range
    return Crops(torch.stack(frames), pulse, flags, bpm.clamp(low, high - 1))
