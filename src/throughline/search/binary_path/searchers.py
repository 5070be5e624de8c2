"""Searches along binary paths: by gradient and by REINFORCE ("ProxylessNAS: Direct Neural Architecture Search on Target
Task and Hardware", arXiv 1812.00332).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from throughline.core.checks import integer
from throughline.search.binary_path.latency import LatencyTable
from throughline.search.binary_path.objective import Form, check_form, hardware_loss, reinforce_loss
from throughline.search.binary_path.paths import binary_paths, undecided
from throughline.search.darts import DartsSearcher
from throughline.search.supernet import Choice, batch_statistics, choices

__all__ = ["BinaryPathSearcher", "ReinforceSearcher"]

Batch = Any
Loss = Callable[[nn.Module, Batch], Tensor]
Reward = Callable[[nn.Module, Batch, Mapping[str, tuple[str, ...]]], float]


class BinaryPathSearcher:
    """Search by gradient along one path at a time (arXiv 1812.00332, sections 3.2 and 3.3.1), a `Searcher`.

    A weight step draws a path and updates its weights alone. An architecture step draws again and updates alpha by the
    validation loss, with the expected latency in it where there is a table (`hardware_loss`); batch norm uses the batch
    and its running statistics stay. With ``pairs``, two options of each choice compete and are then scaled so that the
    probability of the two together, and that of every other option, is what it was. For warm-up call `weight_step`
    alone, as `search` does without a validation loader.

    Args:
        model: any module with `MixedOp` inside.
        loss: ``(model, batch) -> scalar``, all that knows the task.
        weight_optimizer: over every parameter that requires a gradient and is no architecture parameter.
        arch_optimizer: over the architecture parameters. With ``pairs`` it must leave alone what has a gradient of
            zero: Adam with a first beta of 0, as the authors have it, and no weight decay.
        pairs: as in `binary_paths`; the authors' choice.
        latency: times of all options; without, the task decides alone.
        reference: T of `hardware_loss`; by default the expected latency where all options are as probable.
        form, strength: of `hardware_loss`.
        grad_clip: largest norm of the gradient of the weights; None for no clipping.
        generator: of the paths; torch's global one by default. Processes that train together want one of the same seed
            each, so that they take the same path.

    Attributes:
        model, loss, weight_optimizer, arch_optimizer, latency, reference: as given.

    Raises:
        TypeError, ValueError: those of `DartsSearcher`; an arch optimizer that moves what has no gradient; a table that
            lacks an option; a reference without a table, or one that the form cannot take.

    >>> from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters
    >>> net = nn.Sequential(MixedOp({"linear": nn.Linear(3, 3), "skip": nn.Identity()}), nn.Linear(3, 1))
    >>> sgd = torch.optim.SGD(weight_parameters(net), 0.1)
    >>> adam = torch.optim.Adam(arch_parameters(net), 0.1, betas=(0.0, 0.999))
    >>> table = LatencyTable({"0.choice": {"linear": 2.0, "skip": 0.0}})
    >>> loss = lambda net, x: (net(x) - x[:, :1]).square().mean()
    >>> searcher = BinaryPathSearcher(net, loss, sgd, adam, latency=table)
    >>> list(searcher.step(torch.randn(32, 3), torch.randn(32, 3)))
    ['train_loss', 'valid_loss', 'latency']
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        weight_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        *,
        pairs: bool = True,
        latency: LatencyTable | None = None,
        reference: float | None = None,
        form: Form = "linear",
        strength: float = 0.1,
        grad_clip: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self._weights = DartsSearcher(model, loss, weight_optimizer, arch_optimizer, grad_clip=grad_clip)
        self._alphas = DartsSearcher(model, self._objective, weight_optimizer, arch_optimizer)
        self.model, self.loss = model, loss
        self.weight_optimizer, self.arch_optimizer = weight_optimizer, arch_optimizer
        self.pairs, self.form, self.strength, self.generator = pairs, form, strength, generator
        if pairs:
            _check_momentum(arch_optimizer)
        if latency is None and reference is not None:
            raise ValueError(f"reference must come with a latency table, got {reference} without one")
        self.latency, self.reference = latency, reference
        if latency is not None:
            self.reference = _uniform(latency, choices(model)) if reference is None else reference
            check_form(form, self.reference)
        self._seen: dict[str, Tensor] = {}

    def weight_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One step of the weight optimizer along one path; other candidates have no gradient, alpha stays."""
        with binary_paths(self.model, gates=False, generator=self.generator):
            return self._weights.weight_step(train_batch)

    def architecture_step(self, valid_batch: Batch, train_batch: Batch = None) -> dict[str, Tensor]:
        """One step of the architecture optimizer along another path; ``train_batch`` is not used.

        With every choice decided there is nothing to do, and the result is empty.
        """
        with binary_paths(self.model, pairs=self.pairs, generator=self.generator) as drawn:
            found = undecided(self.model)
            before = {name: found[name].alpha.detach().clone() for name, pair in drawn.items() if len(pair) == 2}
            if not self._alphas.architecture_step(valid_batch, train_batch):
                return {}
        for name, alpha in before.items():
            _keep_together(found[name], drawn[name], alpha)
        return self._seen

    def step(self, train_batch: Batch, valid_batch: Batch) -> dict[str, Tensor]:
        """A step on the weights, then one on the architecture: both losses and the expected latency, detached."""
        return self.weight_step(train_batch) | self.architecture_step(valid_batch)

    def discretise(self) -> nn.Module:
        """A copy of the model in plain modules, every undecided choice at its largest alpha."""
        return self._weights.discretise()

    def state_dict(self) -> dict[str, Any]:
        """The states of the model, of both optimizers, and of the generator where there is one."""
        return self._weights.state_dict() | _state_of(self.generator)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            ValueError: an entry is missing.
        """
        _load(self._weights, self.generator, state)

    def _objective(self, model: nn.Module, batch: Batch) -> Tensor:
        """The validation loss, with the expected latency in it where there is a table."""
        value = self.loss(model, batch)
        self._seen = {"valid_loss": value.detach()}
        if self.latency is None:
            return value
        assert self.reference is not None  # given or made in the constructor
        expected = self.latency.expected(self.model)
        self._seen["latency"] = expected.detach()
        return hardware_loss(value, expected, reference=self.reference, form=self.form, strength=self.strength)


class ReinforceSearcher:
    """Search by rewards, for objectives without a gradient (arXiv 1812.00332, section 3.3.1), a `Searcher`.

    Weight steps are those of `BinaryPathSearcher`. An architecture step draws networks, asks for the reward of each on
    one validation batch, and takes a step up the estimate of REINFORCE (`reinforce_loss`). The baseline begins with the
    first mean of rewards; later it moves to m · B + (1 - m) · mean before it is used.

    Args:
        model, loss, weight_optimizer: as of `BinaryPathSearcher`.
        reward: ``(model, batch, drawn) -> number``, the higher the better, called without gradients while the model
            runs the path ``drawn``, with batch norm using the batch; see `hardware_reward`.
        arch_optimizer: of any kind, over the architecture parameters.
        samples: networks in a step, at least 1.
        baseline_momentum: m, the weight of the old baseline, in [0, 1); the authors' "decay" of 0.99 is 0.01 here.
        generator: as of `BinaryPathSearcher`; processes that train together must agree in their rewards, too.

    Attributes:
        model, loss, reward, weight_optimizer, arch_optimizer: as given.
        baseline: B, or None before the first step.

    Raises:
        TypeError, ValueError: those of `DartsSearcher`, or a number out of range; in a step, a reward that is no finite
            number.

    >>> from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters
    >>> net = nn.Sequential(MixedOp({"linear": nn.Linear(3, 3), "skip": nn.Identity()}), nn.Linear(3, 1))
    >>> sgd, adam = torch.optim.SGD(weight_parameters(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
    >>> loss = lambda net, x: (net(x) - x[:, :1]).square().mean()
    >>> reward = lambda net, x, drawn: -loss(net, x).item() - 0.1 * (drawn["0.choice"] == ("linear",))
    >>> list(ReinforceSearcher(net, loss, reward, sgd, adam).step(torch.randn(32, 3), torch.randn(32, 3)))
    ['train_loss', 'reward', 'baseline']
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        reward: Reward,
        weight_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        *,
        samples: int = 10,
        baseline_momentum: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        self._weights = DartsSearcher(model, loss, weight_optimizer, arch_optimizer, grad_clip=None)
        if not callable(reward):
            raise TypeError(f"reward must be callable, (model, batch, drawn) -> number, got {type(reward).__name__}")
        if integer("samples", samples) < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if not 0 <= baseline_momentum < 1:
            raise ValueError(f"baseline_momentum must be in [0, 1), got {baseline_momentum}")
        self.model, self.loss, self.reward = model, loss, reward
        self.weight_optimizer, self.arch_optimizer = weight_optimizer, arch_optimizer
        self.samples, self.baseline_momentum, self.generator = samples, baseline_momentum, generator
        self.baseline: float | None = None

    def weight_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One step of the weight optimizer along one path; other candidates have no gradient, alpha stays."""
        with binary_paths(self.model, gates=False, generator=self.generator):
            return self._weights.weight_step(train_batch)

    def architecture_step(self, valid_batch: Batch, train_batch: Batch = None) -> dict[str, Tensor]:
        """One step of the architecture optimizer on the rewards of some networks; ``train_batch`` is not used.

        With every choice decided there is nothing to do, and the result is empty.
        """
        if not undecided(self.model):
            return {}
        drawn, rewards = [], []
        for _ in range(self.samples):
            with torch.no_grad(), batch_statistics(self.model):
                with binary_paths(self.model, gates=False, generator=self.generator) as paths:
                    rewards.append(_number(self.reward(self.model, valid_batch, paths)))
                drawn.append(paths)
        mean, keep = sum(rewards) / len(rewards), self.baseline_momentum
        self.baseline = mean if self.baseline is None else keep * self.baseline + (1 - keep) * mean
        alphas = {id(c.alpha): c.alpha for c in undecided(self.model).values() if c.alpha.requires_grad}
        value = reinforce_loss(self.model, drawn, rewards, self.baseline)
        self.arch_optimizer.zero_grad()
        slopes = torch.autograd.grad(value, list(alphas.values()))
        for alpha, slope in zip(alphas.values(), slopes, strict=True):
            alpha.grad = slope
        self.arch_optimizer.step()
        return {"reward": value.new_tensor(mean), "baseline": value.new_tensor(self.baseline)}

    def step(self, train_batch: Batch, valid_batch: Batch) -> dict[str, Tensor]:
        """A step on the weights, then one on the architecture: the loss, the mean reward and the baseline."""
        return self.weight_step(train_batch) | self.architecture_step(valid_batch)

    def discretise(self) -> nn.Module:
        """A copy of the model in plain modules, every undecided choice at its largest alpha."""
        return self._weights.discretise()

    def state_dict(self) -> dict[str, Any]:
        """The states of the model and of both optimizers, the baseline, and the generator's state if there is one."""
        return self._weights.state_dict() | {"baseline": self.baseline} | _state_of(self.generator)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            ValueError: an entry is missing.
        """
        if "baseline" not in state:
            raise ValueError("state must be what state_dict returns, got one without baseline")
        _load(self._weights, self.generator, state)
        self.baseline = state["baseline"]


def _keep_together(choice: Choice, pair: tuple[str, ...], before: Tensor) -> None:
    """Shift the two alphas that were updated, so that their exponentials sum to what they did before."""
    places = [choice.names.index(name) for name in pair]
    with torch.no_grad():
        choice.alpha[places] -= choice.alpha[places].logsumexp(0) - before[places].logsumexp(0)


def _uniform(table: LatencyTable, found: Mapping[str, Choice]) -> float:
    """The expected latency where all options of a choice are as probable."""
    table.check(found)
    return table.constant + sum(sum(table.options[n][o] for o in c.names) / len(c.names) for n, c in found.items())


def _check_momentum(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        for name, value in (
            ("the first beta", group.get("betas", (0.0,))[0]),
            ("momentum", group.get("momentum", 0.0)),
            ("weight_decay", group.get("weight_decay", 0.0)),
        ):
            if value:
                raise ValueError(
                    f"arch_optimizer must have {name} of 0 with pairs=True, got {value}: it would move options that "
                    "were not drawn, such as Adam(..., betas=(0.0, 0.999)) does not"
                )


def _number(reward: object) -> float:
    value = float(reward)  # type: ignore[arg-type]
    if not abs(value) < float("inf"):
        raise ValueError(f"reward must be a finite number, got {value}")
    return value


def _state_of(generator: torch.Generator | None) -> dict[str, Any]:
    return {} if generator is None else {"generator": generator.get_state()}


def _load(searcher: DartsSearcher, generator: torch.Generator | None, state: dict[str, Any]) -> None:
    if generator is not None and "generator" not in state:
        raise ValueError("state must be what state_dict returns, got one without generator")
    searcher.load_state_dict(state)
    if generator is not None:
        generator.set_state(state["generator"])
