"""Rows of `throughline.sensing.pulse`."""

import math

import numpy as np
import scipy.signal
import torch
from tests.contract.part import Bad, Part, normal
from torch import Generator, Tensor, nn

from throughline.sensing.pulse import (
    DifferentialFrameFusion,
    PulseLoss,
    PulseNet,
    TemporalShiftAttention,
    bandpass,
    chrom,
    detrend,
    green,
    heart_rate,
    neg_pearson,
    normalized_difference,
    pos,
    pulse_snr,
    pulse_spectrum,
    temporal_shift,
)

FS = 10.0


def trace(generator: Generator, frames: int = 24) -> tuple[Tensor]:
    return (torch.rand(frames, 3, generator=generator, dtype=torch.float64) + 1,)


def signal(generator: Generator, frames: int = 30) -> tuple[Tensor]:
    return (normal(generator, frames),)


def clip(generator: Generator, frames: int = 4, side: int = 5) -> tuple[Tensor]:
    return (torch.rand(3, frames, side, side, generator=generator, dtype=torch.float64) + 0.1,)


def seeded() -> Generator:
    return torch.Generator().manual_seed(3)


def scaled(sample: tuple[Tensor], factor: float) -> tuple[Tensor]:
    return (sample[0] * factor,)


TRACES = {
    "single": lambda: (torch.full((24, 3), 0.3, dtype=torch.float64),),
    "large": lambda: scaled(trace(seeded()), 1e8),
    "tiny": lambda: scaled(trace(seeded()), 1e-30),
    "frozen for a while": lambda: (torch.cat([trace(seeded())[0], torch.full((24, 3), 1.7, dtype=torch.float64)]),),
    "black for a while": lambda: (torch.cat([trace(seeded())[0], torch.zeros(24, 3, dtype=torch.float64)]),),
    "grey": lambda: (trace(seeded())[0][:, :1].expand(-1, 3).clone(),),
}
RGB = (
    Bad(TypeError, r"rgb must be floating point, got torch.int64", torch.ones(24, 3).long()),
    Bad(ValueError, r"rgb must have shape \(\.\.\., T, 3\), got \(24, 4\)", torch.ones(24, 4)),
)
WINDOWS = (
    *RGB,
    Bad(ValueError, r"rgb must be at least one window of 16 frames .* got shape \(15, 3\)", torch.ones(15, 3)),
    Bad(ValueError, r"rgb must have positive means", torch.zeros(24, 3)),
    Bad(ValueError, r"rgb must have .* no negative values", torch.ones(24, 3).index_fill(0, torch.tensor([3]), -1.0)),
    Bad(ValueError, r"fs must be a positive number of frames per second, got 0", fs=0),
    Bad(ValueError, r"window must be positive and finite, got nan", window=math.nan),
)
BAND = (
    Bad(ValueError, r"fs must be a positive number of frames per second, got -1", fs=-1),
    Bad(ValueError, r"low must lie in \(0, fs/2\) = \(0, 5\) Hz, got 0", low=0),
    Bad(ValueError, r"high must lie in \(0, fs/2\) = \(0, 5\) Hz, got 5", high=5.0),
    Bad(ValueError, r"low must be below high, got 2 and 1", low=2, high=1),
)
EMPTY = Bad(ValueError, r"must have shape \(\.\.\., T\) with T >= 1, got \(0,\)", torch.zeros(0))
WHOLE = Bad(TypeError, r"must be floating point, got torch.int64", torch.ones(24).long())
WAVES = {"large": lambda: scaled(signal(seeded()), 1e8), "tiny": lambda: scaled(signal(seeded()), 1e-30)}
FRAMES = (
    Bad(TypeError, r"frames must be floating point, got torch.uint8", torch.ones(3, 4, 16, 16, dtype=torch.uint8)),
    Bad(ValueError, r"frames must have shape \(\.\.\., 3, T, H, W\), got \(1, 4, 16, 16\)", torch.ones(1, 4, 16, 16)),
    Bad(ValueError, r"frames must be at least 4 in time, got shape \(3, 3, 16, 16\)", torch.ones(3, 3, 16, 16)),
    Bad(ValueError, r"frames must not be negative, got -1", -torch.ones(3, 4, 16, 16)),
)


GLOBAL = {"untouched": "a module's parameters start from torch's global generator, as those of nn.Linear do"}


def weights(net: nn.Module) -> None:
    """Parameters that do not depend on the global generator."""
    draw = seeded()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 2)


def few(net: PulseNet) -> None:
    """Derivatives by the head and the gates alone: finite differences by all parameters would take minutes."""
    weights(net)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("gate" in name or "head" in name)


def evaluated(net: nn.Module, frames: Tensor) -> Tensor:
    result: Tensor = net.eval()(frames)
    return result


def filtfilt(x: Tensor) -> Tensor:
    numerator, denominator = scipy.signal.butter(1, (0.75, 2.5), "bandpass", fs=FS)
    return torch.from_numpy(scipy.signal.filtfilt(numerator, denominator, x.numpy()).copy())


def inverse(x: Tensor) -> Tensor:
    second = np.diff(np.eye(len(x)), 2, axis=0)
    return x - torch.from_numpy(np.linalg.solve(np.eye(len(x)) + 1e4 * second.T @ second, x.numpy()))


PARTS = [
    Part(chrom, trace, {"fs": FS}, batched=(0,), stretched=(), edges=TRACES, bad=WINDOWS),
    Part(pos, trace, {"fs": FS}, batched=(0,), stretched=(), edges=TRACES, bad=WINDOWS),
    Part(green, trace, batched=(0,), edges={"single": TRACES["single"]}, bad=RGB),
    Part(
        detrend,
        signal,
        batched=(0,),
        reference=inverse,
        bad=(
            EMPTY,
            WHOLE,
            Bad(ValueError, r"smoothing must be finite and not negative, got -1", smoothing=-1),
        ),
    ),
    Part(
        bandpass,
        signal,
        {"fs": FS},
        batched=(0,),
        reference=filtfilt,
        bad=(EMPTY, WHOLE, *BAND, Bad(ValueError, r"order must be at least 1, got 0", order=0)),
    ),
    Part(
        heart_rate,
        signal,
        {"fs": FS},
        batched=(0,),
        stretched=(),
        edges=WAVES | {"single": lambda: signal(seeded())},
        bad=(EMPTY, WHOLE, *BAND, Bad(ValueError, r"resolution must be positive .* got 0", resolution=0)),
    ),
    Part(
        pulse_snr,
        lambda g: (*signal(g, 64), torch.tensor(72.0, dtype=torch.float64)),
        {"fs": FS},
        call=lambda pulse, bpm, **options: pulse_snr(pulse, bpm=bpm, **options),
        foreign=(1,),
        batched=(0, 1),
        constant=(1,),
        stretched=(),
        edges={
            "single": lambda: (normal(seeded(), 40), torch.tensor(72.0)),
            "large": lambda: (normal(seeded(), 40) * 1e8, torch.tensor(72.0)),
            "tiny": lambda: (normal(seeded(), 40) * 1e-30, torch.tensor(72.0)),
        },
        bad=(
            Bad(TypeError, r"pulse must be floating point", torch.ones(64).long(), torch.tensor(72.0)),
            Bad(
                ValueError,
                r"pulse must have at least 33 frames at fs=10\.0, got 32",
                torch.ones(32),
                torch.tensor(72.0),
            ),
            Bad(ValueError, r"tolerance must be positive and finite, got 0", tolerance=0),
            *BAND,
        ),
    ),
    Part(
        neg_pearson,
        lambda g: (*signal(g, 6), *signal(g, 6)),
        batched=(0, 1),
        bad=(
            Bad(ValueError, r"must have one shape, got \(6,\) and \(7,\)", torch.ones(6), torch.ones(7)),
            Bad(TypeError, r"target must be floating point", torch.ones(6), torch.ones(6).long()),
            Bad(ValueError, r"prediction must have shape", torch.ones(0), torch.ones(0)),
        ),
    ),
    Part(
        pulse_spectrum,
        lambda g: (*signal(g, 20), FS, torch.tensor([50.0, 72.5, 100.0], dtype=torch.float64)),
        batched=(0,),
        constant=(2,),
        stretched=(0,),
        edges={"single": lambda: (torch.ones(1, dtype=torch.float64), FS, torch.tensor([60.0]))},
        bad=(
            Bad(ValueError, r"fs must be a positive", torch.ones(6), 0.0, torch.ones(3)),
            Bad(
                ValueError, r"bpm must have shape \(n,\) with n >= 1, got \(1, 3\)", torch.ones(6), FS, torch.ones(1, 3)
            ),
            Bad(TypeError, r"pulse must be floating point", torch.ones(6).long(), FS, torch.ones(3)),
        ),
    ),
    Part(
        PulseLoss,
        lambda g: (normal(g, 2, 20), normal(g, 2, 20), torch.tensor([61.3, 100.0], dtype=torch.float64), 0.5),
        {"fs": FS},
        constant=(2,),
        foreign=(2,),
        stretched=(0, 1),
        edges={"single": lambda: (torch.ones(1, 1), torch.ones(1, 1), torch.tensor([60.0]))},
        bad=(
            Bad(ValueError, r"fs must be a positive", fs=0),
            Bad(ValueError, r"bpm_range must be two increasing positive rates, got \(90, 90\)", bpm_range=(90, 90)),
            Bad(ValueError, r"std must be positive and finite, got 0", std=0),
            Bad(ValueError, r"time_weight must be two positive numbers, got \(0, 1\)", time_weight=(0, 1)),
            Bad(ValueError, r"frequency_weight must be two positive numbers", frequency_weight=(1, math.inf)),
            Bad(ValueError, r"must have one shape", torch.ones(2, 6), torch.ones(2, 7), torch.full((2,), 70.0)),
            Bad(ValueError, r"bpm must have shape \(2,\), got \(3,\)", *torch.ones(2, 2, 6), torch.full((3,), 70.0)),
            Bad(
                ValueError, r"bpm must round to .* got \[70.0, 179.5\]", *torch.ones(2, 2, 6), torch.tensor([70, 179.5])
            ),
            Bad(ValueError, r"bpm must round to .* got \[39\.4", *torch.ones(2, 2, 6), torch.tensor([39.4, 70])),
            Bad(ValueError, r"bpm must round to .* nan", *torch.ones(2, 2, 6)),
            Bad(
                ValueError,
                r"progress must lie in \[0, 1\], got 1\.1",
                *torch.ones(2, 2, 6),
                torch.full((2,), 70.0),
                1.1,
            ),
        ),
        skips={"batch": "the result is the mean over all clips"},
    ),
    Part(
        normalized_difference,
        clip,
        batched=(0,),
        edges={
            "single": lambda: (torch.ones(3, 4, 1, 1, dtype=torch.float64),),
            "black pixels": lambda: (
                torch.zeros(3, 4, 2, 2, dtype=torch.float64).index_fill(1, torch.tensor([1]), 1.0),
            ),
        },
        bad=(*FRAMES, Bad(ValueError, r"eps must be positive, got 0", eps=0)),
    ),
    Part(
        temporal_shift,
        lambda g: (normal(g, 4, 3, 2, 2),),
        batched=(0,),
        bad=(
            Bad(ValueError, r"x must have shape \(\.\.\., C, T, H, W\), got \(3, 2, 2\)", torch.ones(3, 2, 2)),
            Bad(ValueError, r"fold_div must be at least 2, got 1", fold_div=1),
        ),
    ),
    Part(
        DifferentialFrameFusion,
        lambda g: (clip(g)[0].unsqueeze(0),),
        {"channels": 2},
        call=evaluated,
        prepare=weights,
        mixed=True,
        edges={"single": lambda: (torch.ones(1, 3, 4, 1, 1, dtype=torch.float64),)},
        bad=(*FRAMES, Bad(ValueError, r"channels must be at least 1, got 0", channels=0)),
        skips={**GLOBAL, "batch": "convolutions take one batch dimension"},
    ),
    Part(
        TemporalShiftAttention,
        lambda g: (normal(g, 4, 2, 3, 3),),
        {"channels": 4, "heads": 2, "grid": 2},
        mixed=True,
        prepare=weights,
        skips=GLOBAL,
        batched=(0,),
        edges={"single": lambda: (torch.ones(4, 1, 1, 1, dtype=torch.float64),)},
        bad=(
            Bad(ValueError, r"channels must be a positive multiple of heads=2, got 5", channels=5),
            Bad(ValueError, r"grid must be at least 1, got 0", grid=0),
            Bad(ValueError, r"fold_div must be at least 2, got 1", fold_div=1),
            Bad(ValueError, r"x must have shape \(\.\.\., 4, T, H, W\), got \(3, 2, 2, 2\)", torch.ones(3, 2, 2, 2)),
        ),
    ),
    *(
        Part(
            PulseNet,
            lambda g: clip(g, 5, 16),
            {"channels": (2, 2, 4), "heads": 2, **options},
            variant=" ".join(map(str, options.values())),
            call=evaluated,
            prepare=few,
            mixed=True,
            skips=GLOBAL,
            backend="eager",  # its layers are compiled in their own rows
            batched=(0,),
            constant=(0,),
            edges={"single": lambda: (torch.ones(3, 4, 16, 16, dtype=torch.float64),)},
            bad=(
                *FRAMES,
                Bad(ValueError, r"frames must have at least 16 × 16 pixels, got shape", torch.ones(3, 4, 16, 15)),
                Bad(ValueError, r'inputs must be "fused", "raw" or "difference", got \'grey\'', inputs="grey"),
                Bad(ValueError, r"channels must be three positive numbers, got \(2, 2\)", channels=(2, 2)),
            ),
        )
        for options in ({"inputs": "fused"}, {"inputs": "raw", "attention": False}, {"inputs": "difference"})
    ),
]
NOT_PARTS = {
    "throughline.sensing.pulse.read_video": "reads a file: tests/sensing/pulse/test_video.py",
    "throughline.sensing.pulse.synthetic_pulse_video": "no tensor goes in: tests/sensing/pulse/test_generator.py",
}
