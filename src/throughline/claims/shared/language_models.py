"""Language models that a claim trains from nothing, and the windows of text that they read."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

__all__ = ["LanguageModel", "endless_windows", "windows"]


class LanguageModel(nn.Module):
    """A two-layer LSTM with tied embeddings, and a dropout for each thing that may be dropped.

    It is written with ``nn.Linear`` and ``nn.Dropout``, so that it can be converted. Its state is carried on from one
    window of text to the next, for training and evaluation apart.
    """

    def __init__(self, words: int, hidden: int = 650, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.inputs = nn.ModuleList(nn.Linear(hidden, 4 * hidden) for _ in range(layers))
        self.hidden = nn.ModuleList(nn.Linear(hidden, 4 * hidden, bias=False) for _ in range(layers))
        self.decoder = nn.Linear(hidden, words)
        self.decoder.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        self.embedding_drop, self.weight_drop = nn.Dropout(), nn.Dropout()
        self.input_drop, self.hidden_drop, self.output_drop = nn.Dropout(), nn.Dropout(), nn.Dropout()
        self.carried: dict[bool, list[tuple[Tensor, Tensor]]] = {}

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens ``(B, T)`` to logits ``(B, words, T)``, and the last layer's states with and without dropout."""
        table = self.embedding.weight
        words = self.embedding_drop(table.new_ones(len(table), 1))  # the same words for all samples
        x = F.embedding(tokens, table * words)
        x = x * self._locked(self.input_drop, x)
        before = self.carried.get(self.training)
        after = []
        for place, (enter, inner) in enumerate(zip(self.inputs, self.hidden, strict=True)):
            if place:
                x = x * self._locked(self.hidden_drop, x)
            fresh = before is None or before[place][0].shape != x[:, 0].shape
            state = (torch.zeros_like(x[:, 0]),) * 2 if fresh or before is None else before[place]
            x, state = self._layer(enter(x), inner, state)
            after.append((state[0].detach(), state[1].detach()))
        self.carried[self.training] = after
        out = x * self._locked(self.output_drop, x)
        return self.decoder(out).mT, out, x

    def _layer(self, entered: Tensor, inner: nn.Module, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """One layer over all steps, some of its recurrent weights dropped for the whole batch and window."""
        mask = self.weight_drop(torch.ones_like(inner.weight))  # type: ignore[arg-type]
        weights = {name: p * mask for name, p in inner.named_parameters() if name in ("weight", "response_weight")}
        h, c = state
        states = []
        for step in entered.unbind(1):
            i, f, g, o = (step + functional_call(inner, weights, (h,))).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return torch.stack(states, 1), (h, c)

    @staticmethod
    def _locked(drop: nn.Module, x: Tensor) -> Tensor:
        """One mask for all steps of a sample."""
        mask: Tensor = drop(torch.ones_like(x[:, :1]))
        return mask


def windows(tokens: Tensor, size: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows of ``size`` parallel streams from the beginning to the end: inputs and the words that follow."""
    streams = tokens[: len(tokens) // size * size].view(size, -1)
    for start in range(0, streams.shape[1] - 1, length):
        stop = min(start + length, streams.shape[1] - 1)
        yield streams[:, start:stop], streams[:, start + 1 : stop + 1]


def endless_windows(tokens: Tensor, size: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, over and over."""
    while True:
        yield from windows(tokens, size, length)
