"""Skin and waves whose pulse is known."""

import math

import torch
from torch import Tensor

FS = 30.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def traces(*lead: int, frames: int = 130, fs: float = FS, bpm: float = 80.0) -> Tensor:
    """Skin under drifting light, with a pulse."""
    t = torch.arange(frames, dtype=torch.float64) / fs
    beat = torch.sin(2 * math.pi * bpm / 60 * t)[:, None] * torch.tensor([0.33, 0.77, 0.53])
    light = 1 + 0.1 * torch.sin(2 * math.pi * 0.2 * t)[:, None]
    noise = torch.randn(*lead, frames, 3, dtype=torch.float64, generator=seeded())
    return 100 * light * torch.tensor([0.8, 0.6, 0.5]) * (1 + 0.005 * beat + 0.001 * noise)


def wave(frames: int = 300, bpm: float = 80.0, fs: float = FS) -> Tensor:
    return torch.sin(2 * math.pi * bpm / 60 * torch.arange(frames, dtype=torch.float64) / fs)
