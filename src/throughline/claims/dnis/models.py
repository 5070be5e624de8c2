"""Recommenders over ids of several fields, which share one table: factorisation machines, perceptrons, and both."""

from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Recommender"]

HIDDEN = (64, 32)


class Recommender(nn.Module):
    """A score for ids ``(B, fields)``: biases and a constant, and what the kind of model adds to them.

    "fm" adds mean_k ½[(Σ_f e_f)² − Σ_f e_f²]_k, "mlp" and "wide-deep" a perceptron of the embeddings side by side,
    "deepfm" both, and "neumf" a perceptron beside the elementwise product of embeddings of its own. Tables are Xavier
    normal, biases 0.
    """

    def __init__(self, kind: str, features: int, fields: int, dim: int, constant: float) -> None:
        super().__init__()
        self.table, self.bias = nn.Embedding(features, dim), nn.Embedding(features, 1)
        self.constant = nn.Parameter(torch.tensor(constant))
        self.interacts = kind in ("fm", "deepfm")
        self.products = nn.Embedding(features, dim) if kind == "neumf" else None
        self.tower = None if kind == "fm" else perceptron(fields * dim)
        self.top = None if kind == "fm" else nn.Linear(HIDDEN[-1] + dim * (kind == "neumf"), 1)
        for name in self.tables:
            nn.init.xavier_normal_(self.get_submodule(name).weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.bias.weight)

    @property
    def tables(self) -> tuple[str, ...]:
        """The embeddings whose sizes are in question."""
        return ("table",) if self.products is None else ("table", "products")

    def forward(self, ids: Tensor) -> Tensor:
        e = self.table(ids)
        score: Tensor = self.bias(ids).sum((1, 2)) + self.constant
        if self.interacts:
            score = score + 0.5 * (e.sum(1).square() - e.square().sum(1)).mean(1)
        if self.tower is not None and self.top is not None:
            hidden = self.tower(e.flatten(1))
            if self.products is not None:
                hidden = torch.cat([hidden, self.products(ids).prod(1)], 1)
            score = score + self.top(hidden)[:, 0]
        return score


def perceptron(inputs: int) -> nn.Sequential:
    widths = (inputs, *HIDDEN)
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*(layer for pair in layers for layer in pair))
