"""The gradient of a convex potential as an exact proximal operator, and its prior (arXiv 2310.14344, section 3)."""

import functools
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from throughline.core._derivatives import eager, transformed
from throughline.core.checks import check_floating
from throughline.core.implicit import check_solver, conjugate_gradient
from throughline.physics.proximal.convex_potentials import InputConvexCNN

__all__ = ["LearnedProximalNetwork"]

SUFFICIENT = 1e-4  # share of the predicted decrease that a step must bring (Armijo)
HALVINGS = 30
CG_STEPS = 100
DAMPING = 1e-3  # of the Hessian, times the relative residual
ROUNDING = 8  # units in the last place that count as zero


class LearnedProximalNetwork(nn.Module):
    """f = ∇ψ, which for convex ψ is the exact proximal operator of a prior R that can be evaluated.

    "What's in a Prior? Learned Proximal Networks for Inverse Problems" (arXiv 2310.14344, proposition 3.1 and eq. 3.3).
    With y = f⁻¹(x), R(x) = ⟨y, x⟩ − ½‖x‖² − ψ(y), up to a constant of the potential. A network has no noise level as
    input: one network, one R. Trained with `proximal_matching_loss` on noise of deviation σ, R estimates −σ² log p.

    It is a denoiser in the sense of deepinv: ``deepinv.optim.PnP(denoiser=f)``.

    Args:
        potential: ψ, any module from x to one scalar for each sample, ``(B, ...)`` to ``(B,)`` or ``(..., d)`` to
            ``(...)``, twice differentiable and convex in x; that it is convex is not checked.

    Attributes:
        potential: ψ.

    Raises:
        TypeError: ``potential`` is no module; in the methods, an input that is not floating point.
        ValueError: in the methods, a potential that returns something else than one scalar for each sample.

    >>> from throughline.physics.proximal import InputConvexMLP
    >>> f = LearnedProximalNetwork(InputConvexMLP(2, strong_convexity=0.5))
    >>> x = torch.randn(7, 2)
    >>> torch.allclose(f(f.inverse(x)), x, atol=1e-4), f.prior(x).shape
    (True, torch.Size([7]))
    """

    def __init__(self, potential: nn.Module) -> None:
        super().__init__()
        if not isinstance(potential, nn.Module):
            raise TypeError(f"potential must be an nn.Module, got {type(potential).__name__}")
        self.potential = potential

    # compiled graphs know no second derivatives: a compiled model around f calls it as it is
    @eager
    def forward(self, x: Tensor, sigma: Any = None) -> Tensor:
        """∇ψ(x), in the shape of x; differentiable where gradients are on and x or a parameter wants one.

        Args:
            x: floating point, of a shape that the potential takes.
            sigma: taken for the sake of deepinv's calls, and ignored.
        """
        check_floating("x", x)
        if transformed():
            made: Tensor = torch.func.grad(lambda point: self._value(point).sum())(x)
            return made
        graph = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in self.parameters()))
        if type(self.potential) is InputConvexCNN and not torch.is_autocast_enabled(x.device.type):
            with torch.inference_mode(False), torch.set_grad_enabled(graph):
                return self.potential.gradient(x.clone() if x.is_inference() else x)
        with torch.inference_mode(False), torch.enable_grad():
            point = x if graph and x.requires_grad else _leaf(x)
            gradient: Tensor
            (gradient,) = torch.autograd.grad(self._value(point).sum(), point, create_graph=graph)
        return gradient

    def inverse(self, x: Tensor, *, tol: float = 1e-6, max_iter: int = 200) -> Tensor:
        """y with f(y) = x, the minimiser of the convex ψ(y) − ⟨x, y⟩, by Newton's method from y = x.

        Directions come from conjugate gradients on products with the Hessian, steps from backtracking, for all samples
        at once; those that have converged stop moving. Constant in autograd: the result has no graph. Use float64 where
        f is nearly flat.

        Args:
            x: points in the range of f, of a shape that the potential takes; with a strongly convex potential any. NaN
                for a sample with a NaN or infinity.
            tol: relative residual ‖f(y) − x‖/‖x‖ of every sample, positive; 8 units in the last place of max(‖x‖, 1)
                are always enough.
            max_iter: steps, at least 1.

        Raises:
            RuntimeError: inside of a transform of `torch.func`: batches go in as they are.

        Warns:
            RuntimeWarning: some sample did not converge, with the worst residual.
        """
        with self._exactly(x) as x:
            return self._inverted(x, tol, max_iter)[0]

    def prior(self, x: Tensor, *, tol: float = 1e-6, max_iter: int = 200) -> Tensor:
        """R(x) of every sample, ``(B,)``, through `inverse`; NaN, with a warning, where that does not converge. Exact
        inside of autocast, too.

        Differentiable by x, where the gradient is f⁻¹(x) − x, and by the parameters: at the minimiser y the derivatives
        by y vanish, so that it counts as constant. Arguments are those of `inverse`.
        """
        with self._exactly(x) as x:
            y, converged = self._inverted(x, tol, max_iter)
            value = self._value(y)
            return (_dot(y, x, value.ndim) - _dot(x, x, value.ndim) / 2 - value).where(converged, math.nan)

    def prior_at_output(self, y: Tensor) -> Tensor:
        """R(f(y)) of every sample, ``(B,)``, without an inversion; differentiable as `forward` is."""
        with self._exactly(y) as y:
            x, value = self(y), self._value(y)
            return _dot(y, x, value.ndim) - _dot(x, x, value.ndim) / 2 - value

    def project_(self) -> Self:
        """Keep the potential convex, in place: ``project_`` of every module in it that has one."""
        for module in self.potential.modules():
            if callable(project := getattr(module, "project_", None)):
                project()
        return self

    @contextmanager
    def _exactly(self, x: Tensor) -> Iterator[Tensor]:
        """Without autocast, and the point in the precision of the parameters if that has shortened it."""
        check_floating("x", x)
        if not torch.is_autocast_enabled(x.device.type):
            yield x
            return
        with torch.autocast(x.device.type, enabled=False):
            yield x.to(functools.reduce(torch.promote_types, (p.dtype for p in self.parameters()), x.dtype))

    def _value(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        value: Tensor = self.potential(x)
        if value.ndim >= x.ndim or value.shape not in (x.shape[:1], x.shape[:-1]):
            raise ValueError(
                f"potential must return one scalar for each sample, got {tuple(value.shape)} for x of {tuple(x.shape)}"
            )
        return value

    def _inverted(self, x: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor]:
        """The inverse, and of every sample whether it has converged."""
        check_solver(steps=max_iter, tol=tol)
        if transformed():
            raise RuntimeError(
                "inverse and prior stop by looking at residuals, which no transform of torch.func allows; give all of "
                "x as one batch, and take derivatives by autograd"
            )
        with torch.inference_mode(False), torch.no_grad():
            target = x.clone() if x.is_inference() else x.detach()
            lead = self._value(target).shape
            target = target.reshape(-1, *x.shape[len(lead) :])  # the batch as one dimension
            y, residual, enough = self._minimised(target, tol, max_iter)
        known = target.flatten(1).isfinite().all(1)
        converged = (residual <= enough) & known
        y[~known] = math.nan
        failed = known & ~converged
        if failed.any():
            size = target.flatten(1).norm(dim=1)
            worst = float((residual / size)[failed].max())
            warnings.warn(
                f"inverse did not converge for {int(failed.sum())} of {len(converged)} samples: the worst "
                f"relative residual is {worst:.2g}, wanted {tol:g}; they may lie outside the range of f, which is "
                "everything for a strongly convex potential, or need more max_iter or float64",
                RuntimeWarning,
                stacklevel=3,
            )
        return y.view(x.shape), converged.view(lead)

    @eager
    def _minimised(self, x: Tensor, tol: float, max_iter: int) -> tuple[Tensor, Tensor, Tensor]:
        """Newton's method on ψ(y) − ⟨x, y⟩ for a batch: y, ‖f(y) − x‖, and how small that should be."""
        size = x.flatten(1).norm(dim=1)
        enough = torch.maximum(tol * size, ROUNDING * torch.finfo(x.dtype).eps * size.clamp(min=1))
        y, residual = x.clone(), torch.full_like(size, math.inf)
        rows = torch.arange(len(x), device=x.device)  # the samples that still move
        at = self._objective(x, x)
        for _ in range(max_iter):
            norm = at.slope.flatten(1).norm(dim=1)
            y[rows], residual[rows] = at.y.detach(), norm
            moving = norm > enough[rows]
            if not moving.any():
                break
            if not moving.all():
                rows = rows[moving]
                at, norm = self._objective(y[rows], x[rows]), norm[moving]
            found = self._stepped(at, x[rows], norm / size[rows].clamp(min=1))
            if found is None:
                break
            at = found
        else:
            y[rows], residual[rows] = at.y.detach(), at.slope.flatten(1).norm(dim=1)
        return y, residual, enough

    def _stepped(self, at: "_Point", x: Tensor, relative: Tensor) -> "_Point | None":
        """One damped Newton step for every sample; None when no sample can go down any further."""
        damping = _wide(DAMPING * relative + torch.finfo(x.dtype).eps, x)

        def product(v: Tensor) -> Tensor:
            (image,) = torch.autograd.grad(at.graph, at.y, v, retain_graph=True)
            return torch.addcmul(image, damping, v)

        accuracy = min(0.5, math.sqrt(float(relative.max())))  # of conjugate gradients: no more than a step can use
        steps = min(CG_STEPS, x[0].numel())
        direction = conjugate_gradient(product, -at.slope, steps=steps, tol=max(accuracy, 1e-12), batch_dims=1)
        descent = _dot(direction, at.slope, 1)
        length = torch.ones_like(descent)
        noise = ROUNDING * torch.finfo(x.dtype).eps * at.size
        for _ in range(HALVINGS):
            tried = self._objective(at.y.detach() + _wide(length, x) * direction, x)
            down = tried.value <= at.value + SUFFICIENT * length * descent
            # where the decrease is below rounding, the slope along the direction tells (Hager and Zhang's condition)
            flat = (tried.value <= at.value + noise) & (_dot(direction, tried.slope, 1).abs() <= -descent)
            good = down | flat
            if good.all():
                return tried
            length = torch.where(good, length, length / 2)
        if not good.any():
            return None
        return self._objective(at.y.detach() + _wide(torch.where(good, length, 0), x) * direction, x)

    def _objective(self, y: Tensor, x: Tensor) -> "_Point":
        with torch.enable_grad():
            y = _leaf(y)
            value = self._value(y)
            (graph,) = torch.autograd.grad(value.sum(), y, create_graph=True)
        value, inner = value.detach(), _dot(x, y.detach(), 1)
        return _Point(y, value - inner, value.abs() + inner.abs(), graph, graph.detach() - x)


class _Point(NamedTuple):
    """ψ(y) − ⟨x, y⟩ at y, with the size of its two terms, which is what rounds, its slope f(y) − x, and f(y) with the
    graph that gives products with the Hessian."""

    y: Tensor
    value: Tensor
    size: Tensor
    graph: Tensor
    slope: Tensor


def _leaf(x: Tensor) -> Tensor:
    """The same numbers as a leaf of autograd; the caller's tensor stays as it is."""
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()


def _dot(a: Tensor, b: Tensor, lead: int) -> Tensor:
    """The inner product of every sample, behind ``lead`` batch dimensions."""
    return (a * b).flatten(lead).sum(-1)


def _wide(scale: Tensor, x: Tensor) -> Tensor:
    """A number for each sample, shaped to multiply it."""
    return scale.view(-1, *(1,) * (x.ndim - 1))
