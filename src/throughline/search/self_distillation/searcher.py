"""DARTS whose weights also learn from earlier supernets."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from throughline.core._modules import unwrapped
from throughline.core.checks import check_tensor, integer
from throughline.search.darts import DartsSearcher
from throughline.search.self_distillation.losses import check_logits, check_temperature, distillation_loss
from throughline.search.self_distillation.teachers import VotingTeachers, check_state

__all__ = ["SelfDistillationSearcher"]

Batch = Any  # whatever a loader yields
Forward = Callable[[nn.Module, Batch], Tensor]


class SelfDistillationSearcher(DartsSearcher):
    """SD-DARTS: DARTS with voting teachers in its steps on the weights.

    "Improving Differentiable Architecture Search via Self-Distillation" (arXiv 2302.05629): a step on the weights
    follows

        criterion(z, batch) + strength · τ² KL(q ‖ softmax(z / τ)),

    where z are the logits of the supernet and q is the vote of its last ``teachers`` snapshots (`VotingTeachers`), the
    weights and architecture parameters of every ``interval``-th step, on the same batch. For the first ``warmup`` steps
    and while there is no snapshot the term is left out. Steps on the architecture are those of DARTS, on the criterion
    alone. A step costs K forward passes more. The defaults of strength and temperature are ours: the paper's are not
    known to us.

    Args:
        model: as of `DartsSearcher`; its output, or what ``forward`` makes of it, are logits ``(..., classes)``.
        criterion: ``(output, batch) -> scalar``, the task's own loss of what ``forward`` gives.
        weight_optimizer, arch_optimizer: as of `DartsSearcher`.
        forward: ``(model, batch) -> logits``; by default ``model(batch[0])``.
        teachers: K, the snapshots that vote, at least 1.
        interval: steps on the weights from one snapshot to the next, at least 1; an epoch is a good one.
        strength: not negative; 0 is DARTS.
        temperature: τ, positive and finite.
        warmup: steps on the weights without the term, not negative; a tenth of the search is a good one.
        arch_params, unrolled, grad_clip: as of `DartsSearcher`.

    Attributes:
        teachers: the `VotingTeachers`.

    Raises:
        TypeError: what `DartsSearcher` refuses, a number that is no integer, a ``criterion`` that is not callable or
            gives no tensor, or a ``forward`` that is not callable or gives no floating point tensor.
        ValueError: an argument out of range, what `DartsSearcher` refuses, or a criterion that is no scalar.

    >>> import torch
    >>> from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters
    >>> net = MixedOp({"linear": nn.Linear(3, 2), "mean": nn.AdaptiveAvgPool1d(2)})
    >>> sgd, adam = torch.optim.SGD(weight_parameters(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
    >>> match = lambda logits, batch: nn.functional.cross_entropy(logits, batch[1])
    >>> searcher = SelfDistillationSearcher(net, match, sgd, adam, interval=2, warmup=3)
    >>> batch = torch.randn(8, 3), torch.arange(8) % 2
    >>> [list(searcher.step(batch, batch)) for _ in range(4)][2:]
    [['valid_loss', 'train_loss'], ['valid_loss', 'train_loss', 'distillation_loss']]
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Tensor, Batch], Tensor],
        weight_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        *,
        forward: Forward | None = None,
        teachers: int = 3,
        interval: int = 1,
        strength: float = 1.0,
        temperature: float = 4.0,
        warmup: int = 0,
        arch_params: Sequence[nn.Parameter] | None = None,
        unrolled: bool = False,
        grad_clip: float | None = 5.0,
    ) -> None:
        for name, given in {"criterion": criterion, "forward": forward or _first}.items():
            if not callable(given):
                raise TypeError(f"{name} must be callable, got {type(given).__name__}")
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength must be not negative and finite, got {strength}")
        check_temperature(temperature)
        if integer("warmup", warmup) < 0:
            raise ValueError(f"warmup must not be negative, got {warmup}")
        self.criterion, self.forward = criterion, forward or _first
        self.strength, self.temperature, self.warmup = strength, temperature, warmup
        super().__init__(
            model,
            self._task_loss,
            weight_optimizer,
            arch_optimizer,
            arch_params=arch_params,
            unrolled=unrolled,
            grad_clip=grad_clip,
        )
        self.teachers = VotingTeachers(_On(unwrapped(model), self.forward), teachers=teachers, interval=interval)

    def weight_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One step of the weight optimizer on criterion and distillation, its gradient clipped; then a snapshot is
        taken if it is time for one."""
        vote = None
        if self.strength and len(self.teachers) and self.teachers.steps >= self.warmup:  # first: no graph is held yet
            vote = self.teachers.predict(train_batch, temperature=self.temperature)
        logits = check_logits(self.forward(self.model, train_batch))
        value = self._cost(logits, train_batch)
        seen, objective = {"train_loss": value.detach()}, value
        if vote is not None:
            term = distillation_loss(logits, vote, temperature=self.temperature)
            seen["distillation_loss"] = term.detach()
            objective = value + self.strength * term
        self._update_weights(objective)
        self.teachers.update()
        return seen

    def state_dict(self) -> dict[str, Any]:
        """The states of the model, of both optimizers and of the teachers, without whom a resumed search is another."""
        return super().state_dict() | {"teachers": self.teachers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken; teachers that do not fit are refused before anything is loaded.

        Raises:
            ValueError: an entry is missing.
            RuntimeError: it is of another model.
        """
        if "teachers" not in state:
            raise ValueError("state must be what state_dict returns, got one without teachers")
        check_state(self.teachers.model, state["teachers"])
        super().load_state_dict(state)
        self.teachers.load_state_dict(state["teachers"])

    def _task_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._cost(self.forward(model, batch), batch)

    def _cost(self, output: Tensor, batch: Batch) -> Tensor:
        value = self.criterion(output, batch)
        check_tensor("the result of criterion", value)
        if value.ndim:
            raise ValueError(f"criterion must return a scalar, got shape {tuple(value.shape)}")
        return value


class _On(nn.Module):
    """A model and how batches are put through it, as one module."""

    def __init__(self, model: nn.Module, run: Forward) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, batch: Batch) -> Tensor:
        return self.run(self.model, batch)


def _first(model: nn.Module, batch: Batch) -> Tensor:
    output: Tensor = model(batch[0])
    return output
