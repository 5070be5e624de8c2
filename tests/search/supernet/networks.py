"""Small supernets that the tests share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from throughline.search.supernet import Choice, MixedOp, Node


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=seeded(seed), dtype=torch.float64)


class Scale(nn.Module):
    """x times a learned number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


def choice(names: Sequence[str] = ("a", "b", "c"), alpha: Sequence[float] = ()) -> Choice:
    made = Choice(names, dtype=torch.float64, generator=seeded())
    if alpha:
        with torch.no_grad():
            made.alpha.copy_(torch.tensor(alpha, dtype=torch.float64))
    return made


def mixed(made: Choice | None = None, factors: Sequence[float] = (2.0, 3.0, 5.0)) -> MixedOp:
    made = choice() if made is None else made
    return MixedOp({name: Scale(f) for name, f in zip(made.names, factors, strict=True)}, made)


class Cell(nn.Module):
    """Two nodes: the first has one edge from the input, the second one from the input and one from the first."""

    def __init__(self, made: Sequence[Choice], keep: int | None = None) -> None:
        super().__init__()
        self.first = Node([mixed(made[0])])
        self.second = Node([mixed(made[1], (7.0, 11.0, 13.0)), mixed(made[2], (17.0, 19.0, 23.0))], keep=keep)

    def forward(self, x: Tensor) -> Tensor:
        return self.second([x, self.first([x])])


class Net(nn.Module):
    """Two cells that share their choices, with BatchNorm between them."""

    def __init__(self, keep: int | None = 1) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({str(i): choice(alpha=(0.1 * i, 0.3, -0.2)) for i in range(3)})
        made = list(self.edges.values())
        self.cells = nn.ModuleList([Cell(made, keep) for _ in range(2)])
        self.norm = nn.BatchNorm1d(4, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells[1](self.norm(self.cells[0](x)))
