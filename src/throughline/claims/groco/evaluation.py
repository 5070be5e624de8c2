"""How good GroCo's features are: the vote of nearest neighbours, a linear probe, and how groups are ordered."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.groco.config import NEGATIVES
from throughline.claims.groco.data import Split
from throughline.claims.shared.evaluation import outputs
from throughline.core.sorting import relaxed_sort
from throughline.lab import Log

__all__ = [
    "DRAWN_STEEPNESS",
    "keep_pictures",
    "knn_accuracy",
    "linear_accuracy",
    "ordering",
]

DRAWN_STEEPNESS = 30.0
SHOWN, NEIGHBOURS = 5, 5  # anchors, and nearest neighbours of each, in the picture


def knn_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, k: int) -> float:
    """Accuracy of the vote of the k most similar of the bank (cosine), each with weight exp(similarity / 0.07)."""
    similarity, nearest = nearest_neighbours(bank, queries, k)
    votes = torch.zeros(len(queries), int(bank_labels.max()) + 1, device=bank.device)
    votes.scatter_add_(1, bank_labels[nearest], (similarity / 0.07).exp())
    return float((votes.argmax(1) == query_labels).double().mean())


def nearest_neighbours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosine similarities of every query and their rows in the bank, ``(n, k)`` each."""
    bank = F.normalize(bank, dim=-1)
    parts = [(F.normalize(q, dim=-1) @ bank.T).topk(min(k, len(bank))) for q in torch.split(queries, 512)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def linear_accuracy(bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor) -> float:
    """Accuracy of a logistic regression on the standardised features."""
    from sklearn.linear_model import LogisticRegression

    std, mean = torch.std_mean(bank, 0)
    x, q = ((f - mean) / std.clamp_min(1e-6) for f in (bank, queries))
    probe = LogisticRegression(C=0.1, tol=1e-3, max_iter=500).fit(x.numpy(), bank_labels.numpy())
    return float(probe.score(q.numpy(), query_labels.numpy()))


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
