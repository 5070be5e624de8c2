"""Relaxed sorts of a tensor, and the order probabilities beneath them."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor

from throughline.core.checks import check_floating
from throughline.core.sorting.sweeps import (
    Distribution,
    Network,
    Relaxation,
    Sort,
    Sweep,
    accurate,
    largest,
    layers,
    pairs,
    probability,
)

__all__ = ["RelaxedSort", "check_relaxation", "order_probability", "relaxed_sort", "sorting_network"]


def order_probability(
    difference: Tensor, *, steepness: float = 10.0, distribution: Distribution = "cauchy", art_lambda: float = 0.25
) -> Tensor:
    """Probability α = f(b - a) that a comparator's wires (a, b) are already in order.

    Args:
        difference: floating point, b - a, any shape.
        steepness: positive and finite β; f works on v = β (b - a).
        distribution: "cauchy", "reciprocal" and "optimal" make the sort monotonic in its inputs; "logistic",
            "gaussian" and "logistic_phi" are the earlier choices.
        art_lambda: exponent of "logistic_phi", in [0, 1): the larger, the steeper at small differences.

    Returns:
        The shape and dtype of ``difference``, in [0, 1]; 1/2 at a tie.

    Raises:
        TypeError: ``difference`` is not floating point.
        ValueError: ``steepness``, ``distribution`` or ``art_lambda`` is out of range.

    >>> order_probability(torch.tensor([-1.0, 0.0, 0.1]), steepness=10.0)
    tensor([0.0317, 0.5000, 0.7500])
    """
    check_floating("difference", difference)
    check_relaxation(steepness, distribution, art_lambda=art_lambda)
    limit = largest(difference.dtype)
    wide = difference.to(accurate(difference.dtype)).clamp(-limit, limit)
    return probability(wide, Relaxation(steepness, distribution, art_lambda)).to(difference.dtype)


@lru_cache(maxsize=256)
def sorting_network(n: int, kind: Network = "odd_even") -> tuple[tuple[tuple[int, int], ...], ...]:
    """Layers of (low, high) comparators that sort n wires ascending; the comparators of a layer are disjoint.

    Args:
        n: number of wires, at least 1.
        kind: "odd_even" (n layers of neighbours) or "bitonic" (about log²(n)/2 layers; a layer that mirrors each
            block, then half-cleaners, so that for any n those comparators are left out that would touch a wire >= n).

    Raises:
        ValueError: ``n`` < 1, or ``kind`` is unknown.

    >>> sorting_network(4, "bitonic")
    (((0, 1), (2, 3)), ((0, 3), (1, 2)), ((0, 1), (2, 3)))
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    _check_name("kind", kind, get_args(Network))
    return tuple(tuple(pair for pair in pairs(layer) if pair[1] < n) for layer in layers(n, kind))


def relaxed_sort(
    input: Tensor,
    *,
    steepness: float = 10.0,
    distribution: Distribution = "cauchy",
    network: Network = "odd_even",
    art_lambda: float = 0.25,
) -> "RelaxedSort":
    """Sort the last dimension ascending through a relaxed network: P x and, on demand, P.

    One pass over the values finds every comparator's probability; it costs O(nL) per problem, L the number of layers.
    Differentiable once. Infinite entries count as the largest finite numbers; half precision is computed in float32.

    Args:
        input: floating point, ``(..., n)`` with n >= 1.
        steepness: positive and finite; P becomes the permutation matrix as it grows.
        distribution: the comparator's relaxation, see `order_probability`.
        network: "odd_even" (accurate, n layers) or "bitonic" (log²(n)/2 layers, for large n).
        art_lambda: exponent of "logistic_phi", in [0, 1).

    Returns:
        `RelaxedSort` with ``values`` in the dtype of ``input``.

    Raises:
        TypeError: ``input`` is not floating point.
        ValueError: ``input`` has no entry along its last dimension, or another argument is out of range.

    >>> ranks = relaxed_sort(torch.tensor([3.0, 1.0, 2.0]), steepness=1e4)
    >>> ranks.values
    tensor([1.0001, 2.0000, 2.9999])
    >>> ranks.matrix().round().int().tolist()
    [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    """
    check_floating("input", input)
    if input.ndim == 0 or input.shape[-1] == 0:
        raise ValueError(f"input must have shape (..., n) with n >= 1, got {tuple(input.shape)}")
    check_relaxation(steepness, distribution, network, art_lambda=art_lambda)
    limit = largest(input.dtype)
    wires = input.to(accurate(input.dtype)).clamp(-limit, limit).reshape(-1, input.shape[-1]).T.unsqueeze(1)
    relaxation = Relaxation(steepness, distribution, art_lambda)
    values, alpha, _ = Sort.apply(wires, network, relaxation)  # type: ignore[no-untyped-call]
    return RelaxedSort(values.squeeze(1).T.reshape(input.shape).to(input.dtype), alpha, network)


@dataclass(frozen=True, eq=False, repr=False)
class RelaxedSort:
    """A relaxed permutation P of every problem, as an operator; made by `relaxed_sort`.

    P is doubly stochastic. ``apply`` and ``adjoint`` cost O(nL) per vector, ``matrix`` costs O(n²L): time, and
    memory for gradients.
    """

    values: Tensor  # (..., n): the relaxed sorted values P x
    _alpha: Tensor  # (L, comparators, 1, problems): the probability of each layer's comparators to be in order
    _network: Network

    def matrix(self) -> Tensor:
        """P, ``(..., n, n)``: entry (i, j) is the probability that element j lands at sorted position i.

        >>> relaxed_sort(torch.tensor([0.1, 0.0])).matrix()
        tensor([[0.2500, 0.7500],
                [0.7500, 0.2500]])
        """
        n = self.values.shape[-1]
        eye = torch.eye(n, dtype=self.values.dtype, device=self.values.device)
        return self.apply(eye.expand(*self.values.shape, n))

    def apply(self, x: Tensor) -> Tensor:
        """P x: what lands at each sorted position.

        Args:
            x: floating point, ``(..., n)`` for a vector or ``(..., n, k)`` for k vectors per problem; leading
                dimensions broadcast against those of ``values``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: ``x`` has another n, another number of dimensions or leading dimensions that do not broadcast.

        >>> relaxed_sort(torch.tensor([2.0, 1.0]), steepness=1e4).apply(torch.tensor([5.0, 7.0])).round()
        tensor([7., 5.])
        """
        return self._sweep(x, transpose=False)

    def adjoint(self, x: Tensor) -> Tensor:
        """Pᵀ x: for each element, the mean of ``x`` over the positions where it may land. As `apply` otherwise.

        >>> relaxed_sort(torch.tensor([7.0, 9.0, 8.0]), steepness=1e4).adjoint(torch.tensor([1.0, 2.0, 3.0])).round()
        tensor([1., 3., 2.])
        """
        return self._sweep(x, transpose=True)

    def _sweep(self, x: Tensor, *, transpose: bool) -> Tensor:
        check_floating("x", x)
        *lead, n = self.values.shape
        if x.ndim not in (len(lead) + 1, len(lead) + 2) or x.shape[len(lead)] != n:
            wanted = f"{(*lead, n)} or {(*lead, n, 'k')}"
            raise ValueError(f"x must have shape {wanted}, up to broadcasting, got {tuple(x.shape)}")
        matrices = x if x.ndim == len(lead) + 2 else x.unsqueeze(-1)
        k = matrices.shape[-1]
        try:
            shape = torch.broadcast_shapes(tuple(lead), matrices.shape[:-2])  # type: ignore[no-untyped-call]
        except RuntimeError:
            raise ValueError(
                f"leading dimensions of x must broadcast with {tuple(lead)}, got shape {tuple(x.shape)}"
            ) from None
        dtype = torch.promote_types(x.dtype, self._alpha.dtype)
        alpha = self._alpha.to(dtype)
        if tuple(shape) != tuple(lead):  # x brings more problems than were sorted
            layers, comparators = alpha.shape[:2]
            alpha = alpha.reshape(layers, comparators, *lead).expand(layers, comparators, *shape)
            alpha = alpha.reshape(layers, comparators, 1, -1)
        wires = matrices.to(dtype).expand(*shape, n, k).reshape(-1, n, k).permute(1, 2, 0)
        learned = torch.is_grad_enabled() and (alpha.requires_grad or torch._C._are_functorch_transforms_active())
        swept = Sweep.apply(wires, alpha, self._network, transpose, learned)[0]  # type: ignore[no-untyped-call]
        result: Tensor = swept.permute(2, 0, 1).reshape(*shape, n, k)
        result = result.to(torch.promote_types(x.dtype, self.values.dtype))
        return result if x.ndim == len(lead) + 2 else result.squeeze(-1)


def check_relaxation(
    steepness: float, distribution: str, network: str = "odd_even", *, art_lambda: float = 0.25
) -> None:
    """Raise ValueError unless the arguments describe a relaxed sorting network."""
    if not 0 < steepness < math.inf:
        raise ValueError(f"steepness must be positive and finite, got {steepness}")
    _check_name("distribution", distribution, get_args(Distribution))
    _check_name("network", network, get_args(Network))
    if not 0 <= art_lambda < 1:
        raise ValueError(f"art_lambda must lie in [0, 1), got {art_lambda}")


def _check_name(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
