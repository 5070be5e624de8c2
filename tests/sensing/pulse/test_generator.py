"""The generator: what it promises of every clip, and that each knob does what it says."""

import math
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from throughline.sensing.pulse import bandpass, green, heart_rate, neg_pearson, pos, pulse_snr, synthetic_pulse_video
from throughline.sensing.pulse import generator as _pulse_generator

CALM: dict[str, Any] = {"motion": 0.0, "light": 0.0, "noise": 0.0}


def made(n: int = 4, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    options = {"frames": 200, "size": 24, "fs": 20.0, **options}
    return synthetic_pulse_video(n, generator=torch.Generator().manual_seed(seed), **options)


def face(frames: Tensor) -> Tensor:
    """Mean colour of the middle of the face, ``(n, T, 3)``."""
    a, b = frames.shape[-1] * 3 // 8, frames.shape[-1] * 5 // 8
    return frames[..., a:b, a:b].mean((-2, -1)).mT


def test_what_comes_back() -> None:
    clips = made()
    assert {name: tuple(value.shape) for name, value in clips.items()} == {
        "frames": (4, 3, 200, 24, 24),
        "pulse": (4, 200),
        "bpm": (4,),
        "melanin": (4,),
    }
    levels = clips["frames"] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)  # 8 bits
    assert clips["frames"].min() >= 0
    assert clips["frames"].max() <= 1
    assert {value.dtype for value in clips.values()} == {torch.float32}


def test_the_seed_decides_and_nothing_else() -> None:
    state = torch.get_rng_state()
    first, again, other = made(), made(), made(seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_clips_drawn_in_parts_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(noise=0.0)
    monkeypatch.setattr(_pulse_generator, "PIXELS", 1)
    assert torch.equal(made(noise=0.0)["frames"], whole["frames"])


def test_pos_finds_the_known_pulse_of_easy_clips() -> None:
    clips = made(12, motion=0.05, light=0.05, melanin=(0, 0.3), size=32)
    pulse = pos(face(clips["frames"]), 20.0)
    assert (heart_rate(pulse, 20.0) - clips["bpm"]).abs().max() < 2
    beat = bandpass(clips["pulse"], 20.0)
    assert neg_pearson(bandpass(pulse, 20.0), beat).median() < 0.2


def test_the_waveform_has_its_formula() -> None:
    """A sine, a second one of 0.35 at the double rate, and a mean rate that is the rate told."""
    clips = made(20, frames=600)
    assert (heart_rate(clips["pulse"], 20.0) - clips["bpm"]).abs().median() < 1
    power = torch.stack([_power(p, b) for p, b in zip(clips["pulse"], clips["bpm"], strict=True)])
    assert ((power[:, 1] / power[:, 0]).sqrt() - 0.35).abs().median() < 0.12
    assert clips["bpm"].min() > 48
    assert clips["bpm"].max() < 133
    assert clips["bpm"].std() > 10


def _power(pulse: Tensor, bpm: Tensor) -> Tensor:
    """Around a rate and around its double, wander included."""
    spectrum = torch.fft.rfft(pulse * torch.hann_window(len(pulse)), n=8192).abs().square()
    rates = torch.arange(len(spectrum)) * (60 * 20.0 / 8192)
    return torch.stack([spectrum[(rates - k * bpm).abs() < 0.1 * k * bpm].sum() for k in (1, 2)])


def test_the_rate_wanders() -> None:
    clips = made(6, frames=600, bpm=(80.0, 80.0))
    rises = [(p[:-1] < 0) & (p[1:] >= 0) for p in clips["pulse"]]
    spread = []
    for rise in rises:
        beats = torch.nonzero(rise).squeeze(1).diff().float()
        beats = beats[beats > 8]  # one rise in each beat
        spread.append(float(beats.std() / beats.mean()))
    assert 0.005 < sum(spread) / 6 < 0.06


@pytest.mark.parametrize(("melanin", "expected"), [((0.0, 0.0), 0.012), ((1.0, 1.0), 0.012 * 0.45)])
def test_darker_skin_shows_less_pulse(melanin: tuple[float, float], expected: float) -> None:
    clips = made(6, melanin=melanin, size=48, **CALM)
    rgb = face(clips["frames"])
    relative = rgb / rgb.mean(1, keepdim=True) - 1
    slope = (relative * clips["pulse"].unsqueeze(-1)).sum(1) / clips["pulse"].square().sum(1, keepdim=True)
    strength = expected * torch.tensor([0.45, 1.0, 0.65])
    assert (slope.median(0).values / strength - 1).abs().max() < 0.25  # rounded to 8 bits, mouth and eyes apart
    brightness = face(made(6, melanin=(0.0, 0.0), **CALM)["frames"]).mean()
    assert (rgb.mean() < 0.5 * brightness) == (melanin[0] == 1)


def test_without_motion_light_and_noise_only_the_pulse_changes() -> None:
    clips = made(2, size=48, **CALM)
    change = clips["frames"].std(2)
    assert change[..., 0, 0].max() == 0  # the ground
    assert change[:, 1, 24, 24].min() > 0
    flat = made(2, size=48, bpm=(80.0, 80.0), melanin=(1.0, 1.0), **CALM)["frames"]
    assert flat.diff(dim=2).abs().max() < 3 / 255


@pytest.mark.parametrize("knob", ["motion", "light", "noise"])
def test_more_of_a_knob_disturbs_more(knob: str) -> None:
    values = (0.0, 0.02, 0.1) if knob == "noise" else (0.0, 0.5, 1.5)
    found = []
    for value in values:
        clips = made(10, **{**CALM, knob: value}, melanin=(0.2, 0.2))
        pulse = bandpass(green(face(clips["frames"])), 20.0)
        found.append(float(pulse_snr(pulse, 20.0, clips["bpm"]).mean()))
    assert found[0] > found[1] > found[2]


def test_motion_moves_the_face_and_not_the_ground() -> None:
    clips = made(4, motion=1.0, light=0.0, noise=0.0)
    assert clips["frames"][..., 0, 0].std(2).max() == 0
    rgb = face(clips["frames"])
    assert (rgb.std(1) / rgb.mean(1)).mean() > 0.01


def test_motion_is_weaker_inside_the_band_but_there() -> None:
    draw = torch.Generator().manual_seed(0)
    options = (20, 1200, 16, 20.0, 1.0, 0.0, (0.0, 0.0), (80.0, 80.0), draw)
    course = _pulse_generator._scene(*options).across
    power = torch.fft.rfft(course * torch.hann_window(1200)).abs().square().sum(0)
    hz = torch.arange(601) / 60
    slow, fast = power[hz < 0.55].sum(), power[(hz > 0.55) & (hz < 2.3)].sum()
    assert 0.002 < fast / slow < 0.2
    assert power[hz > 2.5].sum() < 1e-3 * slow


def test_light_changes_the_colour_of_a_turning_head_and_grey_light_does_not() -> None:
    """What POS assumes away: with light of two colours the ratio of channels follows the turn."""

    def colour(light: float) -> Tensor:
        clips = made(8, motion=1.0, light=light, noise=0.0, melanin=(0.0, 0.0), bpm=(150.0, 150.0))
        rgb = face(clips["frames"])
        ratio = (rgb[..., 0] / rgb[..., 2]).log()
        return (ratio - ratio.mean(1, keepdim=True)).std()

    assert colour(1.0) > 2 * colour(0.0)


def test_brightness_drifts_with_light() -> None:
    clips = made(8, motion=0.0, light=1.0, noise=0.0)
    ground = clips["frames"][..., 0, 0].mean(1)
    assert 0.05 < (ground.std(1) / ground.mean(1)).mean() < 0.5


def test_ten_clips_in_a_moment() -> None:
    start = time.process_time()
    made(10, frames=192, size=16, fs=15.0)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"frames": 3}, "frames must be at least 4, got 3"),
        ({"size": 7}, "size must be at least 8, got 7"),
        ({"fs": 5.0}, r"fs must be above 5 frames per second, got 5\.0"),
        ({"motion": -0.1}, r"motion must be finite and not negative, got -0\.1"),
        ({"light": math.inf}, "light must be finite and not negative, got inf"),
        ({"noise": math.nan}, "noise must be finite and not negative, got nan"),
        ({"melanin": (0.5, 1.1)}, r"melanin must be two increasing numbers in \[0, 1\]"),
        ({"bpm": (90.0, 80.0)}, "bpm must be two increasing rates"),
    ],
)
def test_refuses(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        made(**options)
