"""What GroCo's features order, and what the pictures show of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.groco.config import NEGATIVES
from throughline.claims.groco.data import Split
from throughline.claims.shared.evaluation import outputs
from throughline.claims.shared.probes import nearest_neighbours
from throughline.core.sorting import relaxed_sort
from throughline.lab import Log

__all__ = ["DRAWN_STEEPNESS", "keep_pictures", "ordering"]

DRAWN_STEEPNESS = 30.0
SHOWN, NEIGHBOURS = 5, 5  # anchors, and nearest neighbours of each, in the picture


@torch.no_grad()
def _similarities(encoder: nn.Module, projector: nn.Module, split: Split, seed: int) -> tuple[Tensor, Tensor]:
    """Of at most 1,024 images: similarity to the other view, and those to all others of the same view."""
    draw = torch.Generator().manual_seed(seed)
    some = split.bank[torch.randperm(len(split.bank), generator=draw)[:1024]]
    network = nn.Sequential(encoder, projector)
    one, other = (F.normalize(outputs(network, split.scaled(split.views(some, draw))), dim=-1) for _ in range(2))
    return (one * other).sum(-1), (one @ one.T).fill_diagonal_(-torch.inf)


def ordering(encoder: nn.Module, projector: nn.Module, split: Split, seed: int) -> Tensor:
    """Mean P over anchors: columns are the hardest negatives, ascending, then the positive."""
    positive, negative = _similarities(encoder, projector, split, seed)
    hardest = negative.topk(min(NEGATIVES, len(negative) - 1)).values.flip(-1)
    return relaxed_sort(torch.cat([hardest, positive[:, None]], -1), steepness=DRAWN_STEEPNESS).matrix().mean(0)


def keep_pictures(
    encoder: nn.Module, projector: nn.Module, bank: Tensor, queries: Tensor, split: Split, seed: int, log: Log
) -> None:
    """Margins of the training images, and a few queries with their neighbours."""
    positive, negative = _similarities(encoder, projector, split, seed)
    chosen = torch.randperm(len(queries), generator=torch.Generator().manual_seed(seed))[:SHOWN]
    _, rows = nearest_neighbours(bank, queries[chosen], NEIGHBOURS)
    log.keep(
        margins=positive - negative.amax(-1),
        shown=torch.cat([split.queries[chosen, None], split.bank[rows]], 1).mul(255).byte(),
        right=split.bank_labels[rows] == split.query_labels[chosen, None],
    )
