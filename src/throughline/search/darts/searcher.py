"""DARTS, of first and second order (arXiv 1806.09055)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from throughline.core._modules import call_with
from throughline.core.bilevel import hypergradient
from throughline.search._steps import check_parts, give, parallel_shell, scalar
from throughline.search.darts.loop import Batch
from throughline.search.supernet import arch_parameters, batch_statistics, choices, discretise

__all__ = ["DartsSearcher"]

Loss = Callable[[nn.Module, Batch], Tensor]
EPSILON = 0.01  # how far the finite difference moves all weights together


class DartsSearcher:
    """DARTS, of first or second order (arXiv 1806.09055): α follows the validation loss, w the training loss.

    A step on α takes ∇_α L_val(w, α) at the present weights. With ``unrolled`` it looks one step of SGD ahead,
    w' = w − ξ·(∇_w L_train + weight_decay·w + momentum·buffer), and takes

        ∇_α L_val(w', α) − ξ·[∇_α L_train(w⁺, α) − ∇_α L_train(w⁻, α)] / (2ε),   w± = w ± ε·∇_w' L_val(w', α),

    with ε = 0.01/‖∇_w' L_val‖ and ξ, decay, momentum and buffer of the weight optimizer as they are (without its
    Nesterov correction). It changes α alone: batch norm uses the batch, and its running statistics stay. α of a choice
    that is decided takes no part, nor does weight decay move it. Freeze α, as "fixed alpha" of arXiv 2108.04392 does,
    by calling `weight_step` alone.

    Args:
        model: any module, most often one with `MixedOp` inside; its train or eval mode is left to the caller.
        loss: ``(model, batch) -> scalar``, all that knows the task.
        weight_optimizer: of any kind, over every parameter of the model that requires a gradient and is no architecture
            parameter.
        arch_optimizer: of any kind, over the architecture parameters.
        arch_params: α, parameters of the model; by default those of its choices.
        unrolled: second order, at about two and a half times the cost of a first-order iteration. Needs one learning
            rate for all weights, and a loss that gives the same value when it is called again.
        grad_clip: largest norm of the gradient of all weights together; None for no clipping.

    Attributes:
        model, weight_optimizer, arch_optimizer: as given.

    Raises:
        ValueError: an argument out of range, no architecture parameter, one that is not the model's, or an optimizer
            that holds other parameters than its own or lacks some; in a step, a loss that is no scalar or does not
            depend on what is to be updated.
        TypeError: ``model`` is no module, ``loss`` is not callable or returns no tensor.

    >>> from throughline.search.supernet import MixedOp, weight_parameters
    >>> net = MixedOp({"linear": nn.Linear(3, 1), "mean": nn.AdaptiveAvgPool1d(1)})
    >>> sgd, adam = torch.optim.SGD(weight_parameters(net), 0.1), torch.optim.Adam(arch_parameters(net), 0.1)
    >>> searcher = DartsSearcher(net, lambda net, x: (net(x) - x[:, :1]).square().mean(), sgd, adam)
    >>> losses = searcher.step(torch.randn(32, 3), torch.randn(32, 3))
    >>> list(losses)
    ['valid_loss', 'train_loss']
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        weight_optimizer: Optimizer,
        arch_optimizer: Optimizer,
        *,
        arch_params: Sequence[nn.Parameter] | None = None,
        unrolled: bool = False,
        grad_clip: float | None = 5.0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"loss must be callable, (model, batch) -> scalar, got {type(loss).__name__}")
        if grad_clip is not None and not 0 < grad_clip < math.inf:
            raise ValueError(f"grad_clip must be positive and finite, or None for no clipping, got {grad_clip}")
        self.model, self.loss = model, loss
        self.weight_optimizer, self.arch_optimizer = weight_optimizer, arch_optimizer
        self.unrolled, self.grad_clip = unrolled, grad_clip
        self.arch_params = list(arch_parameters(model) if arch_params is None else arch_params)
        self._parallel = parallel_shell(model)
        self._inner = model if self._parallel is None else self._parallel.module  # α has no buffers to exchange
        named = dict(self._inner.named_parameters())
        check_parts(named, self.arch_params, weight_optimizer, arch_optimizer)
        arch = set(map(id, self.arch_params))
        self._arch = {name: p for name, p in named.items() if id(p) in arch}
        self._weights = {name: p for name, p in named.items() if id(p) not in arch}

    def weight_step(self, train_batch: Batch) -> dict[str, Tensor]:
        """One step of the weight optimizer on the training loss, its gradient clipped; α gets no gradient."""
        value = scalar(self.loss(self.model, train_batch))
        self._update_weights(value)
        return {"train_loss": value.detach()}

    def architecture_step(self, valid_batch: Batch, train_batch: Batch) -> dict[str, Tensor]:
        """One step of the architecture optimizer; ``train_batch`` is what ``unrolled`` looks ahead on.

        With every choice decided there is nothing to do, and the result is empty.
        """
        learned = self._undecided()
        if not learned:
            return {}
        with batch_statistics(self._inner):
            if self.unrolled:
                value, slopes = self._look_ahead(learned, valid_batch, train_batch)
            else:
                value = scalar(self.loss(self._inner, valid_batch))
                slopes = _gradients(value, list(learned.values()), "the architecture parameters")
        self.arch_optimizer.zero_grad()
        give(list(learned.values()), slopes, self._parallel)
        self.arch_optimizer.step()
        return {"valid_loss": value.detach()}

    def step(self, train_batch: Batch, valid_batch: Batch) -> dict[str, Tensor]:
        """A step on the architecture, then one on the weights, as DARTS has it: both losses, detached."""
        return self.architecture_step(valid_batch, train_batch) | self.weight_step(train_batch)

    def discretise(self) -> nn.Module:
        """A copy of the model in plain modules, every undecided choice at its largest α."""
        return discretise(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The states of the model and of both optimizers."""
        return {name: getattr(self, name).state_dict() for name in ("model", "weight_optimizer", "arch_optimizer")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where ``state`` was taken.

        Raises:
            ValueError: an entry is missing.
        """
        parts = ("model", "weight_optimizer", "arch_optimizer")
        if missing := [name for name in parts if name not in state]:
            raise ValueError(f"state must be what state_dict returns, got one without {', '.join(missing)}")
        for name in parts:
            getattr(self, name).load_state_dict(state[name])

    def _update_weights(self, value: Tensor) -> None:
        """One step of the weight optimizer down the gradient of ``value``, clipped."""
        weights = [p for p in self._weights.values() if p.requires_grad]
        slopes = _gradients(value, weights, "the weights")
        give(weights, slopes, self._parallel)
        if self.grad_clip is not None:
            nn.utils.clip_grad_norm_(weights, self.grad_clip)
        self.weight_optimizer.step()

    def _undecided(self) -> dict[str, nn.Parameter]:
        """α by name, without those of choices that are decided."""
        fixed = {id(c.alpha) for c in choices(self._inner).values() if c.decision is not None or c.dropped}
        return {name: p for name, p in self._arch.items() if id(p) not in fixed}

    def _look_ahead(
        self, learned: dict[str, nn.Parameter], valid_batch: Batch, train_batch: Batch
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The validation loss one step ahead, and the second-order gradient of α."""
        criterion, seen = _Criterion(self._inner, self.loss), []

        def outer(alpha: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
            seen.append(criterion.at(alpha | weights, valid_batch))
            return seen[-1]

        def inner(alpha: dict[str, Tensor], weights: dict[str, Tensor]) -> Tensor:
            pulls = ((weights[name] * pull).sum() for name, pull in constant.items())
            return sum(pulls, criterion.at(alpha | weights, train_batch))

        weights = {name: p for name, p in self._weights.items() if p.requires_grad}
        constant = self._constant(weights)
        found = hypergradient(
            outer, inner, learned, weights, method="finite_difference", lr=self._rate(), epsilon=EPSILON
        )
        return seen[0], [found[name] for name in learned]

    def _constant(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """weight_decay·w + momentum·buffer by name: what a step of SGD adds to the gradient.

        In the inner loss it is a linear term in w, which does not depend on α: mixed products stay as they are.
        """
        names, found = {id(p): name for name, p in weights.items()}, {}
        for group in self.weight_optimizer.param_groups:
            decay, momentum = group.get("weight_decay", 0), group.get("momentum", 0)
            for p in (p for p in group["params"] if id(p) in names):
                buffer = self.weight_optimizer.state[p].get("momentum_buffer") if momentum else None
                terms = [decay * p.detach()] * bool(decay) + ([] if buffer is None else [momentum * buffer])
                if terms:
                    found[names[id(p)]] = sum(terms[1:], terms[0])
        return found

    def _rate(self) -> float:
        """ξ, the learning rate of the weights."""
        rates = {float(group["lr"]) for group in self.weight_optimizer.param_groups}
        if len(rates) > 1:
            raise ValueError(
                f"unrolled wants one learning rate for all weights, got {', '.join(map(str, sorted(rates)))}"
            )
        return rates.pop()


class _Criterion(nn.Module):
    """The loss of a model with other parameters than its own."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.model, batch)

    def at(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        return scalar(call_with(self, {f"model.{name}": p for name, p in parameters.items()}, batch))


def _gradients(value: Tensor, parameters: Sequence[Tensor], what: str) -> list[Tensor | None]:
    """The gradient in each parameter, None for those that ``value`` does not depend on."""
    wanted = [p for p in parameters if p.requires_grad]
    found = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad and wanted else ()
    if all(slope is None for slope in found):
        raise ValueError(f"loss must depend on {what}, got a value that does not")
    slopes = iter(found)
    return [next(slopes) if p.requires_grad else None for p in parameters]
