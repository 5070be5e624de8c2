"""Reconstruction with a proximal operator plugged in ("What's in a Prior?", arXiv 2310.14344, section 4)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from throughline.core._derivatives import transformed
from throughline.core.checks import check_floating
from throughline.core.implicit import check_solver, conjugate_gradient

__all__ = ["PnPResult", "pnp_admm", "pnp_pgd"]

Map = Callable[[Tensor], Tensor]


class PnPResult(NamedTuple):
    """What an iteration has come to.

    Args:
        solution: the last x.
        iterations: how many were made.
        residuals: ‖x_{k+1} − x_k‖/‖x_k‖ of each, the largest of the batch, ``(iterations,)``.
    """

    solution: Tensor
    iterations: int
    residuals: Tensor


@torch.no_grad()
def pnp_pgd(
    observation: Tensor,
    forward: Map,
    adjoint: Map,
    prox: Map,
    *,
    step_size: float = 1.0,
    max_iter: int = 100,
    tol: float = 1e-5,
    init: Tensor | None = None,
    bounds: tuple[float, float] | None = None,
) -> PnPResult:
    """Plug-and-play proximal gradient descent: x ← f(x − η Aᵀ(Ax − y)) ("What's in a Prior?", arXiv 2310.14344).

    Where f is the exact proximal operator of R, as a `LearnedProximalNetwork` is, F(x) = (η/2)‖Ax − y‖² + R(x) does not
    rise as long as η ≤ 1/‖AᵀA‖. R is fixed by training: η is at once the step and the weight of the data. Without
    gradients: the result has no graph.

    Args:
        observation: y, floating point and finite, ``(B, ...)``.
        forward: A, linear.
        adjoint: Aᵀ.
        prox: f; any denoiser, if the guarantee is not wanted.
        step_size: η, positive.
        max_iter: at least 1.
        tol: stops when no sample has moved by more than this, relative to its norm; positive.
        init: where to start, ``(B, ...)``; Aᵀy by default.
        bounds: (low, high) to clip every iterate to.

    Raises:
        TypeError: ``observation`` is not floating point.
        ValueError: it is not finite, an argument is out of range, or f returns another shape.

    >>> y = torch.tensor([[2.0, -0.5]])
    >>> pnp_pgd(y, lambda x: x, lambda x: x, lambda x: x / 2).solution  # the prox of ‖x‖²/2
    tensor([[ 1.0000, -0.2500]])
    """
    _check(observation, max_iter, step_size=step_size, tol=tol)
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds must be (low, high) with low < high, got {bounds}")
    moves: list[float] = []
    with torch.autocast(observation.device.type, enabled=False):
        x = adjoint(observation) if init is None else init
        while len(moves) < max_iter and not (moves and moves[-1] <= tol):
            before = x
            x = _applied(prox, before - step_size * adjoint(forward(before) - observation))
            x = x if bounds is None else x.clamp(*bounds)
            moves.append(_move(before, x))
    return PnPResult(x, len(moves), x.new_tensor(moves))


@torch.no_grad()
def pnp_admm(
    observation: Tensor,
    forward: Map,
    adjoint: Map,
    prox: Map,
    *,
    rho: float = 0.1,
    max_iter: int = 100,
    tol: float = 1e-5,
    init: Tensor | None = None,
    cg_tol: float = 1e-5,
    cg_max_iter: int = 30,
) -> PnPResult:
    """Plug-and-play ADMM in the order that is proven to converge: x, u, z ("What's in a Prior?", arXiv 2310.14344).

    x ← argmin ½‖Ax − y‖² + (ρ/2)‖x − z + u‖², by conjugate gradients; u ← u + x − z; z ← f(x + u). For a strongly
    convex potential and ρ > ‖AᵀA‖ the iterates converge to a fixed point (theorem 4.1). Starts at x = z = Aᵀy and
    u = 0. Without gradients: the result has no graph.

    Args:
        observation: y, floating point and finite, ``(B, ...)``; every sample is a system of its own.
        forward: A, linear, sample by sample.
        adjoint: Aᵀ.
        prox: f.
        rho: ρ, positive.
        max_iter: at least 1.
        tol: stops when no sample's x and z have moved by more than this, relative to their norms; positive.
        init: where x and z start, ``(B, ...)``.
        cg_tol: relative residual of the inner systems, positive.
        cg_max_iter: products with AᵀA for each of them, at least 1.

    Raises:
        TypeError: ``observation`` is not floating point.
        ValueError: it is not finite, an argument is out of range, or f returns another shape.

    >>> y = torch.tensor([[2.0, -0.5]])
    >>> pnp_admm(y, lambda x: x, lambda x: x, lambda x: x / 2, rho=1.0).solution
    tensor([[ 1.0000, -0.2500]])
    """
    _check(observation, max_iter, rho=rho, tol=tol, cg_tol=cg_tol)
    if cg_max_iter < 1:
        raise ValueError(f"cg_max_iter must be at least 1, got {cg_max_iter}")
    moves: list[float] = []
    still = False
    with torch.autocast(observation.device.type, enabled=False):
        back = adjoint(observation)
        x = z = back if init is None else init
        u = torch.zeros_like(x)
        while len(moves) < max_iter and not still:
            before, z_before = x, z
            x = conjugate_gradient(
                lambda p: adjoint(forward(p)) + rho * p,
                back + rho * (z - u),
                init=x,
                steps=cg_max_iter,
                tol=cg_tol,
                batch_dims=1,
            )
            u = u + x - z
            z = _applied(prox, x + u)
            moves.append(_move(before, x))
            still = moves[-1] <= tol and _move(z_before, z) <= tol  # x alone may rest while z still moves
    return PnPResult(x, len(moves), x.new_tensor(moves))


def _applied(prox: Map, x: Tensor) -> Tensor:
    made = prox(x)
    if made.shape != x.shape:
        raise ValueError(f"prox must return the shape it is given, {tuple(x.shape)}, got {tuple(made.shape)}")
    return made


def _move(before: Tensor, after: Tensor) -> float:
    """The largest ‖after − before‖/‖before‖ of the batch."""
    start = before.reshape(len(before), -1).norm(dim=1)
    way = (after - before).reshape(len(before), -1).norm(dim=1)
    return float(torch.where(way > 0, way / start, 0).max())


def _check(observation: Tensor, max_iter: int, **positive: float) -> None:
    check_floating("observation", observation)
    if transformed():
        raise RuntimeError(
            "pnp_pgd and pnp_admm stop by looking at how far x has moved, which no transform of torch.func allows; "
            "give observation as a batch, and call them outside"
        )
    if observation.ndim < 2 or not len(observation):
        raise ValueError(f"observation must be (B, ...) with B >= 1, got shape {tuple(observation.shape)}")
    if not observation.isfinite().all():
        raise ValueError("observation must be finite, got NaN or infinity in it")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    check_solver(**positive)  # type: ignore[arg-type]
