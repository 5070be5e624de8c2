"""Stages of one small cell: the space of NAS-Bench-201 for images, and a smaller one for signals.

"NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search" (arXiv 2001.00326).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from throughline.core.checks import readable
from throughline.search.spaces.building import (
    Decisions,
    check_counts,
    check_decisions,
    check_input,
    check_options,
    drawn_from,
    edge_choices,
    node,
)
from throughline.search.spaces.operations import CONV, NORM, candidate, conv_norm
from throughline.search.supernet import Choice, discretise

__all__ = ["NAS_BENCH_201_OPS", "cells_1d", "nas_bench_201"]

NAS_BENCH_201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("1_0", "2_0", "2_1", "3_0", "3_1", "3_2")  # to a node, from an earlier one; node 0 is the input


def nas_bench_201(
    channels: int = 16,
    cells: int = 5,
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    ops: Sequence[str] = NAS_BENCH_201_OPS,
    decisions: Decisions | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The space of NAS-Bench-201 (arXiv 2001.00326): three stages of ``cells`` equal cells with C, 2C and 4C channels.

    A cell has four nodes; node i adds up an edge from every earlier one. All cells share the six choices ``edge.i_j``,
    of the edge from node j to node i. BatchNorm inside the cells is affine in a fixed network alone.

    Args:
        channels: C.
        cells: in each stage.
        num_classes: outputs.
        in_channels: of the images ``(N, in_channels, height, width)``, both at least 4.
        ops: the options of every edge: ``none``, ``noise``, ``skip_connect``, and with a kernel, such as 3x3,
            ``nor_conv``, ``sep_conv``, ``dil_conv``, ``avg_pool`` and ``max_pool``.
        decisions: an option, or None for a cut edge, for each choice, as a selection gives it: builds the fixed
            network.
        generator: of all initial values; torch's global one by default.

    Returns:
        The supernet, or with ``decisions`` a plain network; images to logits ``(N, num_classes)``.

    Raises:
        TypeError, ValueError: an argument out of range, options or decisions that there are not; in the call, images
            of another shape or smaller than 4x4.

    >>> net = nas_bench_201(channels=4, cells=1)
    >>> net(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    >>> fixed = nas_bench_201(decisions=dict.fromkeys([f"edge.{e}" for e in EDGES], "nor_conv_3x3"))
    >>> sum(p.numel() for p in fixed.parameters())
    1531546
    """
    check_counts(channels=channels, cells=cells, num_classes=num_classes, in_channels=in_channels)

    def build(made: Sequence[Choice]) -> tuple[nn.Module, list[nn.Module], int]:
        stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        found: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            found += [Shrink(width // 2, width)] if stage else []
            found += [_cell(made, width, 2, affine=decisions is not None) for _ in range(cells)]
        return stem, found, 4 * channels

    return _network(build, num_classes, in_channels, check_options("ops", ops, 2), decisions, generator, 2, least=4)


def cells_1d(
    channels: int = 16,
    num_classes: int = 10,
    *,
    in_channels: int = 1,
    ops: Sequence[str] = ("skip_connect", "avg_pool_3", "nor_conv_3"),
    decisions: Decisions | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The cell of NAS-Bench-201 (arXiv 2001.00326) for signals: two of them, with a convolution of stride 2 in front of
    each. With the default options there are 3⁶ = 729 architectures.

    Args:
        channels: of the cells.
        num_classes: outputs.
        in_channels: of the signals ``(N, in_channels, length)``.
        ops: the options of every edge: ``none``, ``noise``, ``skip_connect``, and with a kernel, such as 3,
            ``nor_conv``, ``sep_conv``, ``dil_conv``, ``avg_pool`` and ``max_pool``.
        decisions, generator: as of `nas_bench_201`; the choices are ``edge.1_0`` to ``edge.3_2``.

    Returns:
        The supernet, or with ``decisions`` a plain network; signals to logits ``(N, num_classes)``.

    Raises:
        TypeError, ValueError: as `nas_bench_201`; in the call, signals of another shape.

    >>> cells_1d()(torch.randn(2, 1, 40)).shape
    torch.Size([2, 10])
    """
    check_counts(channels=channels, num_classes=num_classes, in_channels=in_channels)

    def build(made: Sequence[Choice]) -> tuple[nn.Module, list[nn.Module], int]:
        stem = nn.Sequential(nn.Conv1d(in_channels, channels, 5, 2, 2, bias=False), nn.BatchNorm1d(channels))
        first, last = (_cell(made, channels, 1, affine=decisions is not None) for _ in range(2))
        return stem, [first, conv_norm(1, channels, channels, 3, 2), last], channels

    return _network(build, num_classes, in_channels, check_options("ops", ops, 1), decisions, generator, 1, least=1)


def _network(
    build: Callable[[Sequence[Choice]], tuple[nn.Module, list[nn.Module], int]],
    num_classes: int,
    in_channels: int,
    ops: tuple[str, ...],
    decisions: Decisions | None,
    generator: torch.Generator | None,
    dims: int,
    least: int,
) -> nn.Module:
    check_decisions(decisions, {f"edge.{key}": ops for key in EDGES})
    with drawn_from(generator):
        edge = edge_choices("edge", dict.fromkeys(EDGES, ops), decisions)
        stem, cells, width = build(list(edge.values()))  # type: ignore[arg-type]
        norm, classifier = NORM[dims](width), nn.Linear(width, num_classes)
    net = StagedNetwork(edge, stem, cells, norm, classifier, (in_channels, dims, least))
    return net if decisions is None else discretise(net)


class StagedNetwork(nn.Module):
    """Stem, cells, BatchNorm, ReLU, mean over all places, linear."""

    def __init__(
        self,
        edge: nn.ModuleDict,
        stem: nn.Module,
        cells: list[nn.Module],
        norm: nn.Module,
        classifier: nn.Module,
        wanted: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.edge = edge  # in front: choices go by these names
        self.stem, self.cells, self.norm, self.classifier = stem, nn.ModuleList(cells), norm, classifier
        self.relu = nn.ReLU()
        self._wanted = wanted

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, *self._wanted)
        if x.ndim == 4 and x.is_cpu and readable(x):
            x = x.contiguous(memory_format=torch.channels_last)  # which has the faster kernels there
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        logits: Tensor = self.classifier(self.relu(self.norm(x)).flatten(2).mean(2))
        return logits


class Cell(nn.Module):
    """Nodes that each add up their edges from the input and from all nodes before; the last one is the output."""

    def __init__(self, nodes: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for each in self.nodes:
            states.append(each(states))
        return states[-1]


class Shrink(nn.Module):
    """The residual block between stages: half the size, twice the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(2, inputs, outputs, 3, 2), conv_norm(2, outputs, outputs, 3))
        # ceil_mode keeps up with the convolution where a side is odd
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), CONV[2](inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


def _cell(choices: Sequence[Choice], channels: int, dims: int, affine: bool) -> Cell:
    ends = [sum(range(i)) for i in range(1, 5)]  # 0, 1, 3, 6: node i has i edges
    make = lambda _, name: candidate(name, channels, dims=dims, affine=affine)  # noqa: E731
    return Cell([node(choices[first:last], make) for first, last in pairwise(ends)])
