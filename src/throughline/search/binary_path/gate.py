"""The gradient of a binary gate without the memory of the candidates that did not run (arXiv 1812.00332, eq. 4)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten

from throughline.core.relaxation import straight_through_categorical
from throughline.search.supernet import MixedOp, batch_statistics

__all__ = ["run_gated"]


def run_gated(op: MixedOp, candidates: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The output of the first of ``candidates``, through which alpha gets the gradient p ⊙ (b - ⟨p, b⟩) over them.

    b_j = ⟨∂L/∂output, o_j(input)⟩ is formed in the backward pass, where the others run one after another on the saved
    input, without a graph and with the statistics of the batch; nothing of it reaches the input or the weights. Their
    dropout draws new random numbers.
    """
    choice = op.choice
    output = op.run(candidates[0], args, kwargs)
    if not (torch.is_grad_enabled() and choice.alpha.requires_grad):
        return output
    logits = choice.alpha[[choice.names.index(name) for name in candidates]]
    result: Tensor = _Gated.apply(  # type: ignore[no-untyped-call]
        output, straight_through_categorical(logits, 0), op, candidates, tree_flatten((args, kwargs))
    )
    return result


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, output: Tensor, gate: Tensor, op: MixedOp, candidates: tuple[str, ...], inputs: tuple[list[Any], Any]
    ) -> Tensor:
        leaves, ctx.structure = inputs
        ctx.tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        ctx.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.op, ctx.candidates, ctx.dtype = op, candidates, gate.dtype
        device = output.device.type
        ctx.autocast = device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.save_for_backward(output, *(leaves[place].detach() for place in ctx.tensors))
        return output.clone()  # what comes next may write to it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        output, *saved = ctx.saved_tensors
        leaves = list(ctx.leaves)
        for place, tensor in zip(ctx.tensors, saved, strict=True):
            leaves[place] = tensor
        args, kwargs = tree_unflatten(leaves, ctx.structure)
        device, enabled, dtype = ctx.autocast
        products = [_inner(grad, output, ctx.dtype)]
        for name in ctx.candidates[1:]:
            with torch.no_grad(), batch_statistics(ctx.op.ops[name]), torch.autocast(device, dtype, enabled=enabled):
                other = ctx.op.run(name, args, kwargs)
            if other.shape != output.shape:
                ctx.op.check_shapes({ctx.candidates[0]: output.shape, name: other.shape})
            products.append(_inner(grad, other, ctx.dtype))
        return grad, torch.stack(products), None, None, None


def _inner(grad: Tensor, output: Tensor, dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(grad.dtype, torch.float32)
    return (grad * output).sum(dtype=wide).to(dtype)
