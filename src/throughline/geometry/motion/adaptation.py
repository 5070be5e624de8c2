"""Test-time adaptation: a copy of a model goes on learning on what it is about to be used for."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from throughline.core.checks import check_tensor, integer

__all__ = ["adapt"]

Model = TypeVar("Model", bound=nn.Module)
BETAS = (0.5, 0.999)  # of Adam, as in the paper's code


def adapt(
    model: Model,
    inputs: tuple[Any, ...],
    loss: Callable[[Any], Tensor],
    *,
    steps: int = 100,
    lr: float = 1e-4,
    parameters: Callable[[Model], Iterable[nn.Parameter]] | None = None,
) -> Model:
    """A copy of ``model`` that was trained by Adam on ``loss(copy(*inputs))``, and nothing else.

    The test-time optimisation of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337): all weights, no early
    stopping. The copy is in evaluation mode throughout, so that the statistics of a few correlated frames do not take
    the place of those of the training. Start every clip from the same pretrained model, never from the last copy.
    Memory does not depend on ``steps``: the copy, Adam's two moments and the graph of one step.

    Args:
        model: any module; it is left as it was.
        inputs: the arguments of its call, as a tuple.
        loss: of what the copy returns, to a scalar.
        steps: of Adam, at least 1; β₁ is 0.5.
        lr: learning rate, positive and finite.
        parameters: chooses those of the copy that learn; by default all of its floating point parameters do, also those
            that need no gradient in ``model``.

    Returns:
        The copy, in evaluation mode, its parameters requiring gradients as in ``model``.

    Raises:
        TypeError: ``model`` is no module, ``inputs`` no tuple, ``steps`` no integer, or ``loss`` gives no tensor.
        ValueError: a number is out of range, ``loss`` gives no scalar, or does not depend on any of the parameters.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> tuned = adapt(model, (torch.ones(4, 1),), lambda y: (y - 1).square().mean(), steps=200, lr=0.02)
    >>> round(tuned(torch.ones(1)).item(), 2), model(torch.ones(1)).item()
    (1.0, 0.0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if not isinstance(inputs, tuple):
        raise TypeError(f"inputs must be a tuple, of the arguments of the model's call, got {type(inputs).__name__}")
    if integer("steps", steps) < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
    tuned = copy.deepcopy(model).eval()
    needed = {p: p.requires_grad for p in tuned.parameters()}
    learning = list(tuned.parameters() if parameters is None else parameters(tuned))
    learning = [p for p in dict.fromkeys(learning) if p.is_floating_point()]
    if not learning:
        raise ValueError("parameters must choose at least one floating point parameter of the model, got none")
    for p in needed:
        p.requires_grad_(False)
    for p in learning:
        p.requires_grad_()
    optimizer = torch.optim.Adam(learning, lr, betas=BETAS)
    with torch.enable_grad():
        for step in range(steps):
            optimizer.zero_grad()
            value = loss(tuned(*inputs))
            check_tensor("the result of loss", value)
            if value.ndim:
                raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}")
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
            if step == 0 and all(p.grad is None for p in learning):
                raise ValueError("loss does not depend on the model: none of its parameters that learn has a gradient")
            optimizer.step()
    optimizer.zero_grad()
    for p, gradient in needed.items():
        p.requires_grad_(gradient)
    return tuned
