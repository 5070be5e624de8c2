"""Architecture search on two tied copies of the weights ("RARTS: An Efficient First-Order Relaxed Architecture Search
Method", arXiv 2008.03901).
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from throughline.core.checks import check_tensor
from throughline.search._steps import check_parts, few, give, parallel_shell, scalar
from throughline.search.supernet import Choice, arch_parameters, batch_statistics, discretise

__all__ = ["RelaxedSearcher", "relaxed_loss"]

Sweep = Literal["gauss-seidel", "fused"]
Gradients = Sequence[Tensor | None]
KEPT = ("model", "auxiliary", "weight_optimizer", "auxiliary_optimizer", "arch_optimizer")  # in a state


def relaxed_loss(
    train_loss: Tensor,
    valid_loss: Tensor,
    weights: Iterable[Tensor],
    auxiliary: Iterable[Tensor],
    *,
    lam: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    """L(y, w, α) = L_v(y, α) + λ L_t(w, α) + ½ β ‖y − w‖² (arXiv 2008.03901), which small steps never raise.

    Args:
        train_loss: L_t of the primary network, a scalar.
        valid_loss: L_v of the auxiliary network, a scalar.
        weights: w, such as those of ``weight_parameters(searcher.model)``: neither buffers nor α.
        auxiliary: y, of the same shapes in the same order.
        lam: λ, positive.
        beta: β, not negative.

    Returns:
        A scalar, differentiable in all four.

    Raises:
        TypeError: something is no tensor.
        ValueError: a loss is no scalar, w and y differ in number or shapes, or λ or β is out of range.

    >>> w, y = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    >>> relaxed_loss(torch.tensor(0.5), torch.tensor(0.25), [w], [y], lam=2.0, beta=3.0)
    tensor(7.2500)
    """
    _check_coefficients(lam, beta)
    for name, loss in {"train_loss": train_loss, "valid_loss": valid_loss}.items():
        check_tensor(name, loss)
        if loss.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {tuple(loss.shape)}")
    here, there = list(weights), list(auxiliary)
    for name, tensors in {"weights": here, "auxiliary": there}.items():
        for tensor in tensors:
            check_tensor(f"each of {name}", tensor)
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (here, there)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"auxiliary must be of the shapes of weights, {shapes[0]}, got {shapes[1]}")
    value = valid_loss + lam * train_loss
    for w, y in zip(here, there, strict=True):
        value = value + beta / 2 * (y - w).square().sum()
    return value


class RelaxedSearcher:
    """Gradient descent on `relaxed_loss` over an architecture α and two networks that share it (arXiv 2008.03901).

    The primary network w learns from training batches, the auxiliary one y from validation batches, a penalty ties
    them, and α learns from both losses by first derivatives. One iteration, each line with the newest of the others:

    1. ``w ← w − η_w [λ ∇_w L_t(w, α) + β (w − y)]``
    2. ``α ← α − η_α [λ ∇_α L_t(w, α) + ∇_α L_v(y, α)]``
    3. ``y ← y − η_y [∇_y L_v(y, α) + β (y − w)]``

    The brackets are what the optimizers are given: with plain SGD the lines are exact. They take four forward and
    backward passes, two of them for α alone. The *fused* sweep takes both gradients of each loss from one pass, α's in
    line 2 at the w before line 1, and y's in line 3 at the α before line 2: two passes, as many as first-order DARTS.
    No more than one graph is held at a time; weights and the state of their optimizer are held twice. Passes for α
    alone normalise by the batch and leave running statistics as they are, and α of a choice that is decided rests.

    λ scales the rate of w: compare runs at equal λ·η_w. Plain SGD needs η_w (λ·(Lipschitz constant of ∇L_t) + β) < 2.
    If L is unbounded below, as a bilinear L_v makes it where λ and β are too small, the iterates diverge.

    Args:
        model: the primary network, trained in place; any module, also inside of ``torch.compile``, or of
            DistributedDataParallel, whose processes then bring batches of their own and average all gradients.
        loss: ``(network, batch)`` to a scalar, by the network that it is given.
        weight_optimizer: over all of the weights, and no α; of any class that follows one gradient.
        arch_optimizer: over all of α, and no weight.
        arch_params: α, parameters of the model; by default those of its choices. Every other parameter that requires a
            gradient by then is a weight: freeze some before, not later.
        lam: λ, positive.
        beta: β, not negative; 0 makes two networks that have α in common and nothing else.
        sweep: "gauss-seidel", of which the paper's theorem of convergence is, or "fused".
        grad_clip: the largest norm of line 1's and of line 3's bracket, each on its own; None for any.

    Attributes:
        model, loss, weight_optimizer, arch_optimizer, lam, beta, sweep, grad_clip: as given.
        auxiliary: the network y, at first a copy of the model with the very same `Choice` modules and α. Everything
            else is its own, buffers too.
        auxiliary_optimizer: as ``weight_optimizer``, whose settings it takes over at every step: a scheduler of that
            one drives both.
        iteration: how often w has moved.

    Raises:
        TypeError: ``model`` is no module; ``loss`` is not callable; the class of ``weight_optimizer`` wants more than
            parameters and its defaults; a loss is no tensor.
        ValueError: a number is out of range; ``arch_params`` are none, or not of the model; an optimizer holds what it
            must not, or lacks what it must hold; a loss is no scalar, or depends on no weight of its network; neither
            loss depends on one of α, unless its choice is decided.
        FloatingPointError: a loss is not finite; the pass that found it has moved nothing.

    >>> from torch.nn import functional as F
    >>> from throughline.search.supernet import MixedOp, weight_parameters
    >>> net = nn.Sequential(MixedOp({"line": nn.Linear(4, 8), "wave": nn.Sequential(nn.Linear(4, 8), nn.Tanh())}))
    >>> loss = lambda network, batch: F.cross_entropy(network(batch[0]), batch[1])
    >>> weights = torch.optim.SGD(weight_parameters(net), 0.025, momentum=0.9)
    >>> searcher = RelaxedSearcher(net, loss, weights, torch.optim.Adam(arch_parameters(net), 3e-4), sweep="fused")
    >>> train, valid = ((torch.randn(16, 4), torch.arange(16) % 8) for _ in range(2))
    >>> sorted(searcher.step(train, valid)), searcher.auxiliary[0].choice is net[0].choice
    (['gap', 'train_loss', 'valid_loss'], True)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        weight_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        *,
        arch_params: Sequence[nn.Parameter] | None = None,
        lam: float = 1.0,
        beta: float = 1.0,
        sweep: Sweep = "gauss-seidel",
        grad_clip: float | None = 5.0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"loss must be callable, (network, batch) -> scalar, got {type(loss).__name__}")
        _check_coefficients(lam, beta)
        if sweep not in get_args(Sweep):
            raise ValueError(f"sweep must be one of {', '.join(get_args(Sweep))}, got {sweep!r}")
        if grad_clip is not None and not 0 < grad_clip < math.inf:
            raise ValueError(f"grad_clip must be positive and finite, or None for no clipping, got {grad_clip}")
        self.model, self.loss = model, loss
        self.weight_optimizer, self.arch_optimizer = weight_optimizer, arch_optimizer
        self.lam, self.beta, self.sweep, self.grad_clip = lam, beta, sweep, grad_clip
        self.iteration = 0

        self.arch_params: list[Tensor] = list(arch_parameters(model) if arch_params is None else arch_params)
        self._parallel = parallel_shell(model)
        self._inner: nn.Module = model if self._parallel is None else self._parallel.module
        named = dict(self._inner.named_parameters())
        check_parts(named, self.arch_params, weight_optimizer, arch_optimizer)
        self._names = {id(p): name for name, p in named.items()}
        arch, choices = set(map(id, self.arch_params)), [m for m in model.modules() if isinstance(m, Choice)]
        self._weights: list[Tensor] = [p for p in named.values() if p.requires_grad and id(p) not in arch]
        if not self._weights:
            raise ValueError("model must have weights beside arch_params, got none that require a gradient")
        if loose := [self._names[id(c.alpha)] for c in choices if c.alpha.requires_grad and id(c.alpha) not in arch]:
            raise ValueError(
                f"arch_params must hold the alpha of every choice, got none for {few(loose)}; requires_grad_(False) "
                "freezes one"
            )
        memo: dict[int, Any] = {id(part): part for part in (*self.arch_params, *choices)}
        self.auxiliary = copy.deepcopy(self._inner, memo)
        self._auxiliary_weights: list[Tensor] = [memo[id(w)] for w in self._weights]
        self.auxiliary_optimizer = _twin(weight_optimizer, memo)

    def weight_step(self, train_batch: Any) -> dict[str, Tensor]:
        """Line 1 alone: one update of w.

        Returns:
            "train_loss" before it, detached.
        """
        loss, (slopes,) = self._slopes(self._inner, train_batch, self._weights)
        self._move(slopes, primary=True)
        return {"train_loss": loss}

    def architecture_step(self, valid_batch: Any, train_batch: Any) -> dict[str, Tensor]:
        """Lines 2 and 3: one update of α, then one of y.

        Returns:
            "valid_loss" of the auxiliary network before both, and "gap", ‖y − w‖ after them, detached.
        """
        learned = self._learned()
        _, (arch,) = self._slopes(self._inner, train_batch, learned) if learned else (None, [[]])
        return self._respond(valid_batch, learned, arch)

    def step(self, train_batch: Any, valid_batch: Any) -> dict[str, Tensor]:
        """One iteration: lines 1, 2 and 3, by the sweep that was chosen.

        Returns:
            "train_loss" and "valid_loss", each as its network was found, and "gap", ‖y − w‖ afterwards; 0-d, detached.
        """
        if self.sweep == "gauss-seidel":
            return {**self.weight_step(train_batch), **self.architecture_step(valid_batch, train_batch)}
        learned = self._learned()
        loss, (slopes, arch) = self._slopes(self._inner, train_batch, self._weights, learned)
        self._move(slopes, primary=True)
        return {"train_loss": loss, **self._respond(valid_batch, learned, arch)}

    def discretise(self) -> nn.Module:
        """The architecture of the largest α with the primary network's weights, as plain modules (a copy)."""
        return discretise(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Both networks, the three optimizers and the iteration: a search goes on from it with the same numbers."""
        return {name: getattr(self, name).state_dict() for name in KEPT} | {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            ValueError: it lacks an entry.
        """
        if missing := [name for name in (*KEPT, "iteration") if name not in state]:
            raise ValueError(f"state must be what state_dict returns, got one without {', '.join(missing)}")
        for name in KEPT:
            getattr(self, name).load_state_dict(state[name])
        self.iteration = int(state["iteration"])

    def _learned(self) -> list[Tensor]:
        """α without what is frozen or decided."""
        choices = [m for m in self._inner.modules() if isinstance(m, Choice)]
        settled = {id(c.alpha) for c in choices if c.decision is not None or c.dropped}
        return [p for p in self.arch_params if p.requires_grad and id(p) not in settled]

    def _respond(self, batch: Any, learned: list[Tensor], train: Gradients) -> dict[str, Tensor]:
        """Lines 2 and 3, given λ ∇_α L_t."""
        for ours, theirs in zip(self._inner.modules(), self.auxiliary.modules(), strict=True):
            theirs.training = ours.training
        if self.sweep == "fused" or not learned:
            loss, (slopes, valid) = self._slopes(self.auxiliary, batch, self._auxiliary_weights, learned)
            self._move_arch(learned, train, valid)
        else:
            loss, (valid,) = self._slopes(self.auxiliary, batch, learned)
            self._move_arch(learned, train, valid)
            _, (slopes,) = self._slopes(self.auxiliary, batch, self._auxiliary_weights)
        self._move(slopes, primary=False)
        with torch.no_grad():
            gap = torch._foreach_sub(self._auxiliary_weights, self._weights)
            return {"valid_loss": loss, "gap": nn.utils.get_total_norm(gap)}

    def _slopes(self, network: nn.Module, batch: Any, *wanted: list[Tensor]) -> tuple[Tensor, list[Gradients]]:
        """The loss of a network on its batch, and by lists of parameters its gradients, those of L_t times λ."""
        which, scale = ("training", self.lam) if network is self._inner else ("validation", 1.0)
        moved = self._weights if network is self._inner else self._auxiliary_weights
        with nullcontext() if wanted[0] is moved else batch_statistics(network):
            loss = scalar(self.loss(network, batch))
        if not loss.isfinite():
            raise FloatingPointError(f"the {which} loss is not finite at step {self.iteration}: {loss.item()}")
        flat: Gradients = [None] * sum(map(len, wanted))
        if loss.requires_grad:
            flat = torch.autograd.grad(scale * loss, [p for some in wanted for p in some], allow_unused=True)
        slopes = iter(flat)
        found: list[Gradients] = [list(islice(slopes, len(some))) for some in wanted]
        if wanted[0] is moved and all(slope is None for slope in found[0]):
            raise ValueError(f"loss must depend on the weights that it is given; the {which} loss does not")
        return loss.detach(), found

    @torch.no_grad()
    def _move(self, slopes: Gradients, *, primary: bool) -> None:
        """Line 1 or line 3, given the gradient of its loss."""
        here, there, optimizer = self._weights, self._auxiliary_weights, self.weight_optimizer
        if not primary:
            here, there, optimizer = there, here, self.auxiliary_optimizer
            for own, group in zip(optimizer.param_groups, self.weight_optimizer.param_groups, strict=True):
                own.update({name: value for name, value in group.items() if name != "params"})
        # new tensors in either case: clipping writes to them, and autograd may give one to several parameters
        if self.beta:
            bracket: list[Tensor | None] = list(torch._foreach_mul(torch._foreach_sub(here, there), self.beta))
            reached = [i for i, slope in enumerate(slopes) if slope is not None]
            torch._foreach_add_([bracket[i] for i in reached], [slopes[i] for i in reached])  # type: ignore[misc]
        else:
            bracket = [None if slope is None else slope.clone() for slope in slopes]
        give(here, bracket, self._parallel)
        if self.grad_clip is not None:
            nn.utils.clip_grad_norm_(here, self.grad_clip)
        optimizer.step()
        give(here, [None] * len(here))
        self.iteration += primary

    @torch.no_grad()
    def _move_arch(self, learned: list[Tensor], train: Gradients, valid: Gradients) -> None:
        """Line 2, given both parts of its bracket."""
        pairs = [[p for p in pair if p is not None] for pair in zip(train, valid, strict=True)]
        if lost := [self._names[id(p)] for p, pair in zip(learned, pairs, strict=True) if not pair]:
            raise ValueError(f"arch_params must be used by the loss, and neither network's depends on {few(lost)}")
        give(self.arch_params, [None] * len(self.arch_params))
        give(learned, [sum(rest, first) for first, *rest in pairs], self._parallel)
        self.arch_optimizer.step()
        give(learned, [None] * len(learned))


def _twin(optimizer: Optimizer, twins: dict[int, Any]) -> Optimizer:
    """An optimizer of the same class and settings over the twins of its parameters."""
    kind = type(optimizer)
    if any(id(p) not in twins for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("weight_optimizer must hold parameters of the model alone, got one of something else")
    groups = [{**group, "params": [twins[id(p)] for p in group["params"]]} for group in optimizer.param_groups]
    taken = inspect.signature(kind).parameters
    try:
        return kind(groups, **{name: value for name, value in optimizer.defaults.items() if name in taken})
    except TypeError as error:
        raise TypeError(
            f"weight_optimizer must be of a class that parameters and defaults suffice to make, got {kind.__name__}: "
            f"{error}"
        ) from None


def _check_coefficients(lam: float, beta: float) -> None:
    if not 0 < lam < math.inf:
        raise ValueError(f"lam must be positive and finite, got {lam}")
    if not 0 <= beta < math.inf:
        raise ValueError(f"beta must be non-negative and finite, got {beta}")
