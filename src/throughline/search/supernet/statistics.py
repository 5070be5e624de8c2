"""Supernets normalised by the batch at hand: the running statistics of a mixture belong to no mixture in particular."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["batch_statistics"]

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm normalises by the batch, in training and in evaluation mode, and keeps nothing of it.

    A supernet whose mixture has just changed cannot use its running statistics, and evaluating it must not change them
    ("Rethinking Architecture Selection in Differentiable NAS", arXiv 2108.04392). The buffers are taken out and put
    back, the very tensors, so that a backward pass may come after. Inside, BatchNorm has no buffers: give none of them
    to ``torch.func.functional_call``. Modes are as they were, dropout included, and whatever is made of them inside,
    afterwards they are as before. InstanceNorm with running statistics is treated alike.

    Args:
        model: any module; uses may be nested.

    >>> import torch
    >>> norm = nn.BatchNorm1d(1).eval()
    >>> with batch_statistics(norm):
    ...     norm(torch.tensor([[1.0], [3.0]])).round().flatten().tolist()
    [-1.0, 1.0]
    >>> norm.running_mean
    tensor([0.])
    """
    modes = [(module, module.training) for module in model.modules()]
    norms = [m for m, _ in modes if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    held = [{name: norm._buffers[name] for name in BUFFERS if name in norm._buffers} for norm in norms]
    try:
        for norm, buffers in zip(norms, held, strict=True):
            norm.track_running_stats = False
            norm._buffers.update(dict.fromkeys(buffers))
        yield
    finally:
        for norm, buffers in zip(norms, held, strict=True):
            norm.track_running_stats = True
            norm._buffers.update(buffers)
        for module, training in modes:
            if module.training != training:
                module.training = training
