"""The messages of a graph and their sums, made block by block and never kept: the hot path of message passing."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core._derivatives import eager, transformed
from throughline.physics.operators.linear_maps import LinearMap

__all__ = ["message_sums"]

BLOCK = 2**19  # numbers in a block of messages on the CPU: what its cache holds


@eager
def message_sums(source: Tensor, target: Tensor, edge: Tensor, maps: tuple[LinearMap, LinearMap]) -> Tensor:
    """Σ_j GELU(source_j + target_i + edge_ij) over the neighbours j of each i.

    Args:
        source, target: ``(..., n, H)``.
        edge: ``(E, H)``.
        maps: from nodes to the sources and to the targets of edges.

    Returns:
        ``(..., n, H)``.
    """
    if transformed():  # what is done in place below cannot be mapped over
        return _plain(source, target, edge, maps)
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (source, target))
    summed: Tensor = _Sums.apply(*flat, edge, maps)  # type: ignore[no-untyped-call]
    return summed.reshape(source.shape)


class _Sums(torch.autograd.Function):
    """Messages are made anew in backward: that costs less than to write them to memory and read them again."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, edge: Tensor, maps: tuple[LinearMap, LinearMap]) -> Tensor:
        ctx.save_for_backward(source, target, edge)
        ctx.maps = maps
        summed = torch.empty_like(source, memory_format=torch.contiguous_format)
        for rows, spare in _blocks(source, edge):
            sums = torch.ops.aten.gelu_(_made(source[rows], target[rows], edge, maps, spare))
            summed[rows] = maps[1].transposed.product(sums, len(source[rows])).view_as(source[rows])
        return summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        source, target, edge = ctx.saved_tensors
        maps = ctx.maps
        if torch.is_grad_enabled():  # to be differentiated again
            wanted = [x for x in (source, target, edge) if x.requires_grad]
            found = iter(torch.autograd.grad(_plain(source, target, edge, maps), wanted, grad, create_graph=True))
            return *(next(found) if x.requires_grad else None for x in (source, target, edge)), None
        by_source, by_target = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (source, target))
        by_edge = torch.zeros_like(edge)
        for rows, spare in _blocks(source, edge):
            size, copies = source[rows].shape, len(source[rows])
            made = _made(source[rows], target[rows], edge, maps, spare)
            outer = maps[1].product(_flat(grad[rows]), copies, spare[1])
            slope = torch.ops.aten.gelu_backward.grad_input(outer, made, grad_input=spare[0])
            by_source[rows] = maps[0].transposed.product(slope, copies).view(size)
            by_target[rows] = maps[1].transposed.product(slope, copies).view(size)
            by_edge += slope.view(copies, *edge.shape).sum(0)
        return by_source, by_target, by_edge, None


def _blocks(source: Tensor, edge: Tensor) -> list[tuple[slice, tuple[Tensor, Tensor]]]:
    """Slices of the batch, with the memory that all of a size share."""
    count = len(source)
    size = max(1, BLOCK // max(1, edge.numel())) if source.device.type == "cpu" else max(1, count)
    spare = tuple(source.new_empty(min(size, count) * len(edge), edge.shape[1]) for _ in range(2))
    made = []
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        length = (rows.stop - start) * len(edge)
        made.append((rows, (spare[0][:length], spare[1][:length])))
    return made


def _made(
    source: Tensor, target: Tensor, edge: Tensor, maps: tuple[LinearMap, LinearMap], spare: tuple[Tensor, Tensor]
) -> Tensor:
    """What goes into the GELU, ``(copies · E, H)``, in the first of two spare tensors."""
    copies = len(source)
    made = maps[0].product(_flat(source), copies, spare[0])
    made.add_(maps[1].product(_flat(target), copies, spare[1]))
    made.view(copies, *edge.shape).add_(edge)
    return made


def _plain(source: Tensor, target: Tensor, edge: Tensor, maps: tuple[LinearMap, LinearMap]) -> Tensor:
    """The same from maps that autograd knows."""
    return maps[1].transposed.features(F.gelu(maps[0].features(source) + maps[1].features(target) + edge))


def _flat(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])
