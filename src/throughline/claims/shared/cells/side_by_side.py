"""Networks of one architecture as a single one: their own numbers, up to rounding, for a fraction of the calls."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

__all__ = ["SideBySide"]


class SideBySide(nn.Module):
    """Fixed networks of `cells_1d`, or of `nas_bench_201`, with one set of decisions: ``(n, S, c, ...)`` to logits
    ``(n, S, classes)``.

    Network s sees entry s of the second dimension alone: convolutions have a group for each, BatchNorm knows its
    channels apart, and so does an optimizer that treats every number alike. Signals run as images of height 1, in
    channels-last memory, which is the layout with the fast kernels.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        merged: Any = _merged(list(nets))
        self.stem, self.cells, self.norm, self.relu = merged.stem, merged.cells, merged.norm, merged.relu
        heads: list[Any] = [net.classifier for net in nets]
        self.weight = nn.Parameter(torch.stack([head.weight.detach() for head in heads]))  # (S, classes, width)
        self.bias = nn.Parameter(torch.stack([head.bias.detach() for head in heads]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        x = (x[:, :, None] if x.ndim == 3 else x).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        features = self.relu(self.norm(x)).mean((2, 3)).view(len(x), len(self.weight), -1)
        return torch.einsum("nsw,skw->nsk", features, self.weight) + self.bias


def _merged(parts: list[Any]) -> Any:
    """One module that does what ``parts`` do side by side; the first of them is used up."""
    first = parts[0]
    if isinstance(first, _ConvNd):
        return _convolution(parts)
    if isinstance(first, _BatchNorm):
        return _norm(parts)
    if isinstance(first, nn.AvgPool1d):
        kernel, stride, padding = (_number(value) for value in (first.kernel_size, first.stride, first.padding))
        return nn.AvgPool2d((1, kernel), (1, stride), (0, padding), count_include_pad=first.count_include_pad)
    if isinstance(first, nn.MaxPool1d):
        kernel, stride, padding = (_number(value) for value in (first.kernel_size, first.stride, first.padding))
        return nn.MaxPool2d((1, kernel), (1, stride), (0, padding))
    for name in first._modules:
        first._modules[name] = _merged([part._modules[name] for part in parts])
    return first


def _number(value: Any) -> int:
    """The number of a module for signals, which holds it as it is or in a tuple."""
    return int(value[0] if isinstance(value, tuple) else value)


def _convolution(parts: list[Any]) -> nn.Conv2d:
    first, count, flat = parts[0], len(parts), isinstance(parts[0], nn.Conv1d)
    conv = nn.Conv2d(
        count * first.in_channels,
        count * first.out_channels,
        (1, *first.kernel_size) if flat else first.kernel_size,
        (1, *first.stride) if flat else first.stride,
        (0, *first.padding) if flat else first.padding,
        (1, *first.dilation) if flat else first.dilation,
        count * first.groups,
        bias=first.bias is not None,
    )
    weight = torch.cat([part.weight.detach() for part in parts])
    conv.weight.data = (weight[:, :, None] if flat else weight).contiguous(memory_format=torch.channels_last)
    if conv.bias is not None:
        conv.bias.data = torch.cat([part.bias.detach() for part in parts])
    return conv


def _norm(parts: list[Any]) -> nn.BatchNorm2d:
    first, states = parts[0], [part.state_dict() for part in parts]
    dtype = first.running_mean.dtype
    norm = nn.BatchNorm2d(len(parts) * first.num_features, first.eps, first.momentum, first.affine, dtype=dtype)
    norm.load_state_dict(
        {
            name: torch.cat([state[name] for state in states]) if value.ndim else value
            for name, value in states[0].items()
        }
    )
    return norm
