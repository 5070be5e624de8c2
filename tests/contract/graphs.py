"""Calls of many at once: leading dimensions, the transforms of torch.func, and torch.compile."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from tests.contract.part import Part
from tests.contract.tensors import Called, floating, gradients, is_floating, parameters, same, tensors, with_gradient
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


def check_batch(part: Part) -> None:
    """Leading dimensions give what a loop over them gives, also when memory is not contiguous."""
    assert part.batched, "no argument takes leading dimensions"
    drawn = [part.draw(seed) for seed in range(6)]
    drawn = [tuple(a if i in part.batched else drawn[0][i] for i, a in enumerate(args)) for args in drawn]
    stacked = list(drawn[0])
    for i in part.batched:
        stacked[i] = torch.stack([args[i] for args in drawn], -1).unflatten(-1, (2, 3)).movedim((-2, -1), (0, 1))
    whole = tree_leaves(part.run(part.build(), *stacked))
    loop = [tree_leaves(part.run(part.build(), *args)) for args in drawn]
    for one, *rows in zip(whole, *loop, strict=True):
        same(one, torch.stack(rows).unflatten(0, (2, 3)), rtol=1e-9, atol=1e-9)


def check_transforms(part: Part) -> None:
    """torch.func.vmap, grad and vmap(grad) give what a loop gives, also by the parameters of a module."""
    drawn = [part.draw(seed) for seed in range(3)]
    at = part.batched or tuple(i for i, a in enumerate(drawn[0]) if is_floating(a) and i not in part.constant)
    at = at or tuple(i for i, a in enumerate(drawn[0]) if isinstance(a, Tensor))
    assert at, "no argument can be mapped over"
    made = part.build()
    if part.is_module:
        made.eval()
    called = Called(part, made)
    weights = dict(called.named_parameters())
    by = (0, *(n for n, i in enumerate(at, 1) if is_floating(drawn[0][i]) and i not in part.constant))

    def values(weights: dict[str, Tensor], *moving: Tensor) -> tuple[Tensor, ...]:
        args = list(drawn[0])
        for i, a in zip(at, moving, strict=True):
            args[i] = a
        if not part.is_module:  # a generator that is as new each time
            return tuple(tensors(part.run(part.build(), *args)))
        results: tuple[Tensor, ...] = torch.func.functional_call(called, weights, tuple(args))
        return results

    def total(weights: dict[str, Tensor], *moving: Tensor) -> Tensor:
        return torch.stack([r.sum() for r in values(weights, *moving) if is_floating(r)]).sum()

    samples = [tuple(args[i] for i in at) for args in drawn]
    stacked = [torch.stack(column) for column in zip(*samples, strict=True)]
    dims = (None, *(0 for _ in at))
    loop = [values(weights, *moving) for moving in samples]
    wanted = [tree_leaves(slopes(total, (weights, *moving), by)) for moving in samples]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # of torch's own operations under vmap
        mapped = torch.func.vmap(values, in_dims=dims)(weights, *stacked)
        gradient = torch.func.grad(total, argnums=by)
        single = gradient(weights, *samples[0])
        each = torch.func.vmap(gradient, in_dims=dims)(weights, *stacked)
    for got, *rows in zip(mapped, *loop, strict=True):
        same(got, torch.stack(rows), rtol=1e-9, atol=1e-9, what="vmap")
    same(single, wanted[0], rtol=1e-9, atol=1e-9, what="grad")
    for got, *rows in zip(tree_leaves(each), *wanted, strict=True):
        same(got, torch.stack(rows), rtol=1e-9, atol=1e-9, what="vmap(grad)")


def check_compile(part: Part) -> None:
    """torch.compile gives the same values and gradients."""
    compiled(part, fullgraph=False)


def check_fullgraph(part: Part) -> None:
    """torch.compile gives the same values and gradients from a single graph."""
    compiled(part, fullgraph=True)


def compiled(part: Part, *, fullgraph: bool) -> None:
    args = with_gradient(part.draw(), part)
    plain, made = part.build(), part.build()
    expected = part.run(plain, *args)
    torch.compiler.reset()
    compiled_call = torch.compile(lambda *a: part.run(made, *a), fullgraph=fullgraph, backend=part.backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own; those of the part have been raised by the call above
        result = compiled_call(*args)
    same(result, expected, rtol=1e-9, atol=1e-9)
    wanted = gradients(floating(expected), (*args, *parameters(plain)))
    got = gradients(floating(result), (*args, *parameters(made)))
    same(got, wanted, rtol=1e-9, atol=1e-9, what="gradients")


def slopes(total: Callable[..., Tensor], args: tuple[Any, ...], by: tuple[int, ...]) -> Any:
    """The gradient of ``total`` by autograd, zeros where it does not reach."""
    args = tree_map(lambda a: a.detach().requires_grad_(a.is_floating_point()), args)
    chosen = [args[i] for i in by]
    value = total(*args)
    if not value.requires_grad:
        return tree_map(torch.zeros_like, chosen)
    found = torch.autograd.grad(value, tree_leaves(chosen), allow_unused=True, materialize_grads=True)
    return list(found)
