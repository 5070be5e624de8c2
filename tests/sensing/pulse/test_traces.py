"""CHROM, POS and the green trace against loops over windows, their limits and their pitfalls."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.allocation import allocated
from tests.sensing.pulse.samples import FS, traces, wave
from torch import Tensor

from throughline.sensing.pulse import (
    chrom,
    green,
    heart_rate,
    pos,
    pulse_snr,
)
from throughline.sensing.pulse import traces as _traces


def slow_pos(rgb: np.ndarray, fs: float) -> np.ndarray:
    length, total = math.ceil(1.6 * fs), np.zeros(len(rgb))
    for m in range(len(rgb) - length + 1):
        c = rgb[m : m + length] / rgb[m : m + length].mean(0)
        s = c @ np.array([[0, 1, -1], [-2, 1, 1]]).T
        h = s[:, 0] + s[:, 0].std() / s[:, 1].std() * s[:, 1]
        total[m : m + length] += h - h.mean()
    return total


def slow_chrom(rgb: np.ndarray, fs: float) -> np.ndarray:
    length = math.ceil(1.6 * fs)
    length += length % 2
    b, a = scipy.signal.butter(3, (0.7, 2.5), "bandpass", fs=fs)
    total = np.zeros(len(rgb))
    for start in range(0, len(rgb) - length + 1, length // 2):
        r, g, blue = (rgb[start : start + length] / rgb[start : start + length].mean(0)).T
        pad = min(21, length - 1)
        x, y = (scipy.signal.filtfilt(b, a, s, padlen=pad) for s in (3 * r - 2 * g, 1.5 * r + g - 1.5 * blue))
        total[start : start + length] += (x - x.std() / y.std() * y) * scipy.signal.windows.hann(length)
    return total


@pytest.mark.parametrize(("ours", "loop"), [(pos, slow_pos), (chrom, slow_chrom)])
@pytest.mark.parametrize(("fs", "frames"), [(30.0, 130), (29.97, 48), (10.0, 40), (8.0, 13 + 1)])
def test_agrees_with_a_loop_over_windows(ours, loop, fs: float, frames: int) -> None:
    rgb = traces(2, frames=frames, fs=fs)
    expected = np.stack([loop(one, fs) for one in rgb.numpy()])
    torch.testing.assert_close(ours(rgb, fs), torch.from_numpy(expected), rtol=1e-8, atol=1e-10)


def test_frames_behind_the_last_full_window_are_zero() -> None:
    made = chrom(traces(frames=48 + 24 + 23), FS)
    assert (made[72:] == 0).all()
    assert (made[1:71] != 0).all()
    assert (pos(traces(frames=95), FS)[-1:] != 0).all()  # the last start is T - L


def test_pos_in_parts_is_pos_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = traces(5)
    whole = pos(rgb, FS)
    monkeypatch.setattr(_traces, "CHUNK", 2 * rgb.shape[-2])
    torch.testing.assert_close(pos(rgb, FS), whole, rtol=0, atol=0)


def test_pos_is_zero_where_the_picture_stands_still() -> None:
    """Exactly, in the frames all of whose windows are frozen."""
    rgb = traces(frames=400).float()
    rgb[100:260] = rgb[100]
    made = pos(rgb, FS)
    assert (made[147:213] == 0).all()
    assert (made[[146, 213]] != 0).all()


def test_pos_keeps_the_digits_of_a_weak_pulse() -> None:
    """In single precision, with light that changes a thousand times as much as the pulse."""
    rgb = (traces(2, frames=300) * (1 + 0.4 * wave(300, 20)[:, None])).float()
    expected = np.stack([slow_pos(one, FS) for one in rgb.double().numpy()])
    torch.testing.assert_close(pos(rgb, FS).double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-8)


def test_pos_lays_no_windows_out() -> None:
    rgb = traces(8, frames=3000).float()
    pos(rgb, FS)
    windows = 4 * 3 * 8 * (3000 - 47) * 48
    assert allocated(lambda: pos(rgb, FS)) < windows


@pytest.mark.parametrize("method", [pos, chrom])
def test_sees_no_change_of_exposure_or_unit(method) -> None:
    rgb = traces()
    torch.testing.assert_close(method(rgb * torch.tensor([3.0, 7.0, 0.1]), FS), method(rgb, FS))
    brightness = 1 + 0.03 * wave(130, 50)[:, None]  # in the band, white
    assert pulse_rate(method(rgb * brightness, FS)) == pytest.approx(80, abs=3)
    assert pulse_rate(green(rgb * brightness)) == pytest.approx(50, abs=4)


def pulse_rate(pulse: Tensor) -> float:
    return float(heart_rate(pulse, FS))


@given(st.floats(50, 140), st.integers(0, 99))
@settings(max_examples=15)
def test_find_the_rate_of_any_pulse(bpm: float, seed: int) -> None:
    rgb = traces(frames=300, bpm=bpm)
    for method in (pos, chrom):
        assert float(heart_rate(method(rgb, FS), FS)) == pytest.approx(bpm, abs=1.5)


@pytest.mark.parametrize("method", [pos, chrom])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_constant_trace_is_zero_and_has_no_rate(method, dtype: torch.dtype) -> None:
    rgb = (torch.tensor([0.71, 0.43, 0.3]).expand(150, 3).clone()).to(dtype).requires_grad_()
    pulse = method(rgb, FS)
    assert (pulse == 0).all()
    (gradient,) = torch.autograd.grad(pulse.sum() + pulse.square().sum(), rgb)
    assert gradient.isfinite().all()
    assert heart_rate(pulse, FS).isnan()
    assert heart_rate(green(rgb), FS).isnan()
    assert pulse_snr(pulse, FS, heart_rate(pulse, FS)).isnan()


def test_chrom_needs_its_band() -> None:
    with pytest.raises(ValueError, match=r"fs must be above 5 frames per second for CHROM, got 5\.0"):
        chrom(traces(), 5.0)


@pytest.mark.parametrize("method", [pos, chrom])
def test_frames_without_a_face_spoil_their_windows_alone(method) -> None:
    rgb = torch.stack([traces(frames=200), traces(frames=200)])
    rgb[0, 90] = math.nan
    made = method(rgb, FS)
    torch.testing.assert_close(made[1], method(rgb[1], FS))
    assert made[0, 90].isnan()
    assert made[0, :20].isfinite().all()
    assert made[0, -60:-40].isfinite().all()
    assert heart_rate(made, FS).isnan().tolist() == [True, False]


def test_exact_inside_of_autocast() -> None:
    rgb = traces(2).float()
    outside = [method(rgb, FS) for method in (pos, chrom)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [method(rgb, FS) for method in (pos, chrom)]
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


@pytest.mark.parametrize("method", [pos, chrom])
def test_a_rate_of_frames_may_be_a_fraction(method) -> None:
    fs = Fraction(30000, 1001)
    torch.testing.assert_close(method(traces(), fs), method(traces(), float(fs)), rtol=0, atol=0)
