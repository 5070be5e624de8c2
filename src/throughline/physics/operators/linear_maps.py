"""Constant linear maps that autograd knows: sparse products and solutions, batched, differentiable again and again."""

import warnings
from collections import OrderedDict
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import torch
from torch import Tensor

from throughline.core._derivatives import eager

__all__ = ["Constant", "LinearMap", "Solver", "grouped", "shown"]

KEPT = 8  # copies of one map, by dtype, device and size of the batch


class Constant:
    """A float64 tensor that stays so, and is cast where it is used."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
        self._kept: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        key = (x.dtype, x.device)
        if key not in self._kept:
            self._kept[key] = self.value.to(device=x.device, dtype=x.dtype)
        return self._kept[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value, "_kept": {}}


class LinearMap:
    """x -> A x for a constant sparse A, with the product by Aᵀ as its derivative."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = sp.csr_matrix(matrix, dtype=np.float64)
        self.matrix.sort_indices()
        self._kept: OrderedDict[Any, Tensor] = OrderedDict()

    @cached_property
    def transposed(self) -> "LinearMap":
        made = LinearMap(self.matrix.T)
        made.__dict__["transposed"] = self
        return made

    @cached_property
    def selects(self) -> bool:
        """Whether each row is a single one: then a gather is the product."""
        return bool((np.diff(self.matrix.indptr) == 1).all() and (self.matrix.data == 1).all())

    @eager
    def __call__(self, x: Tensor) -> Tensor:
        """``(..., n)`` to ``(..., m)``."""
        if x.shape[:-1].numel() == 1:
            flat: Tensor = _Product.apply(x.reshape(-1, 1), self, 1)  # type: ignore[no-untyped-call]
            return flat.reshape(*x.shape[:-1], -1)
        rows: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]).T, self, 1)  # type: ignore[no-untyped-call]
        return rows.T.reshape(*x.shape[:-1], self.matrix.shape[0])

    @eager
    def features(self, x: Tensor) -> Tensor:
        """``(..., n, H)`` to ``(..., m, H)``, by one product with as many copies of A along a diagonal as the batch
        has entries: nothing is transposed.
        """
        copies = x.shape[:-2].numel()
        made: Tensor = _Product.apply(x.reshape(-1, x.shape[-1]), self, copies)  # type: ignore[no-untyped-call]
        return made.reshape(*x.shape[:-2], self.matrix.shape[0], x.shape[-1])

    def product(self, x: Tensor, copies: int, out: Tensor | None = None) -> Tensor:
        """The product itself, of ``(copies · n, H)``; into ``out``, where the map selects."""
        if self.selects:
            return torch.index_select(x, 0, self._tensor(copies, torch.int64, x.device), out=out)
        if not copies:
            return x.new_zeros(0, *x.shape[1:])
        wide = torch.promote_types(x.dtype, torch.float32)  # no sparse products in half precision
        with torch.autocast(x.device.type, enabled=False):
            return (self._tensor(copies, wide, x.device) @ x.to(wide)).to(x.dtype)

    def _tensor(self, copies: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        key = (copies, dtype, device)
        if key not in self._kept:
            if self.selects:
                shift = np.arange(copies)[:, None] * self.matrix.shape[1]
                made = torch.from_numpy((self.matrix.indices.astype(np.int64) + shift).reshape(-1)).to(device)
            else:
                whole = self.matrix if copies == 1 else sp.kron(sp.identity(copies), self.matrix, "csr")
                starts, columns = (
                    torch.from_numpy(i.astype(np.int64)).to(device) for i in (whole.indptr, whole.indices)
                )
                data = torch.from_numpy(whole.data).to(device=device, dtype=dtype)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # that the format is in beta
                    made = torch.sparse_csr_tensor(
                        starts, columns, data, whole.shape, device=device, check_invariants=False
                    )
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def __getstate__(self) -> dict[str, Any]:
        return {"matrix": self.matrix, "_kept": OrderedDict()}


class Solver:
    """b -> A⁻¹ b for a constant sparse A, by one LU decomposition; float64 inside, on the CPU.

    The derivative is implicit, a solution with Aᵀ: nothing of the decomposition is differentiated.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = sp.csc_matrix(matrix, dtype=np.float64)

    @cached_property
    def decomposition(self) -> Any:
        return spl.splu(self.matrix)  # SuperLU's orderings for symmetric matrices can fill in five times as much

    @eager
    def __call__(self, b: Tensor) -> Tensor:
        """``(..., n)`` to ``(..., n)``."""
        solved: Tensor = _Solution.apply(b, self, "N")  # type: ignore[no-untyped-call]
        return solved

    def solve(self, b: Tensor, trans: str) -> Tensor:
        if not b.numel():
            return torch.empty_like(b)
        sides = b.detach().double().cpu().numpy().reshape(-1, b.shape[-1])
        found = self.decomposition.solve(np.ascontiguousarray(sides.T), trans).T
        return torch.from_numpy(np.ascontiguousarray(found)).reshape(b.shape).to(device=b.device, dtype=b.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {"matrix": self.matrix}


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, linear: LinearMap, copies: int) -> Tensor:
        return linear.product(x, copies)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.linear, ctx.copies = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found: Tensor = _Product.apply(grad, ctx.linear.transposed, ctx.copies)  # type: ignore[no-untyped-call]
        return found, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, linear: LinearMap, copies: int) -> tuple[Tensor, int]:
        wide = x.movedim(in_dims[0], 1)  # mapped over, it is features more
        found: Tensor = _Product.apply(wide.flatten(1), linear, copies)  # type: ignore[no-untyped-call]
        return found.reshape(-1, *wide.shape[1:]), 1


class _Solution(torch.autograd.Function):
    @staticmethod
    def forward(b: Tensor, solver: Solver, trans: str) -> Tensor:
        return solver.solve(b, trans)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.solver, ctx.trans = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        other = "T" if ctx.trans == "N" else "N"
        found: Tensor = _Solution.apply(grad, ctx.solver, other)  # type: ignore[no-untyped-call]
        return found, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], b: Tensor, solver: Solver, trans: str) -> tuple[Tensor, int]:
        found: Tensor = _Solution.apply(b.movedim(in_dims[0], 0), solver, trans)  # type: ignore[no-untyped-call]
        return found, 0


def grouped(x: Tensor, size: int) -> Tensor:
    """``(..., n · size)`` to ``(..., n, size)``, of a batch of none too."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)


def shown(x: Any) -> str:
    """What an argument is, for an error."""
    return f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
