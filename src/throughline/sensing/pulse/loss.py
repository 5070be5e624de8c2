"""Losses of waveform and spectrum; public in `throughline.sensing.pulse`."""

import math

import torch
from torch import Tensor, nn

from throughline.core.checks import check_tensor, readable
from throughline.sensing.pulse.checks import BAND, Rate, check_signal, frame_rate
from throughline.sensing.pulse.rate import heart_rate

__all__ = ["PulseLoss", "neg_pearson", "pulse_spectrum"]


def neg_pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """One minus the correlation of every clip with its true pulse: 0 when they agree up to scale and offset.

    Args:
        prediction: floating point, ``(..., T)``.
        target: the same shape.

    Returns:
        ``(...)`` in the dtype of ``prediction``, between 0 and 2; 1 where either is constant.

    Raises:
        TypeError: an argument is not floating point.
        ValueError: the shapes differ, or there are no frames.

    >>> wave = torch.tensor([0.0, 1.0, 0.0, -1.0])
    >>> neg_pearson(torch.stack([3 * wave + 1, -wave]), torch.stack([wave, wave])).round(decimals=3)
    tensor([0., 2.])
    """
    _check_pair(prediction, target)
    return (1 - (_unit(prediction) * _unit(target)).sum(-1)).to(prediction.dtype)


def pulse_spectrum(pulse: Tensor, fs: Rate, bpm: Tensor) -> Tensor:
    """Power of a pulse at given rates, by direct sums under a Hann window: no bins, differentiable, of sum one.

    Args:
        pulse: floating point, ``(..., T)``.
        fs: frames per second, a Fraction too.
        bpm: ``(n,)``, beats per minute.

    Returns:
        ``(..., n)`` in the dtype of ``pulse``; the same everywhere for a pulse of zeros.

    Raises:
        TypeError: ``pulse`` is not floating point.
        ValueError: ``pulse`` has no frames, ``fs`` is not positive, or ``bpm`` is not one-dimensional.

    >>> t = torch.arange(300) / 30
    >>> pulse_spectrum(torch.sin(2 * torch.pi * t), 30.0, torch.tensor([40.0, 60.0, 80.0])).round(decimals=3)
    tensor([0., 1., 0.])
    """
    return _log_spectrum(pulse, fs, bpm).exp().to(pulse.dtype)


class PulseLoss(nn.Module):
    """From the waveform to the rate: L = α·L_P + β·(L_CE + L_LD), weights moving with the progress of training.

    "Robust and Generalizable Heart Rate Estimation via Deep Learning for Remote Photoplethysmography in Complex
    Scenarios" (arXiv 2507.07795); the end points of the weights are those of the public PhysFormer recipe, and the path
    between them is geometric, α = α₀^(1-s)·α₁^s. L_P is `neg_pearson`. With the power P of the prediction at every
    whole rate of ``bpm_range`` (`pulse_spectrum`), L_CE = -log P at the true rate, and L_LD is the divergence
    KL(q || P) from a Gaussian q about it. Each is of one clip, then averaged.

    Args:
        fs: frames per second, a Fraction too.
        bpm_range: beats per minute, the end excluded.
        std: of q, in beats per minute.
        time_weight: α at the beginning and at the end of training.
        frequency_weight: β at the beginning and at the end of training.

    Raises:
        ValueError: an argument is out of range.

    >>> pulse = torch.sin(2 * torch.pi * 1.2 * torch.arange(300) / 30)
    >>> bool(PulseLoss(30.0)(pulse, pulse, torch.tensor(72.0), progress=0.0) < 5)
    True
    """

    def __init__(
        self,
        fs: Rate,
        *,
        bpm_range: tuple[int, int] = BAND,
        std: float = 1.0,
        time_weight: tuple[float, float] = (1.0, 0.05),
        frequency_weight: tuple[float, float] = (1.0, 5.0),
    ) -> None:
        super().__init__()
        fs = frame_rate(fs)
        if not 0 < bpm_range[0] < bpm_range[1] - 1:
            raise ValueError(f"bpm_range must be two increasing positive rates, got {bpm_range}")
        if not 0 < std < math.inf:
            raise ValueError(f"std must be positive and finite, got {std}")
        for name, weights in (("time_weight", time_weight), ("frequency_weight", frequency_weight)):
            if not all(0 < w < math.inf for w in weights):
                raise ValueError(f"{name} must be two positive numbers, got {weights}")
        self.fs, self.bpm_range, self.std = fs, bpm_range, std
        self.time_weight, self.frequency_weight = time_weight, frequency_weight

    def terms(self, prediction: Tensor, target: Tensor, bpm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """L_P, L_CE and L_LD, each averaged over all clips; 0 of none.

        Args:
            prediction: floating point, ``(..., T)``.
            target: the same shape.
            bpm: ``(...)``, the true rates, in a list or array too.

        Raises:
            TypeError: ``prediction`` or ``target`` is not floating point.
            ValueError: shapes do not fit, or a rate, rounded, is outside of ``bpm_range``.
        """
        time = _mean(neg_pearson(prediction, target))
        return time, *self.frequency_terms(prediction, bpm)

    def frequency_terms(self, prediction: Tensor, bpm: Tensor) -> tuple[Tensor, Tensor]:
        """L_CE and L_LD alone, for clips whose rate is known and whose waveform is not."""
        check_signal(prediction, "prediction")
        low, high = self.bpm_range
        rate = torch.as_tensor(bpm, device=prediction.device).to(torch.promote_types(prediction.dtype, torch.float32))
        if rate.shape != prediction.shape[:-1]:
            raise ValueError(f"bpm must have shape {tuple(prediction.shape[:-1])}, got {tuple(rate.shape)}")
        place = rate.round() - low
        if readable(place) and not bool(((place >= 0) & (place < high - low)).all()):
            raise ValueError(f"bpm must round to a rate in bpm_range={self.bpm_range}, got {rate.tolist()}")
        rates = torch.arange(low, high, device=rate.device, dtype=rate.dtype)
        # an offset is no pulse, and in a short window it would leak into the slow rates
        found = _log_spectrum(prediction - prediction.mean(-1, keepdim=True), self.fs, rates)
        entropy = -found.gather(-1, place.long().unsqueeze(-1)).squeeze(-1)
        wanted = (-0.5 * ((rates - rate.unsqueeze(-1)) / self.std).square()).log_softmax(-1)
        divergence = (wanted.exp() * (wanted - found)).sum(-1)
        return _mean(entropy).to(prediction.dtype), _mean(divergence).to(prediction.dtype)

    def weights(self, progress: float) -> tuple[float, float]:
        """α and β at a progress in [0, 1]."""
        if not 0 <= progress <= 1:
            raise ValueError(f"progress must lie in [0, 1], got {progress}")
        alpha, beta = (a ** (1 - progress) * b**progress for a, b in (self.time_weight, self.frequency_weight))
        return alpha, beta

    def forward(self, prediction: Tensor, target: Tensor, bpm: Tensor | None = None, progress: float = 0.0) -> Tensor:
        """The weighted sum, of all clips; without ``bpm`` the rates are those of ``target`` in ``bpm_range``
        (`heart_rate`).
        """
        alpha, beta = self.weights(progress)
        if bpm is None:
            low, high = (edge / 60 for edge in self.bpm_range)
            bpm = heart_rate(target, self.fs, low=low, high=high)
        time, entropy, divergence = self.terms(prediction, target, bpm)
        return alpha * time + beta * (entropy + divergence)


def _log_spectrum(pulse: Tensor, fs: Rate, bpm: Tensor) -> Tensor:
    check_signal(pulse, "pulse")
    fs = frame_rate(fs)
    check_tensor("bpm", bpm)
    if bpm.ndim != 1 or len(bpm) == 0:
        raise ValueError(f"bpm must have shape (n,) with n >= 1, got {tuple(bpm.shape)}")
    x = pulse.to(torch.promote_types(pulse.dtype, torch.float32))
    frames = x.shape[-1]
    window = torch.hann_window(frames, periodic=False, dtype=torch.float64, device=x.device)
    time = torch.arange(frames, dtype=torch.float64, device=x.device) * (2 * math.pi / 60 / fs)
    angle = time.unsqueeze(-1) * bpm.to(x.device).double()
    x = x / _scale(x)  # squares of very small and very large numbers stay numbers
    waves = torch.stack([angle.cos(), angle.sin()]) * window.unsqueeze(-1)
    with torch.autocast(x.device.type, enabled=False):
        sums = torch.einsum("...t,wtn->w...n", x, waves.to(x.dtype))
    power = sums.square().sum(0) + torch.finfo(x.dtype).tiny
    return power.log() - power.sum(-1, keepdim=True).log()


def _unit(x: Tensor) -> Tensor:
    """Centred and of norm one, or zero."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    x = x - x[..., :1]  # exact zeros for a constant
    x = x / _scale(x)
    x = x - x.mean(-1, keepdim=True)
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square == 0, 0, x / torch.where(square == 0, 1, square).sqrt())


def _mean(values: Tensor) -> Tensor:
    """Of all values; 0 of none."""
    return values.mean() if values.numel() else values.sum()


def _scale(x: Tensor) -> Tensor:
    largest = x.detach().abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1)


def _check_pair(prediction: Tensor, target: Tensor) -> None:
    check_signal(prediction, "prediction")
    check_signal(target, "target")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
