"""Derivatives of a loss of two trees, (x, y) -> scalar: by autograd, or by `torch.func` inside one of its transforms.

Autograd comes first because it takes every module, also one with checkpoints or hooks on saved tensors; the transforms
of `torch.func`, such as ``vmap``, allow nothing but themselves inside.
"""

import functools
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.func import grad, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_structure

from throughline.core._trees import Tree, tree_map, tree_unflatten

__all__ = ["Loss", "eager", "gradients", "pullback", "second_derivatives", "slope", "tracked"]

Loss = Callable[[Any, Any], Tensor]
Product = Callable[[Tree], Tree]
F = TypeVar("F", bound=Callable[..., Any])


def gradients(loss: Loss, x: Tree, y: Tree, name: str, *, inner: bool = True) -> tuple[Tree, Tree]:
    """∇_x and ∇_y of a loss that must depend on y; without ``inner``, ∇_x alone of any loss, and None."""
    checked = _scalar(loss, name)
    if transformed():
        return grad(checked, argnums=(0, 1))(x, y) if inner else (grad(checked)(x, y), None)
    with torch.enable_grad():
        x, y = tracked(x), tracked(y) if inner else tree_map(Tensor.detach, y)
        value = checked(x, y)
    wanted = tree_flatten((x, y) if inner else (x,))[0]
    found = torch.autograd.grad(value, wanted, allow_unused=True) if value.requires_grad else (None,) * len(wanted)
    count = len(tree_flatten(x)[0])
    if inner:
        _check_followed(found[count:], name)
    slopes = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(wanted, found, strict=True)]
    return tree_unflatten(slopes[:count], tree_structure(x)), (
        tree_unflatten(slopes[count:], tree_structure(y)) if inner else None
    )


def slope(loss: Loss, x: Tree, y: Tree, name: str) -> Tree:
    """∇_y of a loss that must depend on y; differentiable in x and y where gradients are enabled."""
    checked = _scalar(loss, name)
    if transformed():

        def following(x: Tree, y: Tree) -> Tensor:
            value = checked(x, y)
            if not value.requires_grad:  # y alone is differentiated here, so the value hangs on nothing else
                _check_followed((), name)
            return value

        with _twice():
            return grad(following, argnums=1)(x, y)
    further = torch.is_grad_enabled()
    with torch.enable_grad(), _twice() if further else nullcontext():
        y = tree_map(lambda leaf: leaf if further and leaf.requires_grad else leaf.detach().requires_grad_(), y)
        value = checked(x, y)
        leaves, spec = tree_flatten(y)
        found = (
            torch.autograd.grad(value, leaves, create_graph=further, allow_unused=True) if value.requires_grad else ()
        )
    _check_followed(found, name)
    return tree_unflatten(
        [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)], spec
    )


def second_derivatives(loss: Loss, x: Tree, y: Tree, name: str) -> tuple[Product, Product]:
    """p -> ∇²_yy·p and p -> ∇_x⟨∇_y, p⟩ of a loss that must depend on y, over one graph of ∇_y."""
    if transformed():  # a graph for each: one of both would compute both products whenever one is wanted
        curvature: Product = vjp(lambda y: slope(loss, x, y, name), y)[1]
        mixed: Product = vjp(lambda x: slope(loss, x, y, name), x)[1]
        return lambda p: curvature(p)[0], lambda p: mixed(p)[0]
    with torch.enable_grad():
        x, y = tracked(x), tracked(y)
        first = slope(loss, x, y, name)
    return _named(pullback(first, y), name), _named(pullback(first, x), name)


def pullback(result: Tree, argument: Tree, *, keep: bool = True) -> Product:
    """p -> the gradient of ⟨result, p⟩ in the argument, whose graph is kept or spent; zeros for what it misses."""
    leaves, spec = tree_flatten(argument)
    outputs = [get_gradient_edge(o) if o.requires_grad else None for o in tree_flatten(result)[0]]  # not their values

    def pull(p: Tree) -> Tree:
        pairs = [(o, v) for o, v in zip(outputs, tree_flatten(p)[0], strict=True) if o is not None]
        if not pairs:
            return tree_map(torch.zeros_like, tree_map(Tensor.detach, argument))
        with _twice():
            found = torch.autograd.grad(
                [o for o, _ in pairs],
                leaves,
                [v for _, v in pairs],
                retain_graph=keep,
                allow_unused=True,
                materialize_grads=True,
            )
        return tree_unflatten(found, spec)

    return pull


def eager(function: F) -> F:
    """``function``, left out of what ``torch.compile`` compiles: it cannot differentiate twice."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():  # asked at the call: the compiler is slow to import
            return torch.compiler.disable(function)(*args, **options)  # type: ignore[no-untyped-call]
        return function(*args, **options)

    return cast("F", call)


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return bool(torch._C._are_functorch_transforms_active())


def _twice() -> AbstractContextManager[None]:
    """Attention by the kernel that has a second derivative, also where a checkpoint computes it once more."""
    return sdpa_kernel(SDPBackend.MATH)


def _named(product: Product, name: str) -> Product:
    """The product, with the loss named where something in it has no second derivative."""

    def call(p: Tree) -> Tree:
        try:
            return product(p)
        except RuntimeError as error:
            if not re.search("not implemented|differentiable once|once_differentiable", str(error)):
                raise
            cause = str(error).partition("\n")[0].rstrip(".")
            raise RuntimeError(
                f"{name} must be differentiable twice, got an operation that is not ({cause}); "
                "method='finite_difference' of hypergradient needs first derivatives only"
            ) from error

    return call


def tracked(tree: Tree) -> Tree:
    """The tensors, each a leaf of a graph of its own."""
    return tree_map(lambda leaf: leaf.detach().requires_grad_(), tree)


def _check_followed(found: Sequence[Tensor | None], name: str) -> None:
    if all(g is None for g in found):
        raise ValueError(f"{name} must depend on the inner parameters, got a value that does not")


def _scalar(loss: Loss, name: str) -> Loss:
    def checked(x: Tree, y: Tree) -> Tensor:
        value = loss(x, y)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must return a tensor, got {type(value).__name__}")
        if value.dim():
            raise ValueError(f"{name} must return a scalar, got shape {tuple(value.shape)}")
        return value

    return checked
