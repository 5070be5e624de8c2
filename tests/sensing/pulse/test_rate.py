"""Rates and their confidence against periodograms of SciPy and waves of known rate."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch
from tests.allocation import allocated
from tests.sensing.pulse.samples import FS, seeded, traces, wave

from throughline.sensing.pulse import bandpass, detrend, heart_rate, pulse_snr, rate


@pytest.mark.parametrize("bpm", [46.0, 52.0, 72.3, 120.0, 149.0])
def test_rate_is_finer_than_the_bins_of_its_length(bpm: float) -> None:
    assert float(heart_rate(wave(300, bpm), FS)) == pytest.approx(bpm, abs=1.5)  # bins of 6 bpm without padding


def test_a_weak_slow_beat_is_not_read_as_its_double() -> None:
    beat = wave(600, 52) + 0.5 * wave(600, 104)
    assert float(heart_rate(beat, FS)) == pytest.approx(52, abs=1)


def test_rate_against_a_periodogram_of_scipy() -> None:
    x = traces(6, frames=250)[..., 1]
    b, a = scipy.signal.butter(1, (40 / 60, 3), "bandpass", fs=FS)
    filtered = scipy.signal.filtfilt(b, a, detrend(x).numpy())
    f, power = scipy.signal.periodogram(filtered, FS, nfft=4096, detrend=False)
    band = (f >= 40 / 60) & (f <= 3)
    expected = 60 * f[band][power[:, band].argmax(-1)]
    np.testing.assert_allclose(heart_rate(x, FS).numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_straight_line_has_no_rate(dtype: torch.dtype) -> None:
    assert heart_rate(torch.linspace(1, 2, 300, dtype=dtype), FS).isnan()


def test_many_pulses_need_no_more_memory_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    t = torch.arange(1800) / FS
    pulses = torch.sin(2 * math.pi * torch.linspace(0.8, 2.4, 256)[:, None] * t).view(2, 128, -1)
    found = heart_rate(pulses, FS)
    assert allocated(lambda: heart_rate(pulses, FS)) < 256 * 4096 * 8 / 2  # half of one table of spectra
    monkeypatch.setattr(rate, "CHUNK", 2**20)
    torch.testing.assert_close(heart_rate(pulses, FS), found, rtol=0, atol=0)


def test_snr_against_a_periodogram_of_scipy() -> None:
    x = torch.randn(4, 300, dtype=torch.float64, generator=seeded()) + 2 * wave()
    f, power = scipy.signal.periodogram(x.numpy(), FS, nfft=512, detrend=False)
    near = (abs(f - 80 / 60) <= 0.1) | (abs(f - 160 / 60) <= 0.1)
    rest = (f >= 40 / 60) & (f <= 3) & ~near
    expected = 10 * np.log10(power[:, near].sum(-1) / power[:, rest].sum(-1))
    np.testing.assert_allclose(pulse_snr(x, FS, torch.tensor(80.0)).numpy(), expected, atol=1e-4)


def test_snr_tells_a_beat_from_noise() -> None:
    noise = torch.randn(50, 300, dtype=torch.float64, generator=seeded())
    rates = heart_rate(noise, FS)
    assert pulse_snr(noise, FS, rates).mean() < 1
    assert pulse_snr(noise + 3 * wave(), FS, torch.full((50,), 80.0)).mean() > 5


@pytest.mark.parametrize("seconds", [10, 15, 40])
@pytest.mark.parametrize("fs", [15.0, 30.0])
def test_no_rate_at_the_edge_of_the_band_nor_beyond(seconds: int, fs: float) -> None:
    """Never the edge, a side lobe or the harmonic of a rate outside; every rate inside."""
    bpm = torch.cat([torch.arange(37.0, 40), torch.arange(42.0, 179, 3), torch.arange(182.0, 320, 3)])
    phase = 2 * math.pi / 60 / fs * bpm[:, None] * torch.arange(int(seconds * fs))
    found = heart_rate(phase.sin() + 0.3 * (2 * phase).sin(), fs)
    inside = (bpm > 40) & (bpm < 180)
    torch.testing.assert_close(found[inside], bpm[inside], rtol=0, atol=1.5)
    assert found[~inside].isnan().all()
    assert not (pulse_snr(phase.sin(), fs, found)[~inside] > 0).any()


def test_rates_after_exercise_and_in_deep_sleep() -> None:
    for bpm in (42.0, 155.0, 165.0):
        assert float(heart_rate(wave(450, bpm) + 0.3 * wave(450, 2 * bpm), FS)) == pytest.approx(bpm, abs=1)
        assert heart_rate(wave(450, bpm) + 0.3 * wave(450, 2 * bpm), FS, low=0.75, high=2.5).isnan()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_rate_where_no_face_was_found(bad: float) -> None:
    pulses = torch.stack([wave(), wave(bpm=60)])
    pulses[0, 50] = bad
    found = heart_rate(pulses, FS)
    assert found.isnan().tolist() == [True, False]
    assert pulse_snr(pulses, FS, torch.tensor([80.0, 60.0])).isnan().tolist() == [True, False]


def test_confidence_counts_the_band_of_the_rate_and_no_more() -> None:
    """A second wave at 42 or at 170 takes from it, one at 30 or 200 does not."""
    inside, outside = (
        [float(pulse_snr(wave(900) + wave(900, b), FS, torch.tensor(80.0))) for b in rates]
        for rates in ((45.0, 172.0), (30.0, 210.0))
    )
    assert max(inside) < 1
    assert min(outside) > 8


def test_rates_of_frames_as_files_have_them() -> None:
    fs = Fraction(30000, 1001)
    for call in (heart_rate, lambda w, fs: pulse_snr(w, fs, torch.tensor(80.0)), bandpass):
        torch.testing.assert_close(call(wave(), fs), call(wave(), float(fs)), rtol=0, atol=0)
    with pytest.raises(TypeError, match="fs must be a number of frames per second, got 'fast'"):
        heart_rate(wave(), "fast")
