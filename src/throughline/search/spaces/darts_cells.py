"""The space of DARTS: normal and reduction cells, each fed by the two cells before it.

"DARTS: Differentiable Architecture Search" (arXiv 1806.09055); the options are those of "Rethinking Architecture
Selection in Differentiable NAS" (arXiv 2108.04392).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

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
from throughline.search.spaces.operations import DropPath, FactorizedReduce, candidate, conv_norm
from throughline.search.supernet import discretise

__all__ = ["DARTS_OPS", "darts"]

DARTS_OPS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
EDGES = tuple(f"{i}_{j}" for i in range(2, 6) for j in range(i))  # to node i from state j; 0 and 1 are the inputs
ENDS = (0, 2, 5, 9, 14)  # where the edges of each node begin

Primitives = Sequence[str] | Sequence[Sequence[str]] | Sequence[Sequence[Sequence[str]]]


def darts(
    channels: int = 16,
    layers: int = 8,
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    primitives: Primitives = DARTS_OPS,
    decisions: Decisions | None = None,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The space of DARTS (arXiv 1806.09055, section 2.1 and appendix A): cells of four nodes, of which two kinds.

    Reduction cells, at a third and two thirds of the depth, halve the size and double the channels. Node i (2 to 5)
    adds up edges from the outputs of the two cells before (0 and 1) and from all earlier nodes, and an architecture
    keeps two of them. The choices are ``normal.i_j`` and ``reduce.i_j``, of the edge from j to i. BatchNorm inside the
    cells is affine in a fixed network alone, where none follows a pool.

    Args:
        channels: of the first cells.
        layers: cells.
        num_classes: outputs.
        in_channels: of the images ``(N, in_channels, height, width)``.
        primitives: the options: one sequence for all edges, one for each of the 14 edges, or a pair of these 14, for
            normal and for reduction cells. There are ``none``, ``noise`` (drawn from a generator of its own where
            ``generator`` is given), ``skip_connect``, and with a kernel, such as 3x3, ``nor_conv``, ``sep_conv``,
            ``dil_conv``, ``avg_pool`` and ``max_pool``.
        decisions: an option, or None for a cut edge, for each choice, as a selection gives it: builds the fixed
            network.
        auxiliary: a second classifier after the second reduction cell. In training the output is then a pair of
            logits; images must be at least 32 wide and high.
        drop_path: in [0, 1): the rate at which the output of an edge is dropped for a sample while training, identities
            aside. The attribute of this name changes it, as a schedule does.
        generator: of all initial values; torch's global one by default.

    Returns:
        The supernet, or with ``decisions`` a plain network; images to logits ``(N, num_classes)``.

    Raises:
        TypeError, ValueError: an argument out of range, options or decisions that there are not; in the call, images
            of another shape.

    >>> net = darts(channels=4, layers=3)
    >>> net(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    check_counts(channels=channels, layers=layers, num_classes=num_classes, in_channels=in_channels)
    kinds = [check_options("primitives", names, 2) for names in _primitives(primitives)]
    options = {f"{kind}.{key}": kinds.pop(0) for kind in ("normal", "reduce") for key in EDGES}
    check_decisions(decisions, options)
    with drawn_from(generator):
        noise = None
        if generator is not None:
            noise = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        net = CellNetwork(channels, layers, num_classes, in_channels, options, decisions, auxiliary, noise)
    net.drop_path = drop_path
    return net if decisions is None else discretise(net)


class CellNetwork(nn.Module):
    """Stem, cells that see the two before them, mean over all places, linear."""

    def __init__(
        self,
        channels: int,
        layers: int,
        num_classes: int,
        in_channels: int,
        options: dict[str, tuple[str, ...]],
        decisions: Decisions | None,
        auxiliary: bool,
        noise: torch.Generator | None,
    ) -> None:
        super().__init__()
        of = {kind: {key: options[f"{kind}.{key}"] for key in EDGES} for kind in ("normal", "reduce")}
        self.normal = edge_choices("normal", of["normal"], decisions)  # in front: choices go by these names
        self.reduce = edge_choices("reduce", of["reduce"], decisions)
        before = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(in_channels, last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
        self.cells = nn.ModuleList()
        self.auxiliary: Auxiliary | None = None
        self._second, halved = 2 * layers // 3, False
        for i in range(layers):
            reduces = i in (layers // 3, self._second)
            channels *= 2 if reduces else 1
            choices = list((self.reduce if reduces else self.normal).values())
            self.cells.append(Cell(choices, before, last, channels, reduces, halved, decisions is not None, noise))
            before, last, halved = last, 4 * channels, reduces
            if auxiliary and i == self._second:
                self.auxiliary = Auxiliary(last, num_classes)
        self.classifier = nn.Linear(last, num_classes)
        self._wanted = in_channels, 2, 32 if auxiliary else 1

    @property
    def drop_path(self) -> float:
        """The rate at which the output of an edge is dropped for a sample, in [0, 1)."""
        return self._drop_path

    @drop_path.setter
    def drop_path(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path must be in [0, 1), got {rate}")
        self._drop_path = rate
        for module in self.modules():
            if isinstance(module, DropPath):
                module.rate = rate

    def forward(self, x: Tensor) -> Any:
        check_input(x, *self._wanted)
        before = last = self.stem(x)
        extra = None
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if self.auxiliary is not None and self.training and i == self._second:
                extra = self.auxiliary(last)
        logits = self.classifier(last.mean((2, 3)))
        return logits if extra is None else (logits, extra)


class Cell(nn.Module):
    """Both inputs brought to one width and size, four nodes, and the concatenation of these."""

    def __init__(
        self,
        choices: list[Any],
        before: int,
        last: int,
        channels: int,
        reduces: bool,
        halved: bool,
        affine: bool,
        noise: torch.Generator | None,
    ) -> None:
        super().__init__()
        older = FactorizedReduce(before, channels, affine) if halved else conv_norm(2, before, channels, 1, 1, affine)
        self.preprocess = nn.ModuleList([older, conv_norm(2, last, channels, 1, 1, affine)])

        def make(j: int, name: str) -> nn.Module:
            stride = 2 if reduces and j < 2 else 1
            op = candidate(name, channels, stride, affine=affine, normed_pools=not affine, generator=noise)
            return op if isinstance(op, nn.Identity) else nn.Sequential(op, DropPath(0.0))

        self.nodes = nn.ModuleList([node(choices[first:end], make, keep=2) for first, end in pairwise(ENDS)])

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        states = [process(x) for process, x in zip(self.preprocess, (before, last), strict=True)]
        for each in self.nodes:
            states.append(each(states))
        return torch.cat(states[2:], 1)


class Auxiliary(nn.Module):
    """The classifier in the middle of the network, on features a quarter of the image's size (arXiv 1806.09055)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, 3, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def _primitives(given: Primitives) -> list[Any]:
    """The options of the 14 normal and the 14 reduction edges."""
    if isinstance(given, str):
        raise TypeError(f"primitives must be a sequence, got {given!r}")
    if all(isinstance(name, str) for name in given):
        return [given] * 28
    if len(given) == 14:
        return [*given, *given]
    sizes = [len(part) for part in given]
    if sizes == [14, 14] and not any(isinstance(edge, str) for part in given for edge in part):
        return [edge for part in given for edge in part]
    raise ValueError(
        f"primitives must be one sequence of names, 14 of them, or a pair of 14, got {len(given)} of lengths {sizes}"
    )
