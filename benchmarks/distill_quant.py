"""Speed bars of the quantisers: torch's fake quantisation, a table of distances, and a step without quantiser."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.claims.shared.convnets import convnet
from throughline.discrete.quantization import WeightQuantizer, huffman, nonuniform_quantize, uniform_quantize

BUCKETS, SIZE, LEVELS = 4096, 256, 16
SYMBOLS = 4_000_000


def alike(one: Tensor, other: Tensor) -> None:
    """Equal but for one weight in 100,000: in the middle between two levels, rounding decides."""
    assert ((one - other).abs() > 1e-4).double().mean() < 1e-5


def uniform() -> dict[str, Callable[[], Any]]:
    # every bucket reaches from -7 to 8 steps, so that the peer's integer zero point is the exact one
    weight = (torch.randn(BUCKETS, SIZE, generator=torch.Generator().manual_seed(0)) * 2).clamp(-7, 8)
    weight[:, 0], weight[:, 1] = -7, 8
    step = torch.rand(BUCKETS, generator=torch.Generator().manual_seed(1)) + 0.5
    weight = weight * step[:, None]
    zero = torch.full((BUCKETS,), 7, dtype=torch.int32)

    def ours() -> Tensor:
        return uniform_quantize(weight, LEVELS, bucket_size=SIZE)

    def peer() -> Tensor:
        return torch.fake_quantize_per_channel_affine(weight, step, zero, 0, 0, LEVELS - 1)

    def agree() -> None:
        alike(ours(), peer())

    return {"ours": ours, "peer": peer, "agree": agree}


def nonuniform() -> dict[str, Callable[[], Any]]:
    weight = torch.rand(BUCKETS, SIZE, generator=torch.Generator().manual_seed(0))
    weight[:, 0], weight[:, 1] = 0, 1  # buckets that are scaled already, as the table wants them
    points = torch.rand(LEVELS, generator=torch.Generator().manual_seed(1)).sort().values
    flat = weight.flatten()

    def ours() -> Tensor:
        return nonuniform_quantize(weight, points, bucket_size=SIZE)

    def peer() -> Tensor:
        return (flat[:, None] - points).abs().argmin(1)

    def agree() -> None:
        alike(ours().flatten(), points[peer()])

    return {"ours": ours, "peer": peer, "agree": agree}


def step() -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    x, y = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
    quantised = convnet((1, 28, 28), (4, 8, 32), 10)
    plain = copy.deepcopy(quantised)

    def stepper(model: torch.nn.Module, around: AbstractContextManager[Any]) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, nesterov=True)

        def call() -> None:
            with around:
                F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

        return call

    def agree() -> None:
        ours, theirs = copy.deepcopy(quantised), WeightQuantizer(copy.deepcopy(quantised), 2).finalize()
        with WeightQuantizer(ours, 2):
            F.cross_entropy(ours(x), y).backward()
        F.cross_entropy(theirs(x), y).backward()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)

    return {
        "ours": stepper(quantised, WeightQuantizer(quantised, 2)),
        "peer": stepper(plain, nullcontext()),
        "agree": agree,
    }


def decoding() -> dict[str, Callable[[], Any]]:
    symbols = np.random.default_rng(0).normal(1.5, 0.6, SYMBOLS).round().clip(0, 3).astype(np.uint8)
    coded = huffman.encode(symbols, 4)

    def ours() -> np.ndarray:
        return huffman.decode(coded, SYMBOLS)

    def agree() -> None:
        assert np.array_equal(ours(), symbols)

    return {"ours": ours, "agree": agree}


N = BUCKETS * SIZE
CASES = [
    Case(
        f"uniform_quantize, {N:,} weights in buckets of {SIZE}, {LEVELS} levels",
        uniform,
        2.5,
        f"fake_quantize_per_channel_affine, torch {torch.__version__}",
        bytes=4 * 2 * N,
    ),
    Case(
        f"nonuniform_quantize, {N:,} weights, {LEVELS} points",
        nonuniform,
        1 / 3,
        "argmin over a table of distances",
        bytes=4 * 2 * N,
    ),
    Case(
        "training step of a student of 13,000 weights at 2 bits, batch 64",
        step,
        1.3,
        "the step without quantiser",
        work="less",
    ),
    Case(f"decoding {SYMBOLS:,} weights of 2 bits", decoding, bar_seconds=2.0, bytes=3 * SYMBOLS),
]


def rounding(weights: int) -> Callable[[], Any]:
    weight = torch.rand(weights // SIZE, SIZE)
    return lambda: uniform_quantize(weight, LEVELS, bucket_size=SIZE)


def placing(weights: int) -> Callable[[], Any]:
    weight, points = torch.rand(weights // SIZE, SIZE), torch.linspace(0, 1, LEVELS)
    return lambda: nonuniform_quantize(weight, points, bucket_size=SIZE)


GROWTH = [
    Growth("uniform_quantize", "weights", 2**20, rounding, time=1, memory=1),
    Growth("nonuniform_quantize, 16 points", "weights", 2**20, placing, time=1, memory=1),
]
