"""Crops of videos with a pulse: frames, waveform and rate are of the same part."""

import torch

from throughline.claims.shared.pulse_crops import random_crops
from throughline.claims.shared.pulse_videos import Video
from throughline.sensing.pulse import heart_rate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_keep_frames_and_pulse_together() -> None:
    """A video whose brightness is its pulse: so it is in every crop, mirrored or not."""
    beat = 0.5 + 0.4 * torch.sin(torch.arange(96) * 0.55)
    frames = (beat.view(1, -1, 1, 1).expand(3, -1, 16, 16) * 255).round().byte().clone()
    frames[..., :8] //= 2  # the left half is darker
    video = Video("a", 77.0, beat, 96, lambda a, b: frames[:, a:b])
    x, pulse, known, bpm = random_crops([video], 16, 32, 15.0, seeded())
    torch.testing.assert_close(x.amax((1, 3, 4)) / 255, pulse, atol=3e-3, rtol=0)
    mirrored = x[..., 0].float().mean((1, 2, 3)) > x[..., -1].float().mean((1, 2, 3))
    assert 0 < mirrored.sum() < 16
    assert known.all()
    assert len(pulse.unique(dim=0)) > 4
    torch.testing.assert_close(bpm, heart_rate(pulse, 15.0, low=0.75, high=2.5).clamp(40, 179))
