"""The network that points: encoder, decoder, attention over the input, and likely sequences by beam search."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, check_tensor, integer
from throughline.discrete.pointer.attention import PointerAttention
from throughline.discrete.pointer.beam import CONSTRAINTS, PAD, Allowed, State, beam_search

__all__ = ["STOP", "PointerDecoding", "PointerNetwork"]

STOP = -1  # the end of a sequence, in targets; PAD = -100 fills up behind it, in targets and in decoded sequences
Constraint = Literal["tour", "polygon", "triangles"] | Callable[[Tensor, Tensor], Tensor]


class PointerDecoding(NamedTuple):
    """The sequences that `PointerNetwork.decode` found."""

    sequences: Tensor  # (B, m) positions; PAD after the end, and the end itself is not listed
    log_prob: Tensor  # (B,) of the sequence and its end


class PointerNetwork(nn.Module):
    """An encoder LSTM, a decoder LSTM, and a pointer into the input for an output layer (section 2.3).

    "Pointer Networks", arXiv 1506.03134. The decoder's next input is the element pointed at; attention does not feed
    back into it. With known targets the decoder is therefore one call over all steps. One model serves every length.
    Time and memory are O(nm), n elements pointed at m times.

    A target is a row of positions, `STOP` at its end and `PAD` behind it. Logits have a column for every input element
    and a last one for `STOP`.

    Autocast does not reach inside, where likelihoods of long sequences add up: for the speed of a short dtype convert
    the network and its inputs.

    Args:
        input_dim: D, the width of an input element.
        hidden_size: H, of encoder, decoder and pointer; the paper takes 256 or 512.
        init_range: every parameter starts uniform in [-init_range, init_range], the paper's 0.08; below H = 256 a
            larger one (0.2) learns much sooner.

    Attributes:
        encoder, decoder: the LSTMs.
        pointer: the `PointerAttention` from the decoder's states to the encoder's.
        start: ``(D,)``, the decoder's first input.
        end: ``(H,)``, what is pointed at for `STOP`.

    Raises:
        TypeError: a width is no integer.
        ValueError: an argument is out of range.

    >>> points = torch.rand(4, 6, 2)
    >>> targets = torch.tensor([[0, 3, 5, STOP]]).expand(4, -1)
    >>> net = PointerNetwork(hidden_size=16)
    >>> net(points, targets).shape
    torch.Size([4, 4, 7])
    >>> net.decode(points, constraint="tour").sequences.shape
    torch.Size([4, 6])
    """

    def __init__(self, input_dim: int = 2, hidden_size: int = 512, *, init_range: float = 0.08) -> None:
        super().__init__()
        input_dim, hidden_size = integer("input_dim", input_dim), integer("hidden_size", hidden_size)
        if min(input_dim, hidden_size) < 1:
            raise ValueError(f"input_dim and hidden_size must be at least 1, got {input_dim} and {hidden_size}")
        if not 0 < init_range < math.inf:
            raise ValueError(f"init_range must be positive and finite, got {init_range}")
        self.init_range = init_range
        self.encoder = nn.LSTM(input_dim, hidden_size, batch_first=True)
        self.decoder = nn.LSTM(input_dim, hidden_size, batch_first=True)
        self.pointer = PointerAttention(hidden_size)
        self.start = nn.Parameter(torch.empty(input_dim))
        self.end = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -self.init_range, self.init_range)

    def forward(self, inputs: Tensor, targets: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Logits of every step, given the targets before it.

        Args:
            inputs: ``(B, n, D)``, floating point, B >= 1.
            targets: ``(B, m)``, integers: positions, `STOP` and `PAD`.
            lengths: ``(B,)``, how many of the n are there, in a list too; all if None. The others have no influence on
                anything.

        Returns:
            ``(B, m, n + 1)``; -∞ in the columns of elements that are not there. Rows after `STOP` mean nothing.

        Raises:
            TypeError: ``inputs`` are not floating point, ``targets`` or ``lengths`` are not integers.
            ValueError: a shape does not fit, a target points outside its instance or goes on behind its `STOP`, or a
                length is not in 1 … n.
        """
        lengths = self._lengths(inputs, lengths)
        _check_targets(targets, lengths)
        inputs = self._own_precision(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            memory, state, there = self._encode(inputs, lengths)
            previous = inputs.gather(1, targets[:, :-1].clamp_min(0).unsqueeze(-1).expand(-1, -1, inputs.shape[-1]))
            first = self.start.to(inputs.dtype).expand(len(inputs), 1, -1)
            decoded, _ = self.decoder(torch.cat([first, previous], 1), state)
            logits: Tensor = self.pointer(decoded, memory, mask=there)
        return logits

    def log_prob(self, inputs: Tensor, targets: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Log-likelihood of every target with its `STOP`: ``(B,)``. Arguments and errors are those of `forward`."""
        logits = self(inputs, targets, lengths=lengths)
        with torch.autocast(logits.device.type, enabled=False):
            log_p: Tensor = logits.log_softmax(-1)
        column = torch.where(targets < 0, inputs.shape[1], targets)
        each = log_p.gather(-1, column.unsqueeze(-1)).squeeze(-1)
        return each.masked_fill(targets == PAD, 0).sum(-1)

    @torch.no_grad()
    def decode(
        self,
        inputs: Tensor,
        *,
        lengths: Tensor | None = None,
        beam_size: int = 1,
        max_steps: int | None = None,
        constraint: Constraint | None = None,
    ) -> PointerDecoding:
        """Likely sequences by beam search, greedy with one beam; no gradient.

        The score is the sum of `log_prob`'s own terms, without length normalisation. A constraint only leaves
        candidates out. All beams of all instances advance in one operation a step.

        Args:
            inputs: ``(B, n, D)``, floating point, and finite where ``lengths`` say that there is something.
            lengths: ``(B,)``, as in `forward`.
            beam_size: k, at least 1.
            max_steps: where a sequence is cut off, without its end in ``log_prob``; n + 1 for tours and polygons, 6n
                for triangles, 2n + 2 otherwise.
            constraint: "tour" (position 0 first, then all others once), "polygon" (no position twice, three or more),
                "triangles" (groups of three increasing positions), or a function that gets the sequences so far
                ``(B, k, t)``, with PAD in those that ended, and ``lengths``, and returns a bool mask ``(B, k, n + 1)``
                of what may follow. Without any sequence that it allows, an instance gets log-probability -∞.

        Raises:
            TypeError: ``inputs`` are not floating point, a number or ``lengths`` are not integers, or a function's mask
                is not bool.
            ValueError: a shape does not fit, an argument is out of range, ``inputs`` are NaN or infinite, or fewer than
                three elements for polygons or triangles.
        """
        lengths = self._lengths(inputs, lengths)
        _check_finite(inputs, lengths)
        allowed, steps = _constraint(constraint, inputs.shape[1], lengths)
        steps = steps if max_steps is None else integer("max_steps", max_steps)
        beam_size = integer("beam_size", beam_size)
        if beam_size < 1 or steps < 1:
            raise ValueError(f"beam_size and max_steps must be at least 1, got {beam_size} and {steps}")
        inputs = self._own_precision(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            return self._search(inputs, lengths, allowed, beam_size, steps)

    def _search(
        self, inputs: Tensor, lengths: Tensor, allowed: Allowed | None, beam_size: int, steps: int
    ) -> PointerDecoding:
        memory, state, there = self._encode(inputs, lengths)
        projected = self.pointer.key(memory)
        absent = None if there is None else ~there.unsqueeze(1)

        def advance(prefix: Tensor, state: State) -> tuple[Tensor, State]:
            if prefix.shape[-1]:
                last = prefix[..., -1:].clamp_min(0)
                points = inputs.gather(1, last.expand(-1, -1, inputs.shape[-1]))
            else:
                points = self.start.to(inputs.dtype).expand(*prefix.shape[:2], -1)
            decoded, state = self.decoder(points.flatten(0, 1).unsqueeze(1), state)
            logits = self.pointer.point(decoded.view(*prefix.shape[:2], -1), projected)
            logits = logits if absent is None else logits.masked_fill(absent, -torch.inf)
            return logits.log_softmax(-1), state

        found = beam_search(advance, state, lengths, beam_size=beam_size, max_steps=steps, allowed=allowed)
        return PointerDecoding(*found)

    def _own_precision(self, inputs: Tensor) -> Tensor:
        """Around a network in float32, autocast hands over what its layers have made in a shorter dtype."""
        mixed = torch.is_autocast_enabled(inputs.device.type)
        return inputs.to(self.start.dtype) if mixed else inputs

    def _encode(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, State, Tensor | None]:
        """Memory ``(B, n + 1, H)``, the end vector last; the state after the last real element; and what is real."""
        width = inputs.shape[1]
        if bool((lengths == width).all()):
            encoded, state = self.encoder(inputs)
            there = None
        else:  # packed: the state must not have seen the padding
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed, state = self.encoder(packed)
            encoded, _ = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=width)
            index = torch.arange(width + 1, device=inputs.device)
            there = (index < lengths.unsqueeze(-1)) | (index == width)
        end = self.end.to(encoded.dtype).expand(len(inputs), 1, -1)
        return torch.cat([encoded, end], 1), state, there

    def _lengths(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        check_floating("inputs", inputs)
        width = self.encoder.input_size
        if inputs.ndim != 3 or inputs.shape[-1] != width or 0 in inputs.shape:
            raise ValueError(f"inputs must be (B, n, {width}), none of them 0, got {tuple(inputs.shape)}")
        batch, n = inputs.shape[:2]
        if lengths is None:
            return torch.full((batch,), n, device=inputs.device)
        lengths = torch.as_tensor(lengths, device=inputs.device)
        _check_integer("lengths", lengths)
        if lengths.shape != (batch,):
            raise ValueError(f"lengths must be ({batch},), one of each instance, got {tuple(lengths.shape)}")
        if bool(((lengths < 1) | (lengths > n)).any()):
            raise ValueError(f"lengths must be in 1 … {n}, got {int(lengths.min())} … {int(lengths.max())}")
        return lengths

    def extra_repr(self) -> str:
        return f"init_range={self.init_range}"


def _constraint(constraint: Constraint | None, width: int, lengths: Tensor) -> tuple[Allowed | None, int]:
    """What may follow, and after how many steps a sequence is cut off."""
    if constraint is None or callable(constraint):
        return constraint, 2 * width + 2
    if constraint not in CONSTRAINTS:
        raise ValueError(f"constraint must be one of {', '.join(CONSTRAINTS)} or a function, got {constraint!r}")
    if constraint != "tour" and int(lengths.min()) < 3:
        raise ValueError(f'constraint="{constraint}" needs three elements or more, got {int(lengths.min())}')
    return partial(CONSTRAINTS[constraint], columns=width + 1), 6 * width if constraint == "triangles" else width + 1


def _check_targets(targets: Tensor, lengths: Tensor) -> None:
    _check_integer("targets", targets)
    if targets.ndim != 2 or len(targets) != len(lengths) or not targets.shape[1]:
        raise ValueError(f"targets must be ({len(lengths)}, m) with m >= 1, got {tuple(targets.shape)}")
    outside = (targets >= lengths.unsqueeze(-1)) | ((targets < 0) & (targets != STOP) & (targets != PAD))
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"targets must be positions below the length of their instance, STOP ({STOP}) or PAD ({PAD}), "
            f"got {int(targets[row, column])} in row {row} of length {int(lengths[row])}"
        )
    behind = (targets[:, :-1] < 0) & (targets[:, 1:] != PAD)
    if bool(behind.any()):
        row, column = behind.nonzero()[0].tolist()
        raise ValueError(
            f"targets must hold PAD ({PAD}) alone behind STOP ({STOP}) or PAD, "
            f"got {int(targets[row, column + 1])} at place {column + 1} of row {row}"
        )


def _check_finite(inputs: Tensor, lengths: Tensor) -> None:
    there = torch.arange(inputs.shape[1], device=inputs.device) < lengths.unsqueeze(-1)
    wrong = there & ~inputs.isfinite().all(-1)
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(f"inputs must be finite, got {inputs[row, column].tolist()} at position {column} of row {row}")


def _check_integer(name: str, x: Tensor) -> None:
    check_tensor(name, x)
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {x.dtype}")
