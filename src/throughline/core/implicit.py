"""Linear systems known by their products alone, as implicit differentiation meets them: trees of tensors, and batches.

The solvers of "Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis"
(arXiv 2401.09587) and of the methods that it is compared with.
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from throughline.core._derivatives import transformed
from throughline.core._trees import Tree, add_scaled, check_like, dot, leaves_of, tree_map, widened

__all__ = ["conjugate_gradient", "neumann_series"]


def conjugate_gradient(
    matvec: Callable[[Tree], Tree],
    b: Tree,
    *,
    init: Tree | None = None,
    steps: int = 10,
    tol: float = 1e-6,
    batch_dims: int = 0,
) -> Tree:
    """x of A x = b by conjugate gradients, for a symmetric positive definite A that is known by its products.

    The inner solver of implicit hypergradients ("Bilevel Optimization under Unbounded Smoothness", arXiv 2401.09587).

    At most ``steps`` products; a system stops alone once its residual is at most ``tol`` times the norm of ``b``, and
    one on whose search direction p the curvature pᵀAp is not positive stops with a warning and what it has so far.
    Iterates and inner products are float32 at least. Differentiable, through the iterations; the loop ends early on
    the CPU alone, where looking at the residual costs nothing. Under ``torch.func.vmap`` every problem has its own
    mask; inside the transforms no warning is given. A system in which a NaN turns up, or a number too large to square,
    has NaN for its solution.

    Args:
        matvec: p -> A p, for trees of the structure of ``b``; linear, symmetric, without side effects.
        b: a floating point tensor, or nested dicts, lists and tuples of them.
        init: where to start, like ``b``; zero by default.
        steps: at least 1.
        tol: positive.
        batch_dims: how many leading dimensions, the same in all tensors, count independent systems.

    Returns:
        x, in structure, shapes and dtypes of ``b``.

    Raises:
        TypeError: ``b`` or ``init`` holds something else than floating point tensors.
        ValueError: an empty ``b``, an ``init`` of another structure, or an argument out of range.

    >>> a = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(lambda p: a @ p, torch.tensor([1.0, 2.0]))
    tensor([0.0909, 0.6364])
    """
    leaves = leaves_of(b, "b")
    check_solver(steps=steps, tol=tol)
    if batch_dims < 0 or any(leaf.dim() < batch_dims for leaf in leaves):
        raise ValueError(f"batch_dims must be from 0 to the dimensions of every tensor of b, got {batch_dims}")
    dtypes = tree_map(lambda leaf: leaf.dtype, b)

    def product(p: Tree) -> Tree:
        return tree_map(widened, matvec(tree_map(Tensor.to, p, dtypes)))

    target = tree_map(widened, b)
    if init is None:
        x, residual = tree_map(torch.zeros_like, target), tree_map(torch.clone, target)
    else:
        check_like(init, b, "init", "b")
        x = tree_map(torch.clone, tree_map(widened, init))
        residual = add_scaled(target, -1.0, product(x))
    direction = tree_map(torch.clone, residual)
    add = _adding()
    size = dot(residual, residual, batch_dims)
    enough = tol**2 * (size if init is None else dot(target, target, batch_dims))
    lost = ~enough.isfinite()  # the systems whose answer is NaN
    active = size > enough
    flat = torch.zeros_like(active)  # the systems that met a direction without positive curvature
    for _ in range(steps):
        if _visible(active) and not bool(active.any()):
            break
        image = product(direction)
        curvature = dot(direction, image, batch_dims)
        lost = lost | (active & curvature.isnan())
        flat = flat | (active & (curvature <= 0))
        active = active & (curvature > 0)
        step = torch.where(active, size / torch.where(active, curvature, 1), 0)
        x = add(x, step, direction, x)
        residual = add(residual, -step, image, residual)
        before, size = size, torch.where(active, dot(residual, residual, batch_dims), size)
        direction = add(residual, torch.where(active, size / torch.where(active, before, 1), 0), direction, direction)
        active = active & (size > enough)
    if not transformed() and bool(flat.any()):
        warnings.warn(
            "conjugate_gradient stopped at a direction without positive curvature: the matrix is not positive definite "
            "there; add damping",
            RuntimeWarning,
            stacklevel=2,
        )
    lost = lost | ~size.isfinite()
    if not _visible(lost) or bool(lost.any()):
        x = add_scaled(x, torch.where(lost, torch.nan, 0).to(size), target)
    return tree_map(Tensor.to, x, dtypes)


def neumann_series(matvec: Callable[[Tree], Tree], b: Tree, *, lr: float, steps: int = 20) -> Tree:
    """lr · Σ_{j ≤ steps} (I − lr·A)ʲ b, which tends to A⁻¹b when every eigenvalue of A lies in (0, 2/lr).

    The inner solver of hypergradients by truncated series (arXiv 2401.09587 calls its baseline StocBiO by it). Memory
    does not grow with the steps.

    Args:
        matvec: p -> A p, for trees of the structure of ``b``; linear, without side effects.
        b: a floating point tensor, or nested dicts, lists and tuples of them.
        lr: positive.
        steps: products with A, at least 1; the series has one term more.

    Returns:
        The sum, in structure, shapes and dtypes of ``b``.

    Raises:
        TypeError: ``b`` holds something else than floating point tensors.
        ValueError: an empty ``b``, or an argument out of range.

    >>> a = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> neumann_series(lambda p: a @ p, torch.tensor([1.0, 2.0]), lr=0.2, steps=50)
    tensor([0.0909, 0.6364])
    """
    leaves_of(b, "b")
    check_solver(steps=steps, lr=lr)
    dtypes = tree_map(lambda leaf: leaf.dtype, b)
    total, term = (tree_map(torch.clone, tree_map(widened, b)) for _ in range(2))
    add = _adding()
    for _ in range(steps):
        term = add(term, -lr, matvec(tree_map(Tensor.to, term, dtypes)), term)
        total = add(total, 1.0, term, total)
    return tree_map(lambda leaf, dtype: (lr * leaf).to(dtype), total, dtypes)


def check_solver(*, steps: int = 1, **positive: float) -> None:
    """Raise a ValueError unless ``steps`` is at least 1 and every other number positive and finite."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _adding() -> Callable[[Tree, Tensor | float, Tree, Tree], Tree]:
    """`add_scaled`, in place wherever the iterates are in no gradient and in no transform."""
    if torch.is_grad_enabled() or transformed():
        return lambda a, scale, b, out: add_scaled(a, scale, b)
    return lambda a, scale, b, out: add_scaled(a, scale, b, out=out)


def _visible(mask: Tensor) -> bool:
    """Whether the mask can be looked at for nothing: neither on another device nor inside a transform."""
    return mask.device.type == "cpu" and not transformed()
