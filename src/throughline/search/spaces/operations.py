"""The candidate operations of the spaces, for signals (1) and images (2), by the names that papers give them.

"DARTS: Differentiable Architecture Search" (arXiv 1806.09055) and NAS-Bench-201 (arXiv 2001.00326).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.spaces.averaging import Average2d

__all__ = ["CONV", "NORM", "DropPath", "FactorizedReduce", "candidate", "conv_norm", "known"]

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
NORM: dict[int, type[nn.BatchNorm1d] | type[nn.BatchNorm2d]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
AVERAGE: dict[int, type[nn.AvgPool1d] | type[nn.AvgPool2d]] = {1: nn.AvgPool1d, 2: Average2d}
MAXIMUM: dict[int, type[nn.MaxPool1d] | type[nn.MaxPool2d]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}


class Zero(nn.Module):
    """x · 0, at every ``stride``-th place."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return strided(x, self.stride) * 0


class Noise(nn.Module):
    """Standard normal noise in place of the input, new in every call."""

    def __init__(self, stride: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.stride, self.generator = stride, generator

    def forward(self, x: Tensor) -> Tensor:
        like = strided(x, self.stride)
        if self.generator is None:
            return torch.randn_like(like)
        drawn = torch.randn(like.shape, generator=self.generator, dtype=x.dtype, device=self.generator.device)
        return drawn.to(x.device)


class FactorizedReduce(nn.Module):
    """Half the size by two pointwise convolutions, the second one pixel further down and right (arXiv 1806.09055)."""

    def __init__(self, inputs: int, outputs: int, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - outputs // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted, odd = x[..., 1:, 1:], (x.shape[-1] % 2, x.shape[-2] % 2)
        if any(odd):  # a row or column of zeros more, so that both halves have one size
            shifted = F.pad(shifted, (0, odd[0], 0, odd[1]))
        normed: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], 1))
        return normed


class DropPath(nn.Module):
    """Zeros for whole samples with probability ``rate`` while training; what survives is divided by 1 − rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep.div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def strided(x: Tensor, stride: int) -> Tensor:
    for dim in range(2, x.ndim if stride > 1 else 0):
        x = x[(slice(None),) * dim + (slice(None, None, stride),)]
    return x


def conv_norm(dims: int, inputs: int, outputs: int, kernel: int, stride: int = 1, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution, BatchNorm."""
    conv = CONV[dims](inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, NORM[dims](outputs, affine=affine))


def separable(dims: int, channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> nn.Sequential:
    """ReLU, convolution of each channel alone, of each place alone, BatchNorm."""
    padding = dilation * (kernel // 2)
    depthwise = CONV[dims](channels, channels, kernel, stride, padding, dilation, channels, bias=False)
    pointwise = CONV[dims](channels, channels, 1, bias=False)
    return nn.Sequential(nn.ReLU(), depthwise, pointwise, NORM[dims](channels, affine=affine))


def pool(dims: int, module: nn.Module, channels: int, normed: bool) -> nn.Module:
    return nn.Sequential(module, NORM[dims](channels, affine=False)) if normed else module


Builder = Callable[[int, int, int, int, bool, bool, torch.Generator | None], nn.Module]
# (dimensions, kernel, channels, stride, affine, pools normed, generator of noise)
BUILDERS: dict[str, Builder] = {
    "none": lambda d, k, c, s, a, p, g: Zero(s),
    "noise": lambda d, k, c, s, a, p, g: Noise(s, g),
    "skip_connect": lambda d, k, c, s, a, p, g: nn.Identity() if s == 1 else FactorizedReduce(c, c, a),
    "avg_pool": lambda d, k, c, s, a, p, g: pool(d, AVERAGE[d](k, s, k // 2, count_include_pad=False), c, p),
    "max_pool": lambda d, k, c, s, a, p, g: pool(d, MAXIMUM[d](k, s, k // 2), c, p),
    "nor_conv": lambda d, k, c, s, a, p, g: conv_norm(d, c, c, k, s, a),
    "sep_conv": lambda d, k, c, s, a, p, g: nn.Sequential(*separable(d, c, k, s, 1, a), *separable(d, c, k, 1, 1, a)),
    "dil_conv": lambda d, k, c, s, a, p, g: separable(d, c, k, s, 2, a),
}
KERNELS = {"avg_pool": (3,), "max_pool": (3,), "nor_conv": (1, 3, 5, 7), "sep_conv": (3, 5, 7), "dil_conv": (3, 5)}


def known(dims: int) -> dict[str, tuple[str, int]]:
    """The builder and the kernel of every name of an operation on signals (1) or images (2)."""
    found = {name: (name, 0) for name in BUILDERS if name not in KERNELS}
    sizes = {(kind, k): f"{kind}_{'x'.join([str(k)] * dims)}" for kind, kernels in KERNELS.items() for k in kernels}
    return found | {name: pair for pair, name in sizes.items()}


def candidate(
    name: str,
    channels: int,
    stride: int = 1,
    *,
    dims: int = 2,
    affine: bool = False,
    normed_pools: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The operation of this name, which keeps the number of channels."""
    kind, kernel = known(dims)[name]
    return BUILDERS[kind](dims, kernel, channels, stride, affine, normed_pools, generator)
