"""What a bilevel problem of the BO-REP claim is, and what its problems are made with."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PENALTY", "Encoder", "Problem", "Tree", "parameters", "sampled"]

Tree = dict[str, Tensor]
PENALTY = 1e-4  # of the head, λ/2 |y|²: G is strongly convex in it


class Problem(NamedTuple):
    """min over x of F(x, y*(x)), with what is needed to learn and to judge it."""

    x: Tree
    y: Tree
    upper_loss: Callable[[Tree, Tree, Any], Tensor]
    lower_loss: Callable[[Tree, Tree, Any], Tensor]
    upper_batches: Iterator[Any]
    lower_batches: Iterator[Any]
    test: Callable[[Tree, Tree], dict[str, float]]  # loss and accuracy on the whole test part
    probe: Callable[[Tree, Tree], float]  # loss on some of it, for curves


class Encoder(nn.Module):
    """Tokens (n, t) to tanh hidden states (n, t, h); the recurrent matrices are orthogonal times ``gain``."""

    def __init__(self, words: int | Tensor, width: int, hidden: int, layers: int, gain: float) -> None:
        super().__init__()
        if isinstance(words, Tensor):  # given vectors are not learned
            self.register_buffer("vectors", words)
        else:
            self.vectors = nn.Parameter(torch.randn(words, width))
        self.rnn = nn.RNN(width, hidden, layers, batch_first=True)
        for name, matrix in self.rnn.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(matrix, gain)

    def forward(self, tokens: Tensor) -> Tensor:
        states: Tensor = self.rnn(F.embedding(tokens, self.vectors))[0]
        return states


def sampled(draw: Callable[[torch.Generator], Any], seed: int) -> Iterator[Any]:
    """Batches without an end, the same for every arm: each level of the problem has a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield draw(generator)


def parameters(module: nn.Module) -> Tree:
    return dict(module.named_parameters())
