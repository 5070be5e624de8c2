"""Networks that the tests of self-distillation look at."""

import torch
from torch import Tensor, nn

from throughline.search.supernet import Choice, MixedOp

DTYPE = {"dtype": torch.float64}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), **DTYPE)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Parameters that depend on nothing but the seed, in float64."""
    draw = seeded(seed)
    with torch.no_grad():
        for p in model.double().parameters():
            p.copy_(torch.randn(p.shape, generator=draw, **DTYPE) / 2)
    return model


class Classifier(nn.Module):
    """Batch norm, dropout, tied weights and a buffer that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()
        self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = self.drop(self.norm(self.first(x)).tanh()) + self.shift
        return scale * self.head(self.second(x))  # type: ignore[no-any-return]


class Supernet(nn.Module):
    """Two edges that share a choice, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        shared = Choice(["skip", "linear", "square"], generator=seeded(3))
        self.first, self.second = (MixedOp(self.candidates(), shared) for _ in range(2))
        self.last = MixedOp(self.candidates(), Choice(["skip", "linear", "square"], generator=seeded(4)))
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    @staticmethod
    def candidates() -> dict[str, nn.Module]:
        return {"skip": nn.Identity(), "linear": nn.Linear(4, 4), "square": nn.Sequential(nn.Linear(4, 4), nn.Tanh())}

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.norm(self.second(self.first(x)))))  # type: ignore[no-any-return]
