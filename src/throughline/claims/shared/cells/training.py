"""Training of what a search found, from scratch: several seeds side by side."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import Batches
from throughline.claims.shared.cells.side_by_side import SideBySide

__all__ = ["accuracies"]

MOMENTUM = 0.9
LARGEST = 1_000  # rows of a forward pass without gradient

Part = tuple[Tensor, Tensor]


def accuracies(
    build: Callable[..., nn.Module], train: Part, test: Part, config: CellConfig, seeds: Sequence[int]
) -> list[float]:
    """Test accuracy after training from scratch, for each seed: of the first weights, and of the order of the rows.

    SGD with Nesterov momentum 0.9, its rate falling to 0 by a cosine, step by step. ``build`` takes the generator.
    """
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    net = SideBySide([build(generator=draw) for draw in draws]).to(train[0].device)
    loaders = [Batches(*train, config.final_batch, draw) for draw in draws]
    optimizer = torch.optim.SGD(
        net.parameters(),
        config.final_lr,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=config.final_decay,
        fused=True,
    )
    steps = config.final_epochs * len(loaders[0])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    for _ in range(config.final_epochs):
        for batches in zip(*loaders, strict=True):
            x, y = (torch.stack(parts, 1) for parts in zip(*batches, strict=True))
            loss = len(seeds) * F.cross_entropy(net(x).flatten(0, 1), y.flatten())  # a sum over seeds of means
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cosine.step()
    net.eval()
    x, y = test
    with torch.no_grad():
        logits = torch.cat(
            [net(part[:, None].expand(-1, len(seeds), *part.shape[1:])) for part in torch.split(x, LARGEST)]
        )
    right = logits.argmax(2) == y[:, None]
    return [float(share) for share in right.double().mean(0)]
