"""What the checks share: leaves of results, gradients, precision and comparison."""

import copy
from typing import Any

import torch
from tests.contract.part import Arguments, Part
from torch import Tensor
from torch.utils._pytree import tree_leaves


def same(result: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, what: str = "result") -> None:
    got, want = tree_leaves(result), tree_leaves(expected)
    assert len(got) == len(want), f"{what}: {len(want)} leaves became {len(got)}"
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(
            one,
            other,
            rtol=rtol,
            atol=atol,
            equal_nan=True,
            msg=lambda m: f"{what} differs: {m}",
        )


def gradients(results: list[Tensor], leaves: Arguments) -> list[Tensor]:
    by = [leaf for leaf in leaves if needs_gradient(leaf)]
    total = [r.sum() for r in results if r.requires_grad]
    if not by or not total:
        return []
    return list(torch.autograd.grad(torch.stack(total).sum(), by, allow_unused=True, materialize_grads=True))


def cast(args: Arguments, dtype: torch.dtype) -> Arguments:
    return tuple(a.to(dtype) if is_floating(a) else a for a in args)


def to_dtype(part: Part, made: Any, dtype: torch.dtype) -> Any:
    return copy.deepcopy(made).to(dtype) if part.is_module and not part.own_precision else made


def with_gradient(args: Arguments, part: Part) -> Arguments:
    return tuple(
        a.detach().clone().requires_grad_(i not in part.constant) if is_floating(a) else a for i, a in enumerate(args)
    )


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def floating(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tensors(tree) if is_floating(leaf)]


def parameters(made: Any) -> tuple[Tensor, ...]:
    return tuple(made.parameters()) if isinstance(made, torch.nn.Module) else ()


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def needs_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class Called(torch.nn.Module):
    """The call of a part as the forward pass of a module, for what takes modules only."""

    def __init__(self, part: Part, made: Any) -> None:
        super().__init__()
        self.part, self.made = part, made

    def forward(self, *args: Any) -> tuple[Tensor, ...]:
        return tuple(tensors(self.part.run(self.made, *args)))
