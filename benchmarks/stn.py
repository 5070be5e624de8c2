"""Speed bars of the best-response layers, forward and backward: plain layers of torch, and the arithmetic of the
layers of the authors (github.com/asteroidhouse/self-tuning-networks at 3c42049), written anew.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.best_response import BestResponseConv2d, BestResponseLinear

N = 6  # hyperparameters
Layer = BestResponseLinear | BestResponseConv2d
TORCH = f"torch {torch.__version__}"


def official(layer: Layer, plain: Callable[..., Tensor], x: Tensor, hyper: Tensor) -> Tensor:
    """As the authors' code has it: one small layer for all gates, which are cut out of its result, and a factor of the
    elementary part, learned and 1 at the start."""
    assert layer.bias is not None
    gates = F.linear(hyper, torch.cat([layer.weight_gate, layer.bias_gate]))  # type: ignore[list-item]
    shape = (len(x), -1, *(1,) * (x.ndim - 2))
    weight_gate, bias_gate = (gate.reshape(shape) for gate in gates.chunk(2, 1))
    made = SCALE * (plain(x, layer.weight) + layer.bias.view(1, *shape[1:]))
    made = made + weight_gate * plain(x, layer.response_weight)
    return made + bias_gate * layer.response_bias.view(1, *shape[1:])  # type: ignore[union-attr]


SCALE = torch.ones(1, requires_grad=True)


def compared(layer: Layer, module: nn.Module, x: Tensor, peer: str) -> dict[str, Callable[[], Any]]:
    draw = torch.Generator().manual_seed(1)
    hyper = torch.randn(len(x), N, generator=draw).requires_grad_()
    with torch.no_grad():
        layer.weight_gate.normal_(generator=draw)
    out = torch.randn(layer(x, hyper).shape, generator=draw)
    if isinstance(layer, BestResponseConv2d):
        plain = partial(F.conv2d, stride=layer.stride, padding=layer.padding)
    else:
        plain = F.linear
    x = x.requires_grad_()

    def step(call: Callable[[], Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(), (x, *leaves), out)

    def theirs() -> Tensor:
        return official(layer, plain, x, hyper)

    learned = (*layer.parameters(), hyper)

    def ours() -> tuple[Tensor, ...]:
        return step(lambda: layer(x, hyper), *learned)

    def agree() -> None:
        torch.testing.assert_close(layer(x, hyper), theirs(), atol=1e-3, rtol=1e-4)
        for one, other in zip(ours(), step(theirs, *learned), strict=True):
            torch.testing.assert_close(one, other, atol=2e-4 * float(other.detach().abs().max()), rtol=1e-3)
        silent = torch.zeros(len(x), N)
        if layer.response_bias is not None:  # at λ = 0 it is the plain layer
            torch.testing.assert_close(layer(x, silent), module(x), atol=1e-4, rtol=1e-4)

    peers = {
        "plain": lambda: step(lambda: module(x), *module.parameters()),
        "official": lambda: step(theirs, *learned, SCALE),
    }
    return {"ours": ours, "peer": peers[peer], "agree": agree}


def linear(batch: int, width: int, peer: str) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    module = nn.Linear(width, width)
    return compared(BestResponseLinear.from_linear(module, N), module, torch.randn(batch, width), peer)


def convolution(batch: int, channels: int, side: int, peer: str) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    module = nn.Conv2d(channels, channels, 3, padding=1)
    layer = BestResponseConv2d.from_conv2d(module, N)
    return compared(layer, module, torch.randn(batch, channels, side, side), peer)


def one_for_all(batch: int, width: int) -> dict[str, Callable[[], Any]]:
    """A single λ, as in evaluation: Ŵ(λ) is formed once."""
    torch.manual_seed(0)
    module = nn.Linear(width, width)
    layer, x, hyper = BestResponseLinear.from_linear(module, N), torch.randn(batch, width), torch.randn(N)

    def ours() -> Tensor:
        with torch.no_grad():
            return layer(x, hyper)

    def peer() -> Tensor:
        with torch.no_grad():
            return module(x)

    def agree() -> None:
        torch.testing.assert_close(ours(), layer(x, hyper.expand(batch, N)), atol=1e-4, rtol=1e-4)

    return {"ours": ours, "peer": peer, "agree": agree}


FLAT = {"flops": 2 * 3 * 2.0 * 256 * 1024**2, "bytes": 4.0 * (4 * 1024**2 + 4 * 256 * 1024)}
IMAGES = {"flops": 2 * 3 * 2.0 * 32 * 64 * 64 * 9 * 32**2, "bytes": 4.0 * 6 * 32 * 64 * 32**2}
CASES = [
    Case(
        "BestResponseLinear, 1024 to 1024, batch 256",
        partial(linear, 256, 1024, "plain"),
        2.1,
        f"nn.Linear, {TORCH}",
        work="less",
        **FLAT,
    ),
    Case(
        "BestResponseLinear, 1024 to 1024, batch 256, and the authors'",
        partial(linear, 256, 1024, "official"),
        1.0,
        "the authors' layer",
        **FLAT,
    ),
    Case(
        "BestResponseConv2d, 64 to 64, 3 × 3, 32 × 32, batch 32",
        partial(convolution, 32, 64, 32, "plain"),
        2.2,
        f"nn.Conv2d, {TORCH}",
        work="less",
        **IMAGES,
    ),
    Case(
        "BestResponseConv2d, 64 to 64, 3 × 3, 32 × 32, batch 32, and the authors'",
        partial(convolution, 32, 64, 32, "official"),
        1.0,
        "the authors' layer",
        **IMAGES,
    ),
    Case(
        "BestResponseLinear at one λ, 1024 to 1024, batch 1024, forward",
        partial(one_for_all, 1024, 1024),
        1.3,
        f"nn.Linear, {TORCH}",
        work="less",
        flops=2.0 * 1024**3,
        bytes=4.0 * 4 * 1024**2,
    ),
]


def responding(width: int) -> Callable[[], Any]:
    layer, hyper = BestResponseLinear(width, width, 4), torch.rand(64, 4)
    x = torch.randn(64, width, requires_grad=True)
    return lambda: torch.autograd.grad(layer(x, hyper).square().sum(), [x, *layer.parameters()])


GROWTH = [
    Growth("BestResponseLinear, 64 rows, forward and backward", "width", 512, responding, time=2, memory=2, step=2)
]
