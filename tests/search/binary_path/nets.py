"""Small supernets in float64, and what the tests share."""

import torch
from torch import Tensor, nn

from throughline.search.supernet import Choice, MixedOp

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=seeded(seed), dtype=DOUBLE)


def choice(*names: str, seed: int = 0) -> Choice:
    return Choice(names, scale=1.0, generator=seeded(seed), dtype=DOUBLE)


class Scale(nn.Module):
    """factor · x, with a learned factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=DOUBLE))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


def mixed(seed: int = 0, names: tuple[str, ...] = ("linear", "tanh", "norm")) -> MixedOp:
    """A layer from 4 to 4 features, with candidates of three kinds."""
    draw = seeded(seed)
    ops: dict[str, nn.Module] = {"tanh": nn.Sequential(linear(draw), nn.Tanh()), "linear": linear(draw)}
    ops["norm"] = nn.Sequential(linear(draw), nn.BatchNorm1d(4, dtype=DOUBLE))
    return MixedOp({name: ops[name] for name in names}, choice(*names, seed=seed))


def linear(draw: torch.Generator) -> nn.Linear:
    made = nn.Linear(4, 4, dtype=DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=DOUBLE) / 2)
    return made
