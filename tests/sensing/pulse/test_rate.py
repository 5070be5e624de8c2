"""Rates and their confidence against periodograms of SciPy and waves of known rate."""

import numpy as np
import pytest
import scipy.signal
import torch
from tests.sensing.pulse.samples import FS, seeded, traces, wave

from throughline.sensing.pulse import (
    detrend,
    heart_rate,
    pulse_snr,
)


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
