"""A network in evaluation mode."""

import torch
from torch import Tensor, nn

__all__ = ["outputs"]


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor, *, chunk: int = 1024) -> Tensor:
    """What a network makes of rows ``(n, ...)`` in evaluation mode, so many at once; its mode is restored."""
    training = network.training
    network.eval()
    found = torch.cat([network(part) for part in torch.split(x, chunk)])
    network.train(training)
    return found
