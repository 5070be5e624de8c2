"""Training that tunes: steps on the weights by the training loss, steps on the hyperparameters by the validation loss.

"Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions"
(arXiv 1903.03088), algorithm 1.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from throughline.core._modules import check_held, shells, unwrapped
from throughline.core.checks import check_tensor
from throughline.search.best_response.batches import batch_size, pair
from throughline.search.best_response.network import SelfTuningNetwork

__all__ = ["SelfTuner"]

Values = dict[str, Tensor]  # constrained hyperparameters by name, (B,) each


class SelfTuner:
    """Alternate between φ on the training loss at λ + σε and (λ, σ) on the validation loss, through ŵ(λ) alone.

    Training steps minimise E f(λ + σε, ŵ(λ + σε)) over φ, with an ε for each sample; tuning steps minimise
    E F(ŵ(λ + σε)) − τ H(σ) over λ and σ, in evaluation mode: without dropout, augmentation and penalties, which need no
    derivatives. With a fixed σ they take λ itself. Gradients of φ come from training steps alone.

    Args:
        network: of `convert`; also inside of ``torch.compile`` and DistributedDataParallel. Its processes have batches
            of their own, and gradients of λ and s are averaged, too; give each a generator with another seed.
        optimizer: over ``network.parameters()``, of any kind; those of the model that was converted are others. A
            gradient is clipped by its ``register_step_pre_hook``.
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
        ValueError: an argument out of range, an unknown hyperparameter, or an optimizer that holds λ or s, or nothing
            of the network; in a step, an empty batch, or a network that has other parameters than it had, such as
            after ``load_state_dict(assign=True)``.
        TypeError: ``network`` is no `SelfTuningNetwork`; in `step`, what yields batches is no iterator of pairs.

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
        loss: Callable[[Any, Any], Tensor],
        augment: Callable[[Any, Values], Any] | None = None,
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
        plain = unwrapped(network) if isinstance(network, nn.Module) else network
        if not isinstance(plain, SelfTuningNetwork):
            raise TypeError(f"network must be a SelfTuningNetwork, got {type(network).__name__}")
        space = plain.space
        optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if optimized & {id(space.location), id(space.raw_scale)}:
            raise ValueError("optimizer must hold the network's parameters alone, got one with those of its space")
        if optimized.isdisjoint(map(id, plain.parameters())):
            raise ValueError(
                "optimizer must hold parameters of the network, got none of them: convert copies the model, so give "
                "the optimizer network.parameters()"
            )
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
        self._held = [*plain.parameters(), space.location, space.raw_scale]
        self._parallel = next((s for s in shells(network) if isinstance(s, DistributedDataParallel)), None)
        if self._parallel is not None:
            group = self._parallel.process_group
            for parameter in (space.location, space.raw_scale):
                distributed.broadcast(parameter.data, distributed.get_global_rank(group, 0), group)
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

    def train_step(self, inputs: Any, targets: Any) -> Tensor:
        """One step on φ, the hyperparameters of every sample perturbed by an ε of its own; the loss, detached.

        Args:
            inputs: what the model takes as its argument: a tensor ``(B, ...)``, or a dict, list or tuple of such.
            targets: what ``loss`` takes.
        """
        size, space = self._begin(inputs, targets), self._plain.space
        self.network.train()
        with torch.no_grad():  # φ alone learns from the training loss
            hyper = space.sample(size, generator=self._generator)
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

    def tune_step(self, inputs: Any, targets: Any) -> Tensor:
        """One step on λ and σ, φ untouched; the validation loss, detached and without the entropy.

        Arguments are those of `train_step`.
        """
        size, space = self._begin(inputs, targets), self._plain.space
        self.network.eval()
        hyper = space.sample(size, generator=self._generator) if self._tune_scale else space.location
        network = self.network if self._parallel is None else self._parallel.module  # φ has no gradient to exchange
        loss = _scalar(self._loss(network(inputs, hyper=hyper), targets), "loss")
        if self._tune_scale:
            learned = [space.location, space.raw_scale]
            objective = loss - self._entropy_weight * space.entropy()
        else:
            learned, objective = [space.location], loss
        for parameter, gradient in zip(learned, torch.autograd.grad(objective, learned), strict=True):
            parameter.grad = self._averaged(gradient)
        self._hyper_optimizer.step()
        self._hyper_optimizer.zero_grad()
        self._tuned += 1
        self._values.append(space._values())
        return loss.detach()

    def step(self, train_batches: Iterator[tuple[Any, Any]], valid_batches: Iterator[tuple[Any, Any]]) -> Tensor:
        """The next step of the schedule on the next batch of ``(inputs, targets)`` of its kind; the loss, detached.

        What else a loss wants goes into the targets: ``(inputs, (targets, weights))``.
        """
        if self.phase() == "train":
            return self.train_step(*pair("train_batches", train_batches))
        return self.tune_step(*pair("valid_batches", valid_batches))

    def _begin(self, inputs: Any, targets: Any) -> int:
        """The size of a batch, once there is something to learn from it and with it."""
        space = self._plain.space
        check_held(self._held, (*self._plain.parameters(), space.location, space.raw_scale), "network")
        size = batch_size(inputs, targets)
        if not size:
            raise ValueError("inputs must hold at least one sample, got an empty batch")
        return size

    def _averaged(self, gradient: Tensor) -> Tensor:
        """The mean of a gradient over the processes."""
        if self._parallel is None:
            return gradient
        group = self._parallel.process_group
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient, group=group)
        return gradient / distributed.get_world_size(group)

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
    check_tensor(f"the result of {name}", value)
    if value.ndim:
        raise ValueError(f"{name} must return a scalar, got shape {tuple(value.shape)}")
    return value
