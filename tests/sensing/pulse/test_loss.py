"""The losses against NumPy, sums by hand, their limits and their pitfalls."""

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.sensing.pulse.samples import FS, seeded, wave

from throughline.sensing.pulse import (
    PulseLoss,
    heart_rate,
    neg_pearson,
    pulse_spectrum,
)


def test_pearson_is_numpys() -> None:
    x, y = torch.randn(2, 5, 40, dtype=torch.float64, generator=seeded())
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(neg_pearson(x, y).numpy(), expected)


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_pearson_sees_neither_scale_nor_offset(scale: float, offset: float) -> None:
    x, y = torch.randn(2, 40, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(neg_pearson(x * scale + offset, y), neg_pearson(x, y))


def test_one_clip_does_not_weigh_on_another() -> None:
    """Normalising over the batch would let a loud clip drown the quiet ones."""
    x, y = torch.randn(2, 3, 60, generator=seeded())
    loud = x * torch.tensor([1.0, 1e4, 1e-4])[:, None] + torch.tensor([0.0, 50.0, 0.0])[:, None]
    criterion, bpm = PulseLoss(FS), torch.tensor([60.0, 90.0, 120.0])
    for one, other in zip(criterion.terms(x, y, bpm), criterion.terms(loud, y, bpm), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_constant_prediction_has_a_loss_and_a_finite_gradient() -> None:
    x = torch.full((2, 60), 0.3, requires_grad=True)
    loss = PulseLoss(FS)(x, torch.randn(2, 60, generator=seeded()), torch.tensor([60.0, 90.0]), 0.3)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_spectrum_is_a_sum_of_waves() -> None:
    x, bpm = torch.randn(200, dtype=torch.float64, generator=seeded()), torch.arange(40.0, 180.0)
    windowed = x.numpy() * scipy.signal.windows.hann(200)
    power = np.array(
        [abs(sum(windowed * np.exp(-2j * np.pi * b / 60 * np.arange(200) / FS))) ** 2 for b in bpm.tolist()]
    )
    np.testing.assert_allclose(pulse_spectrum(x, FS, bpm).numpy(), power / power.sum(), rtol=1e-6, atol=1e-12)
    assert float(pulse_spectrum(torch.zeros(9), FS, bpm).std()) == pytest.approx(0, abs=1e-9)


def test_terms_by_hand() -> None:
    x, y = torch.randn(2, 2, 150, dtype=torch.float64, generator=seeded())
    x = x - x.mean(-1, keepdim=True)
    bpm, rates = torch.tensor([71.7, 100.2], dtype=torch.float64), torch.arange(40.0, 180.0, dtype=torch.float64)
    p = pulse_spectrum(x, FS, rates).numpy()
    entropy = -np.mean([np.log(p[0, 72 - 40]), np.log(p[1, 100 - 40])])
    q = np.exp(-0.5 * (rates.numpy() - bpm.numpy()[:, None]) ** 2)
    q /= q.sum(-1, keepdims=True)
    divergence = scipy.special.rel_entr(q, p).sum(-1).mean()
    criterion = PulseLoss(FS)
    found = criterion.terms(x, y, bpm)
    np.testing.assert_allclose([float(v) for v in found], [float(neg_pearson(x, y).mean()), entropy, divergence])
    for s, alpha, beta in ((0.0, 1.0, 1.0), (1.0, 0.05, 5.0), (0.5, 0.05**0.5, 5**0.5)):
        expected = alpha * float(found[0]) + beta * (entropy + divergence)
        assert float(criterion(x, y, bpm, s)) == pytest.approx(expected)


def test_cross_entropy_is_no_softmax_of_a_distribution() -> None:
    """Taken as logits, the spectrum of a perfect pulse would still cost about ln 140."""
    x = wave(900, 90)[None]
    sharp = PulseLoss(FS).terms(x, x, torch.tensor([90.0]))[1]
    wrong = PulseLoss(FS).terms(x, x, torch.tensor([60.0]))[1]
    assert float(sharp) < 2 < math.log(140) < 2 * float(sharp) + float(wrong)
    assert float(wrong) > 10


def test_training_on_the_spectrum_finds_the_rate() -> None:
    x = torch.randn(1, 300, dtype=torch.float64, generator=seeded()).requires_grad_()
    optimizer = torch.optim.Adam([x], 0.05)
    criterion = PulseLoss(FS)
    for _ in range(60):
        optimizer.zero_grad()
        sum(criterion.frequency_terms(x, torch.tensor([101.0]))).backward()
        optimizer.step()
    assert float(heart_rate(x, FS)) == pytest.approx(101, abs=2)


def test_without_a_rate_the_loss_reads_the_target() -> None:
    x, y = torch.randn(2, 300, dtype=torch.float64, generator=seeded())[:1], wave(300, 96)[None]
    criterion = PulseLoss(FS)
    torch.testing.assert_close(criterion(x, y, progress=0.4), criterion(x, y, heart_rate(y, FS), 0.4))


def test_without_a_rate_the_loss_looks_in_its_own_range() -> None:
    """165 beats per minute are a harmonic to a narrower band; a perfect prediction then costs 13."""
    y = (wave(450, 165) + 0.3 * wave(450, 330))[None]
    torch.testing.assert_close(PulseLoss(FS)(y, y), PulseLoss(FS)(y, y, torch.tensor([165.0])), rtol=0.02, atol=0)
    assert PulseLoss(FS)(y, y) < 3
    fast = wave(450, 200)[None]
    assert PulseLoss(FS, bpm_range=(60, 220))(fast, fast) < 3
    with pytest.raises(ValueError, match=r"bpm must round to a rate in bpm_range=\(40, 180\), got \[nan\]"):
        PulseLoss(FS)(fast, fast)
    low, high = (inspect.signature(heart_rate).parameters[name].default * 60 for name in ("low", "high"))
    assert (low, high) == PulseLoss(FS).bpm_range


@pytest.mark.parametrize("frames", [30, 60, 300])
def test_an_offset_of_the_prediction_is_no_pulse(frames: int) -> None:
    """In a short window the mean would leak into the slow rates."""
    x, bpm = torch.randn(2, frames, dtype=torch.float64, generator=seeded()), torch.tensor([60.0, 100.0])
    for one, other in zip(PulseLoss(FS).terms(x, x, bpm), PulseLoss(FS).terms(x + 50, x, bpm), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_exact_inside_of_autocast() -> None:
    bpm = torch.arange(40.0, 180.0)
    x, y = wave(300, 57.3).float()[None], wave(300, 57.3, 29.0).float()[None]
    outside = (pulse_spectrum(x, FS, bpm), PulseLoss(FS)(x, y, torch.tensor([57.3])))
    with torch.autocast("cpu", torch.bfloat16):
        inside = (pulse_spectrum(x, FS, bpm), PulseLoss(FS)(x, y, torch.tensor([57.3])))
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_what_is_not_a_number_is_no_correlation() -> None:
    x = torch.stack([wave(), wave(bpm=60)])
    spoilt = x.clone()
    spoilt[0, 7] = math.nan
    assert neg_pearson(spoilt, x).isnan().tolist() == [True, False]
    assert neg_pearson(x, spoilt).isnan().tolist() == [True, False]


def test_a_rate_of_frames_may_be_a_fraction() -> None:
    x, fs = wave(300)[None], Fraction(30000, 1001)
    torch.testing.assert_close(PulseLoss(fs)(x, x), PulseLoss(float(fs))(x, x), rtol=0, atol=0)
    bpm = torch.tensor([60.0, 80.0])
    torch.testing.assert_close(pulse_spectrum(x, fs, bpm), pulse_spectrum(x, float(fs), bpm), rtol=0, atol=0)


def test_of_no_clips_the_loss_is_zero() -> None:
    none = torch.zeros(0, 60, requires_grad=True)
    loss = PulseLoss(FS)(none, torch.zeros(0, 60))
    loss.backward()
    assert loss == 0
