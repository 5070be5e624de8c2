"""Hypergradients: how an outer loss changes with the outer parameters when the inner parameters follow.

The estimators of "Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence Analysis"
(arXiv 2401.09587) and of the methods before it, behind one function. Parameters are trees: a tensor, or nested dicts,
lists and tuples of tensors, such as ``dict(module.named_parameters())`` for `torch.func.functional_call`. Losses are
pure functions ``(outer_params, inner_params) -> scalar`` with their data closed over. Nothing here writes into a
parameter or into ``.grad``, and everything composes with the transforms of `torch.func`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import vjp
from torch.utils._pytree import tree_flatten, tree_structure

from throughline.core._derivatives import (
    Loss,
    eager,
    gradients,
    pullback,
    second_derivatives,
    slope,
    tracked,
    transformed,
)
from throughline.core._descent import recomputed_descent
from throughline.core._trees import Tree, add_scaled, check_like, dot, leaves_of, tree_map, tree_unflatten, widened
from throughline.core.implicit import check_solver, conjugate_gradient, neumann_series

__all__ = ["adjoint", "hypergradient", "inner_hvp", "mixed_vjp", "unroll"]

Adjoint = Literal["neumann", "cg", "identity"]
Method = Literal["finite_difference", "unrolled", "neumann", "cg", "identity"]

DEFAULTS = {"steps": None, "lr": None, "damping": 0.0, "tol": 1e-6, "epsilon": 1e-2, "init": None, "checkpoint": False}
USES = {
    "cg": {"steps", "damping", "tol", "init"},
    "neumann": {"steps", "lr"},
    "identity": {"lr"},
    "unrolled": {"steps", "lr", "checkpoint"},
    "finite_difference": {"lr", "epsilon"},
}
STEPS = {"cg": 10, "neumann": 20, "unrolled": 1}


@eager
@torch.no_grad()
def hypergradient(
    outer_loss: Loss,
    inner_loss: Loss,
    outer_params: Tree,
    inner_params: Tree,
    *,
    method: Method = "cg",
    steps: int | None = None,
    lr: float | None = None,
    damping: float = 0.0,
    tol: float = 1e-6,
    epsilon: float = 1e-2,
    init: Tree | None = None,
    checkpoint: bool = False,
) -> Tree:
    """dF(x, y*(x))/dx for y*(x) = argmin_y g(x, y), estimated at the inner parameters y that are given.

    With v = ∇_y F(x, y), H = ∇²_yy g(x, y) and an estimate u of H⁻¹v, it is ∇_x F − ∇_x⟨∇_y g(x, y), u⟩ ("Bilevel
    Optimization under Unbounded Smoothness", arXiv 2401.09587, section 3). The methods:

    - ``"cg"``: conjugate gradients on (H + damping·I) u = v from ``init``; y should lie near the optimum.
    - ``"neumann"``: u = lr·Σ_{j ≤ steps} (I − lr·H)ʲ v, for lr < 2/λ_max(H).
    - ``"identity"``: u = lr·v; one mixed product.
    - ``"unrolled"``: the exact gradient of F(x, y_steps) through ``steps`` of gradient descent from y (`unroll`).
    - ``"finite_difference"``: one step of descent, as ``"unrolled"`` with steps = 1, and a central difference of
      ∇_x g in place of second derivatives, at the memory of a first-order gradient (DARTS); lr = 0 leaves ∇_x F.

    Losses must give the same value when they are called again: fix their dropout masks. Attention is computed by
    PyTorch's math kernel wherever it is differentiated twice, since no other has a second derivative. Neither have
    cuDNN's recurrent layers; on CUDA call this inside ``torch.backends.cudnn.flags(enabled=False)``. Inside autocast
    the losses follow it, and what is done with their gradients stays in the parameters' dtype.

    Args:
        outer_loss: F, ``(outer_params, inner_params) -> scalar``.
        inner_loss: g, likewise.
        outer_params: x.
        inner_params: y.
        method: the estimator.
        steps: at least 1; by default 10 for cg, 20 for neumann, 1 for unrolled.
        lr: of neumann, unrolled and finite_difference, which need it, and of identity (1 by default).
        damping: of cg, not negative.
        tol: of cg, relative to the norm of v.
        epsilon: of finite_difference: y moves by ``epsilon`` in norm, in float32 at least, which ``inner_loss`` must
            take.
        init: of cg, like ``inner_params``; the `adjoint` of the step before is a good one.
        checkpoint: of unrolled: compute each step once more on the way back. The y's and graphs of a step that are held
            take about √(2·steps·Y·(Y + G)), where Y is the size of y and G that of one graph, and never more than all
            y's and one graph.

    Returns:
        The estimate, like ``outer_params``, detached; zeros for what neither loss depends on.

    Raises:
        TypeError: a parameter that is no floating point tensor, or a loss that is no tensor.
        ValueError: an argument out of range, missing, or given and not used by the method; a loss that is not scalar
            or does not depend on the inner parameters; an empty tree, an ``init`` of another structure.
        RuntimeError: ``inner_loss`` holds an operation without a second derivative.

    >>> x, y, target = torch.tensor(0.5), torch.tensor([2.0, 4.0]), torch.tensor([3.0, 6.0])
    >>> inner = lambda x, y: (y - target).square().sum() / 2 + x * y.square().sum() / 2  # ridge: y* = target / (1 + x)
    >>> hypergradient(lambda x, y: y.sum(), inner, x, y)  # −Σ target / (1 + x)²
    tensor(-4.)
    """
    given = {"steps": steps, "lr": lr, "damping": damping, "tol": tol, "epsilon": epsilon, "init": init}
    options = _options(method, tuple(USES), {**given, "checkpoint": checkpoint})
    x, y = outer_params, inner_params
    leaves_of(x, "outer_params")
    leaves_of(y, "inner_params")
    if method == "finite_difference":
        return _finite_difference(outer_loss, inner_loss, x, y, **options)
    if method == "unrolled":
        end, pull = _unrolled(inner_loss, x, y, options)
        direct, v = gradients(outer_loss, x, end, "outer_loss")
        return add_scaled(direct, 1.0, pull(v))
    direct, v = gradients(outer_loss, x, y, "outer_loss")
    curvature, mixed = second_derivatives(inner_loss, x, y, "inner_loss")
    return add_scaled(direct, -1.0, mixed(_solve(curvature, y, v, method, options)))


@eager
@torch.no_grad()
def adjoint(
    outer_loss: Loss,
    inner_loss: Loss,
    outer_params: Tree,
    inner_params: Tree,
    *,
    method: Adjoint = "cg",
    steps: int | None = None,
    lr: float | None = None,
    damping: float = 0.0,
    tol: float = 1e-6,
    init: Tree | None = None,
) -> Tree:
    """u ≈ [∇²_yy g(x, y)]⁻¹ ∇_y F(x, y), the vector of `hypergradient`, by the same methods and arguments.

    Given back as ``init`` at the next outer step, conjugate gradients start from it ("Bilevel Optimization under
    Unbounded Smoothness", arXiv 2401.09587).

    Returns:
        Like ``inner_params``, detached.

    Raises:
        TypeError, ValueError: as `hypergradient`.

    >>> y = torch.tensor([1.0, 2.0])
    >>> adjoint(lambda x, y: y.sum(), lambda x, y: 2 * (y - x).square().sum(), torch.tensor(0.0), y)
    tensor([0.2500, 0.2500])
    """
    given = {"steps": steps, "lr": lr, "damping": damping, "tol": tol, "init": init}
    options = _options(method, ("neumann", "cg", "identity"), given)
    leaves_of(outer_params, "outer_params")
    leaves_of(inner_params, "inner_params")
    v = slope(outer_loss, outer_params, inner_params, "outer_loss")
    curvature = second_derivatives(inner_loss, outer_params, inner_params, "inner_loss")[0]
    return _solve(curvature, inner_params, v, method, options)


@eager
@torch.no_grad()
def inner_hvp(inner_loss: Loss, outer_params: Tree, inner_params: Tree, vector: Tree) -> Tree:
    """∇²_yy g(x, y) · vector (arXiv 2401.09587), by reverse mode twice; no matrix is formed.

    Args:
        inner_loss: g, ``(outer_params, inner_params) -> scalar``.
        outer_params: x.
        inner_params: y.
        vector: like ``inner_params``.

    Returns:
        Like ``inner_params``, detached.

    Raises:
        TypeError, ValueError: parameters, vector or loss as `hypergradient` refuses them.

    >>> inner_hvp(lambda x, y: x * (y**3).sum(), torch.tensor(2.0), torch.tensor([1.0, 3.0]), torch.ones(2))
    tensor([12., 36.])
    """
    _check_product(outer_params, inner_params, vector)
    return second_derivatives(inner_loss, outer_params, inner_params, "inner_loss")[0](vector)


@eager
@torch.no_grad()
def mixed_vjp(inner_loss: Loss, outer_params: Tree, inner_params: Tree, vector: Tree) -> Tree:
    """∇_x⟨∇_y g(x, y), vector⟩ with the vector held fixed (arXiv 2401.09587).

    Args:
        inner_loss: g, ``(outer_params, inner_params) -> scalar``.
        outer_params: x.
        inner_params: y.
        vector: like ``inner_params``.

    Returns:
        Like ``outer_params``, detached.

    Raises:
        TypeError, ValueError: parameters, vector or loss as `hypergradient` refuses them.

    >>> mixed_vjp(lambda x, y: x * (y**3).sum(), torch.tensor(2.0), torch.tensor([1.0, 3.0]), torch.ones(2))
    tensor(30.)
    """
    _check_product(outer_params, inner_params, vector)
    return second_derivatives(inner_loss, outer_params, inner_params, "inner_loss")[1](vector)


@eager
def unroll(
    inner_loss: Loss, outer_params: Tree, inner_params: Tree, *, steps: int, lr: float, checkpoint: bool = False
) -> Tree:
    """y_steps of y_{t+1} = y_t − lr·∇_y g(x, y_t) from y_0 = ``inner_params``, differentiable in both arguments.

    Gradient descent as a layer (arXiv 2401.09587 compares with methods that differentiate through it).

    Args:
        inner_loss: g, ``(outer_params, inner_params) -> scalar``.
        outer_params: x.
        inner_params: y_0.
        steps: at least 1.
        lr: positive and finite.
        checkpoint: keep the y's only and compute each step once more in the backward pass: memory of O(steps) times
            the size of y instead of its activations. What the loss closes over then gets no gradient.

    Returns:
        y_steps, like ``inner_params``.

    Raises:
        TypeError, ValueError: parameters, loss, steps or rate as `hypergradient` refuses them.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> y = unroll(lambda x, y: (y - x).square() / 2, x, torch.tensor(0.0), steps=2, lr=0.5)
    >>> y.item(), torch.autograd.grad(y, x)[0].item()
    (2.25, 0.75)
    """
    check_solver(steps=steps, lr=lr)
    outer, inner = leaves_of(outer_params, "outer_params"), leaves_of(inner_params, "inner_params")
    outer_spec, inner_spec = tree_structure(outer_params), tree_structure(inner_params)

    def step(*leaves: Tensor) -> tuple[Tensor, ...]:
        x = tree_unflatten(leaves[: len(outer)], outer_spec)
        y = tree_unflatten(leaves[len(outer) :], inner_spec)
        return tuple(tree_flatten(add_scaled(y, -lr, slope(inner_loss, x, y, "inner_loss")))[0])

    state = tuple(inner)
    for _ in range(steps):
        state = _Recomputed.apply(step, *outer, *state) if checkpoint else step(*outer, *state)  # type: ignore[no-untyped-call]
    return tree_unflatten(state, inner_spec)


class _Recomputed(torch.autograd.Function):
    """A function of tensors that keeps its inputs alone, and is computed again on the way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        return function(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *vjp(ctx.function, *ctx.saved_tensors)[1](gradients)


def _solve(curvature: Callable[[Tree], Tree], y: Tree, v: Tree, method: str, options: dict[str, Any]) -> Tree:
    if method == "identity":
        return tree_map(lambda leaf: options["lr"] * leaf, v)
    if method == "neumann":
        return neumann_series(curvature, v, **options)
    damping = options.pop("damping")
    if options["init"] is not None:
        check_like(options["init"], y, "init", "inner_params")
    damped = (lambda p: add_scaled(curvature(p), damping, p)) if damping else curvature
    return conjugate_gradient(damped, v, **options)


def _unrolled(loss: Loss, x: Tree, y: Tree, options: dict[str, Any]) -> tuple[Tree, Callable[[Tree], Tree]]:
    """The end of the descent, and v -> ∇_x⟨end, v⟩, once."""
    if transformed():
        end, pull, *_ = vjp(lambda x: unroll(loss, x, y, **options), x)
        return end, lambda v: pull(v)[0]
    if options.pop("checkpoint"):
        return recomputed_descent(loss, x, y, **options)
    x = tracked(x)
    with torch.enable_grad():
        end = unroll(loss, x, tree_map(Tensor.detach, y), **options)
    return tree_map(Tensor.detach, end), pullback(end, x, keep=False)


def _finite_difference(outer: Loss, inner: Loss, x: Tree, y: Tree, *, lr: float, epsilon: float) -> Tree:
    """∇_x F(x, y') − lr·[∇_x g(x, y + εv') − ∇_x g(x, y − εv')]/(2ε), where y' = y − lr·∇_y g and v' = ∇_y F(x, y')."""
    if lr == 0:
        return gradients(outer, x, y, "outer_loss")[0]
    direct, v = gradients(outer, x, add_scaled(y, -lr, slope(inner, x, y, "inner_loss")), "outer_loss")
    norm = dot(v, v).sqrt()
    reach = torch.where(norm > 0, epsilon / norm, 0)  # ε; no move at all along a gradient of zero
    x, y, v = (tree_map(widened, tree) for tree in (x, y, v))  # ε is lost in the rounding of half precisions
    try:
        above = gradients(inner, x, add_scaled(y, reach, v), "inner_loss", inner=False)[0]
        below = gradients(inner, x, add_scaled(y, -reach, v), "inner_loss", inner=False)[0]
    except RuntimeError as error:
        error.add_note("finite_difference calls inner_loss with parameters of float32 at least")
        raise
    scale = torch.where(norm > 0, -lr * norm / (2 * epsilon), 0)
    estimate = add_scaled(tree_map(widened, direct), scale, add_scaled(above, -1.0, below))
    return tree_map(lambda leaf, like: leaf.to(like.dtype), estimate, direct)


def _options(method: str, methods: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments that ``method`` uses, with its defaults; what it does not use must not have been given."""
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
    for name, value in given.items():
        if name not in USES[method] and (value is not None if DEFAULTS[name] is None else value != DEFAULTS[name]):
            raise ValueError(f"{name} is not used by method {method!r}; leave it out")
    options = {name: value for name, value in given.items() if name in USES[method]}
    if "steps" in options and options["steps"] is None:
        options["steps"] = STEPS[method]
    if "lr" in options and options["lr"] is None:
        if method != "identity":
            raise ValueError(f"lr must be given for method {method!r}, got None")
        options["lr"] = 1.0
    positive = {name: value for name, value in options.items() if name in ("lr", "tol", "epsilon")}
    if method == "finite_difference" and options["lr"] == 0:
        del positive["lr"]
    check_solver(steps=options.get("steps", 1), **positive)
    if not 0 <= options.get("damping", 0.0) < math.inf:
        raise ValueError(f"damping must be non-negative and finite, got {options['damping']}")
    return options


def _check_product(outer_params: Tree, inner_params: Tree, vector: Tree) -> None:
    leaves_of(outer_params, "outer_params")
    leaves_of(inner_params, "inner_params")
    check_like(vector, inner_params, "vector", "inner_params")
