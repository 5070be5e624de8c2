"""Training that tunes: steps on the weights by the training loss, steps on the hyperparameters by the validation loss.

"Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions"
(arXiv 1903.03088), algorithm 1.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from throughline.search.best_response.network import SelfTuningNetwork

__all__ = ["SelfTuner"]

Values = dict[str, Tensor]  # constrained hyperparameters by name, (B,) each


class SelfTuner:
    """Alternate between φ on the training loss at λ + σε and (λ, σ) on the validation loss, through ŵ(λ) alone.

    Training steps minimise E f(λ + σε, ŵ(λ + σε)) over φ, with an ε for each sample; tuning steps minimise
    E F(ŵ(λ + σε)) − τ H(σ) over λ and σ, in evaluation mode: without dropout, augmentation and penalties, which need no
    derivatives. With a fixed σ they take λ itself. Gradients of φ come from training steps alone.

    Args:
        network: of `convert`; compiled by ``torch.compile`` too.
        optimizer: over ``network.parameters()``, of any kind. A gradient is clipped by its
            ``register_step_pre_hook``.
        loss: a scalar of what the network gives and the targets, plain: no penalty in it.
        augment: of the inputs and the values of all hyperparameters, ``(B,)`` each by name; in training steps only.
        penalty: of what the network gives and the values, added to the loss in training steps only.
        weight_decay: the hyperparameter r in ½ mean_b r(λ_b) ‖Ŵ(λ_b)‖², its range not below 0.
        hyper_lr, scale_lr: of Adam for λ, and for s in σ = softplus(s).
        tune_scale: whether σ is learned.
        entropy_weight: τ, not negative.
        train_steps, valid_steps: of a round, at least 1 each.
        warmup_steps: training steps before the first round.
        generator: of ε and of the tunable dropouts, on any device; torch's global one by default.

    Attributes:
        network: as it was given.

    Raises:
        ValueError: an argument out of range, an unknown hyperparameter, or an optimizer that holds λ or s.
        TypeError: ``network`` is no `SelfTuningNetwork`.

    >>> from torch import nn
    >>> from torch.nn import functional as F
    >>> from throughline.search.best_response import Hyperparameter, HyperparameterSpace, convert
    >>> space = HyperparameterSpace([Hyperparameter("p", 0.05, low=0.0, high=0.9)])
    >>> net = convert(nn.Sequential(nn.Linear(8, 16), nn.Dropout(), nn.Linear(16, 3)), space, dropout={"1": "p"})
    >>> tuner = SelfTuner(net, optimizer=torch.optim.SGD(net.parameters(), 0.01), loss=F.cross_entropy)
    >>> batches = iter([(torch.randn(32, 8), torch.randint(3, (32,)))] * 9)
    >>> losses = [tuner.step(batches, batches) for _ in range(9)]
    >>> tuner.phase(), len(tuner.history)
    ('train', 3)
    """

    def __init__(
        self,
        network: SelfTuningNetwork,
        *,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Any, Tensor], Tensor],
        augment: Callable[[Tensor, Values], Tensor] | None = None,
        penalty: Callable[[Any, Values], Tensor] | None = None,
        weight_decay: str | None = None,
        hyper_lr: float = 3e-3,
        scale_lr: float = 3e-3,
        tune_scale: bool = True,
        entropy_weight: float = 1e-3,
        train_steps: int = 2,
        valid_steps: int = 1,
        warmup_steps: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        plain = getattr(network, "_orig_mod", network)  # inside of torch.compile
        if not isinstance(plain, SelfTuningNetwork):
            raise TypeError(f"network must be a SelfTuningNetwork, got {type(network).__name__}")
        space = plain.space
        own = {id(space.location), id(space.raw_scale)}
        if any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            raise ValueError("optimizer must hold the network's parameters alone, got one with those of its space")
        if weight_decay is not None:
            known = {h.name: h for h in space.hyperparameters}
            if weight_decay not in known:
                raise ValueError(f"weight_decay must be one of {', '.join(known)}, got {weight_decay!r}")
            if known[weight_decay].low < 0:
                raise ValueError(
                    f"weight_decay must not fall below 0, got {weight_decay!r} from {known[weight_decay].low}"
                )
        for name, value, least in (
            ("train_steps", train_steps, 1),
            ("valid_steps", valid_steps, 1),
            ("warmup_steps", warmup_steps, 0),
            ("entropy_weight", entropy_weight, 0),
            ("hyper_lr", hyper_lr, 0),
            ("scale_lr", scale_lr, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.network = network
        self._plain, self._optimizer, self._loss = plain, optimizer, loss
        self._augment, self._penalty, self._weight_decay = augment, penalty, weight_decay
        self._tune_scale, self._entropy_weight, self._generator = tune_scale, entropy_weight, generator
        self._round, self._warmup = (train_steps, valid_steps), warmup_steps
        self._hyper_optimizer = torch.optim.Adam(
            [{"params": [space.location], "lr": hyper_lr}, {"params": [space.raw_scale], "lr": scale_lr}]
        )
        self._trained, self._tuned = 0, 0
        self._values: list[Tensor] = []  # left where they are computed until somebody asks

    @property
    def history(self) -> list[dict[str, float]]:
        """The constrained values after every tuning step: the schedule that was found."""
        rows = torch.stack(self._values).tolist() if self._values else []
        return [dict(zip(self._plain.space.names, row, strict=True)) for row in rows]

    def phase(self) -> Literal["train", "tune"]:
        """What the schedule wants next."""
        train, valid = self._round
        rounds = self._tuned // valid + 1
        return "train" if self._trained - self._warmup < train * rounds else "tune"

    def train_step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step on φ, the hyperparameters of every sample perturbed by an ε of its own; the loss, detached."""
        space = self._plain.space
        self.network.train()
        with torch.no_grad():  # φ alone learns from the training loss
            hyper = space.sample(len(inputs), generator=self._generator)
            values = space.constrain(hyper)
            if self._augment is not None:
                inputs = self._augment(inputs, values)
        with self._plain._drawing(self._generator):
            output = self.network(inputs, hyper=hyper)
        loss = _scalar(self._loss(output, targets), "loss")
        if self._penalty is not None:
            loss = loss + _scalar(self._penalty(output, values), "penalty")
        if self._weight_decay is not None:
            loss = loss + 0.5 * (values[self._weight_decay] * self._plain.squared_norm(hyper)).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._trained += 1
        return loss.detach()

    def tune_step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One step on λ and σ, φ untouched; the validation loss, detached and without the entropy."""
        space = self._plain.space
        self.network.eval()
        hyper = space.sample(len(inputs), generator=self._generator) if self._tune_scale else space.location
        loss = _scalar(self._loss(self.network(inputs, hyper=hyper), targets), "loss")
        if self._tune_scale:
            learned = [space.location, space.raw_scale]
            objective = loss - self._entropy_weight * space.entropy()
        else:
            learned, objective = [space.location], loss
        for parameter, gradient in zip(learned, torch.autograd.grad(objective, learned), strict=True):
            parameter.grad = gradient
        self._hyper_optimizer.step()
        self._hyper_optimizer.zero_grad()
        self._tuned += 1
        self._values.append(space._values())
        return loss.detach()

    def step(
        self, train_batches: Iterator[tuple[Tensor, Tensor]], valid_batches: Iterator[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """The next step of the schedule on the next batch of ``(inputs, targets)`` of its kind; the loss, detached."""
        if self.phase() == "train":
            return self.train_step(*next(train_batches))
        return self.tune_step(*next(valid_batches))

    def state_dict(self) -> dict[str, Any]:
        """λ, s, their optimizer, the place in the schedule, the history and the generator's state.

        With the network's and its optimizer's, and the place in the data, a run resumes bit for bit.
        """
        return {
            "names": list(self._plain.space.names),
            "space": self._plain.space.state_dict(),
            "hyper_optimizer": self._hyper_optimizer.state_dict(),
            "trained": self._trained,
            "tuned": self._tuned,
            "history": torch.stack(self._values) if self._values else None,
            "generator": self._generator.get_state() if self._generator is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            ValueError: it is of other hyperparameters, or has a generator's state and this tuner has no generator.
        """
        names = list(self._plain.space.names)
        if state["names"] != names:
            raise ValueError(f"state must be of the hyperparameters {names}, got {state['names']}")
        if (state["generator"] is None) != (self._generator is None):
            there, here = ("no", "one") if state["generator"] is None else ("one", "none")
            raise ValueError(f"state must be of a tuner with a generator if this one has: there {there}, here {here}")
        self._plain.space.load_state_dict(state["space"])
        self._hyper_optimizer.load_state_dict(state["hyper_optimizer"])
        self._trained, self._tuned = state["trained"], state["tuned"]
        self._values = [] if state["history"] is None else list(state["history"].unbind())
        if self._generator is not None:
            self._generator.set_state(state["generator"].cpu())


def _scalar(value: Tensor, name: str) -> Tensor:
    if value.ndim:
        raise ValueError(f"{name} must return a scalar, got shape {tuple(value.shape)}")
    return value
