"""The last few states of a network, asked what they would say."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from throughline.core._modules import places, unwrapped
from throughline.core.checks import integer
from throughline.search.self_distillation.losses import check_logits, check_temperature, vote
from throughline.search.supernet import batch_statistics

__all__ = ["VotingTeachers", "check_state", "steady"]

Snapshot = dict[str, Tensor]  # parameters and buffers by name


class VotingTeachers:
    """Snapshots of a model, one every ``interval`` steps, whose probabilities are averaged into a vote.

    The teachers of "Improving Differentiable Architecture Search via Self-Distillation" (arXiv 2302.05629); any
    classifier can be trained with them. A snapshot is a copy of parameters and buffers, architecture parameters
    included, on the model's device; the last ``teachers`` are kept. They are run on the one live module, one after
    another: what has been decided in a supernet since then holds for them too. In a vote BatchNorm uses the statistics
    of the batch, dropout is off, and nothing is updated.

    With ``interval=1`` one of the teachers is the present state, which teaches nothing; one epoch is a good interval.

    Args:
        model: any module that returns logits; also inside of ``torch.compile`` or DistributedDataParallel, which
            its teachers leave out.
        teachers: K, the number of snapshots that are kept, at least 1.
        interval: steps from one snapshot to the next, at least 1.

    Attributes:
        model, interval: as given.
        steps: how often `update` has been called.

    Raises:
        TypeError: ``model`` is no module, or a number no integer; in `predict`, the model's ``forward`` gives no
            floating point tensor.
        ValueError: a number is out of range.

    >>> model = nn.Linear(4, 3)
    >>> teachers = VotingTeachers(model, teachers=3, interval=2)
    >>> [teachers.update() for _ in range(5)], len(teachers)
    ([False, True, False, True, False], 2)
    >>> teachers.predict(torch.randn(8, 4), temperature=4.0).sum(-1).allclose(torch.ones(8))
    True
    """

    def __init__(self, model: nn.Module, *, teachers: int = 3, interval: int = 1) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        for name, count in {"teachers": teachers, "interval": interval}.items():
            if integer(name, count) < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        self.model, self.interval = model, interval
        self._snapshots: deque[Snapshot] = deque(maxlen=teachers)
        self.steps = 0

    def __len__(self) -> int:
        """How many snapshots there are."""
        return len(self._snapshots)

    def update(self) -> bool:
        """Count a step of the weights, and say whether a snapshot was recorded: call it once after each."""
        self.steps += 1
        if self.steps % self.interval:
            return False
        if len(self._snapshots) == self._snapshots.maxlen:
            self._snapshots.popleft()  # before its successor takes memory
        self._snapshots.append({name: tensor.detach().clone() for name, tensor in _state(self.model)})
        return True

    @torch.no_grad()
    def predict(self, *inputs: Any, temperature: float = 1.0, **kwargs: Any) -> Tensor:
        """The vote (1/K') Σ_k softmax(z_k / τ) of the K' ≤ K snapshots, without graph; the model is left as it was.

        Args:
            *inputs: what the model takes, the batch that the student sees.
            temperature: τ, positive and finite.
            **kwargs: what the model takes.

        Returns:
            Probabilities of the shape of the model's output, in float32 at least.

        Raises:
            RuntimeError: there is no snapshot yet.
            TypeError: the model gives no floating point tensor.
            ValueError: τ is out of range.
        """
        check_temperature(temperature)
        if not self._snapshots:
            raise RuntimeError(
                f"there is no teacher yet: update() records one every {self.interval} steps, and {self.steps} were "
                "taken"
            )
        model = unwrapped(self.model)
        with steady(model):
            used = places(model)  # without what BatchNorm has kept: it would use it
            said = []
            for snapshot in self._snapshots:
                lent = {place: snapshot[name] for name, all_places in used.items() for place in all_places}
                output = functional_call(model, lent, inputs, kwargs, tie_weights=False)
                said.append(_probabilities(check_logits(output), temperature))
            return vote(torch.stack(said))

    def state_dict(self) -> dict[str, Any]:
        """The snapshots, oldest first, and the steps taken: without them a resumed run is another one."""
        return {"steps": self.steps, "snapshots": [dict(snapshot) for snapshot in self._snapshots]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, with copies on the model's device; of more snapshots than are kept,
        the last are.

        Raises:
            ValueError: an entry is missing.
            RuntimeError: a snapshot is of another structure; names and shapes that do not fit are listed.
        """
        check_state(self.model, state)
        own = dict(_state(self.model))
        self.steps = state["steps"]
        self._snapshots.clear()
        for snapshot in state["snapshots"]:
            self._snapshots.append({name: torch.empty_like(t).copy_(snapshot[name]) for name, t in own.items()})


def check_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Refuse what `VotingTeachers.state_dict` did not return, or returned for another model."""
    if lacking := [name for name in ("steps", "snapshots") if name not in state]:
        raise ValueError(f"state must be what state_dict returns, got one without {', '.join(lacking)}")
    own = dict(_state(model))
    for snapshot in state["snapshots"]:
        _check_structure(own, snapshot, type(unwrapped(model)).__name__)


@contextmanager
def steady(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, but for BatchNorm, which uses the statistics of the batch; nothing is updated."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with batch_statistics(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, shared ones once."""
    inner = unwrapped(model)
    for name, tensor in chain(inner.named_parameters(), inner.named_buffers()):
        yield name, tensor.detach()


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    """softmax(z / τ), in float32 at least."""
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return (wide / temperature).softmax(-1)


def _check_structure(own: Snapshot, other: Snapshot, model: str) -> None:
    """As `nn.Module.load_state_dict` would say it."""
    lines = []
    if missing := [name for name in own if name not in other]:
        lines.append(f"Missing key(s) in snapshot: {', '.join(map(repr, missing))}.")
    if unexpected := [name for name in other if name not in own]:
        lines.append(f"Unexpected key(s) in snapshot: {', '.join(map(repr, unexpected))}.")
    for name, tensor in own.items():
        if name in other and other[name].shape != tensor.shape:
            lines.append(
                f"size mismatch for {name}: a shape of {tuple(other[name].shape)} in the snapshot, and "
                f"{tuple(tensor.shape)} in the model."
            )
    if lines:
        raise RuntimeError("\n\t".join([f"Error(s) in loading state_dict for {model}:", *lines]))
