"""Sequences over a fixed vocabulary from a set of points: encoder and decoder LSTMs, with and without attention."""

import torch
from torch import Tensor, nn

from throughline.discrete.pointer import PAD, PointerAttention

__all__ = ["AttentionSequence", "PlainSequence"]

State = tuple[Tensor, Tensor]


class PlainSequence(nn.Module):
    """An encoder and a decoder LSTM with one output for each of n indices and one for the end: tied to that n."""

    def __init__(self, n: int, hidden_size: int, *, init_range: float) -> None:
        super().__init__()
        self.encoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.decoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, n + 1)
        self.start = nn.Parameter(torch.empty(2))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init_range, init_range)

    def forward(self, points: Tensor, targets: Tensor) -> Tensor:
        """Logits ``(B, m, n + 1)`` given the targets before each step."""
        _, state = self.encoder(points)
        decoded, _ = self.decoder(_inputs(self.start, points, targets), state)
        logits: Tensor = self.output(decoded)
        return logits

    @torch.no_grad()
    def decode(self, points: Tensor) -> Tensor:
        """Greedy sequences ``(B, m)``, PAD after the end."""
        _, state = self.encoder(points)
        greedy = _Greedy(points)
        last = self.start.expand(len(points), -1)
        while not greedy.done:
            decoded, state = self.decoder(last.unsqueeze(1), state)
            last = greedy.take(self.output(decoded[:, 0]))
        return greedy.sequences


class AttentionSequence(nn.Module):
    """The same with input attention: the mean of the encoder's states under the pointer's weights goes into the output
    and into the decoder's next step, which is why there is a loop.
    """

    def __init__(self, n: int, hidden_size: int, *, init_range: float) -> None:
        super().__init__()
        self.encoder = nn.LSTM(2, hidden_size, batch_first=True)
        self.decoder = nn.LSTMCell(2 + hidden_size, hidden_size)
        self.attention = PointerAttention(hidden_size)
        self.output = nn.Linear(2 * hidden_size, n + 1)
        self.start = nn.Parameter(torch.empty(2))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init_range, init_range)

    def forward(self, points: Tensor, targets: Tensor) -> Tensor:
        """Logits ``(B, m, n + 1)`` given the targets before each step."""
        encoded, keys, state = self._encode(points)
        context = torch.zeros_like(encoded[:, 0])
        found = []
        for last in _inputs(self.start, points, targets).unbind(1):
            state, context = self._step(last, context, state, encoded, keys)
            found.append(torch.cat([state[0], context], -1))
        logits: Tensor = self.output(torch.stack(found, 1))
        return logits

    @torch.no_grad()
    def decode(self, points: Tensor) -> Tensor:
        """Greedy sequences ``(B, m)``, PAD after the end."""
        encoded, keys, state = self._encode(points)
        context = torch.zeros_like(encoded[:, 0])
        greedy = _Greedy(points)
        last = self.start.expand(len(points), -1)
        while not greedy.done:
            state, context = self._step(last, context, state, encoded, keys)
            last = greedy.take(self.output(torch.cat([state[0], context], -1)))
        return greedy.sequences

    def _encode(self, points: Tensor) -> tuple[Tensor, Tensor, State]:
        encoded, (h, c) = self.encoder(points)
        return encoded, self.attention.key(encoded), (h[0], c[0])

    def _step(self, last: Tensor, context: Tensor, state: State, encoded: Tensor, keys: Tensor) -> tuple[State, Tensor]:
        h, c = self.decoder(torch.cat([last, context], -1), state)
        weights = self.attention.point(h.unsqueeze(1), keys).softmax(-1)
        return (h, c), (weights @ encoded).squeeze(1)


class _Greedy:
    """Sequences that grow by the most likely index until all have ended, or after 2n + 2 steps."""

    def __init__(self, points: Tensor) -> None:
        self.points, self.steps = points, 2 * points.shape[1] + 2
        self.ended = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        self.sequences = torch.empty(len(points), 0, dtype=torch.int64, device=points.device)

    @property
    def done(self) -> bool:
        return self.sequences.shape[1] == self.steps or bool(self.ended.all())

    def take(self, logits: Tensor) -> Tensor:
        """Append the choice of every row, and return the points that it names."""
        chosen = logits.argmax(-1)
        self.ended = self.ended | (chosen == logits.shape[-1] - 1)
        chosen = chosen.masked_fill(self.ended, PAD)
        self.sequences = torch.cat([self.sequences, chosen.unsqueeze(1)], 1)
        return self.points[torch.arange(len(chosen), device=chosen.device), chosen.clamp_min(0)]


def _inputs(start: Tensor, points: Tensor, targets: Tensor) -> Tensor:
    previous = points.gather(1, targets[:, :-1].clamp_min(0).unsqueeze(-1).expand(-1, -1, 2))
    return torch.cat([start.expand(len(points), 1, -1), previous], 1)
