"""How sharp the loss is around a model: along its gradient, and by its second derivatives."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from throughline.core._derivatives import eager, pullback
from throughline.core._modules import call_with
from throughline.core._trees import dot
from throughline.core.checks import check_tensor, integer
from throughline.search.self_distillation.teachers import steady
from throughline.search.supernet import arch_parameters, weight_parameters

__all__ = ["dominant_eigenvalue", "sharpness"]

Loss = Callable[[nn.Module, Any], Tensor]
Point = dict[str, Tensor]  # parameters by name


@eager
def sharpness(
    model: nn.Module, loss: Loss, batch: Any, *, rho: float = 0.05, params: Sequence[nn.Parameter] | None = None
) -> Tensor:
    """S = L(w + ρ g/‖g‖) − L(w) with g = ∇L(w): how much the loss rises at a distance of ρ uphill.

    The one-step sharpness of SAM (arXiv 2010.01412), by which "Improving Differentiable Architecture Search via
    Self-Distillation" (arXiv 2302.05629) is measured here. BatchNorm uses the statistics of the batch and dropout is
    off; the model is left as it was, bit for bit. At a stationary point it is 0.

    Cross-entropy flattens as it falls: compare models after equal training, on data that they were not trained on, and
    look at their losses too.

    Args:
        model: any module.
        loss: L, ``(model, batch)`` to a scalar, differentiable.
        batch: whatever ``loss`` takes.
        rho: ρ, positive and finite, the distance over all ``params`` together.
        params: w, parameters of the model; by default all that require a gradient but a supernet's architecture
            parameters.

    Returns:
        Scalar, detached; in float32 at least.

    Raises:
        TypeError: ``loss`` gives no tensor.
        ValueError: ρ is out of range, ``loss`` gives no scalar, or ``params`` are none, not the model's, frozen, or
            without effect on the loss.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> sharpness(model, lambda model, x: model(x).square().sum() / 2, torch.tensor([[2.0]]), rho=0.5)  # 2 w², w to 1.5
    tensor(2.5000)
    """
    if not 0 < rho < math.inf:
        raise ValueError(f"rho must be positive and finite, got {rho}")
    here = _point(model, weight_parameters(model) if params is None else params, given=params is not None)
    with steady(model):
        value, gradient = _slope(model, loss, batch, here, further=False)
        with torch.no_grad():
            norm = dot(gradient, gradient).sqrt()
            reach = torch.where(norm > 0, rho / norm, 0.0)
            there = {name: w + (reach * gradient[name]).to(w.dtype) for name, w in here.items()}
            uphill = _value(model, loss, batch, there)
    return _wide(uphill) - _wide(value)


@eager
def dominant_eigenvalue(
    model: nn.Module,
    loss: Loss,
    batch: Any,
    *,
    params: Sequence[nn.Parameter] | None = None,
    iterations: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The eigenvalue of ∇²L that is largest in absolute value, over all ``params`` together.

    Of a supernet's architecture parameters it announces the collapse of a search ("Understanding and Robustifying
    Differentiable Architecture Search", arXiv 1909.09656); a companion of "Improving Differentiable Architecture
    Search via Self-Distillation" (arXiv 2302.05629). Power iteration on products with the Hessian over one graph of the
    gradient: its error falls as the ratio of the two largest to the power of twice the ``iterations``. Modes and state
    of the model are treated as by `sharpness`.

    Args:
        model: any module.
        loss: L, ``(model, batch)`` to a scalar, twice differentiable.
        batch: whatever ``loss`` takes.
        params: parameters of the model; by default a supernet's architecture parameters.
        iterations: products, at least 1.
        generator: of the first vector, on any device; torch's global one by default.

    Returns:
        Scalar, detached, with its sign; in float32 at least. 0 where the Hessian vanishes.

    Raises:
        TypeError: ``loss`` gives no tensor, or ``iterations`` is no integer.
        ValueError: ``iterations`` is out of range, ``loss`` gives no scalar, or ``params`` as for `sharpness`.

    >>> model, scale = nn.Linear(2, 1, bias=False), torch.tensor([3.0, -5.0])
    >>> curved = lambda model, scale: (scale * model.weight.square()).sum() / 2
    >>> dominant_eigenvalue(model, curved, scale, params=[model.weight])
    tensor(-5.)
    """
    if integer("iterations", iterations) < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    here = _point(model, arch_parameters(model) if params is None else params, given=params is not None)
    with steady(model), sdpa_kernel(SDPBackend.MATH):  # the kernel of attention that has a second derivative
        _, gradient = _slope(model, loss, batch, here, further=True)
        return _largest(pullback(gradient, here), here, iterations, generator)


@torch.no_grad()
def _largest(
    product: Callable[[Point], Point], like: Point, iterations: int, generator: torch.Generator | None
) -> Tensor:
    """Power iteration: the Rayleigh quotient at the last vector but one."""
    vector = _unit({name: _drawn(p, generator) for name, p in like.items()})
    for _ in range(iterations):
        image = product(vector)
        value, vector = dot(vector, image), _unit(image)
    return value


def _drawn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Normal numbers, the same ones in every precision."""
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, dtype=torch.float32, device=device, generator=generator).to(like)


def _unit(vector: Point) -> Point:
    norm = dot(vector, vector).sqrt()
    return {name: v / torch.where(norm > 0, norm, 1.0).to(v.dtype) for name, v in vector.items()}


def _slope(model: nn.Module, loss: Loss, batch: Any, here: Point, *, further: bool) -> tuple[Tensor, Point]:
    """L and ∇L, with a graph of it if it is to be differentiated further."""
    with torch.enable_grad():
        value = _value(model, loss, batch, here)
        leaves = list(here.values())
        found: Sequence[Tensor | None] = (
            torch.autograd.grad(value, leaves, create_graph=further, allow_unused=True) if value.requires_grad else ()
        )
    if all(g is None for g in found):
        raise ValueError("params must have an effect on the loss, got a loss without a gradient in any of them")
    zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True))
    return value.detach(), dict(zip(here, zeros, strict=True))


def _value(model: nn.Module, loss: Loss, batch: Any, at: Point) -> Tensor:
    """L with some of the parameters at other values; they are swapped, nothing is written."""
    value: Tensor = call_with(_Objective(model, loss), at, batch)
    check_tensor("the result of loss", value)
    if value.ndim:
        raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}")
    return value


class _Objective(nn.Module):
    """A loss of a model, as a module whose parameters can be swapped."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, (loss,)  # in a tuple, should it be a module

    def forward(self, batch: Any) -> Tensor:
        return self.loss[0](self.model, batch)


def _point(model: nn.Module, params: Sequence[nn.Parameter], *, given: bool) -> Point:
    """The parameters' values by their names in `_Objective`, each the leaf of a graph of its own."""
    names = {id(p): name for name, p in model.named_parameters(prefix="model")}
    chosen = list(params) if given else [p for p in params if p.requires_grad]
    if not chosen:
        raise ValueError("params must be at least one parameter that requires a gradient, got none")
    for p in chosen:
        if id(p) not in names:
            raise ValueError("params must be parameters of the model, got another tensor among them")
        if not p.requires_grad:
            name = names[id(p)].removeprefix("model.")
            raise ValueError(f"params must require a gradient, got {name!r}, which does not")
    return {names[id(p)]: p.detach().requires_grad_() for p in chosen}


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
