"""How good frozen features are: the vote of nearest neighbours, and linear classifiers on top of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.shared import random_batches

__all__ = ["knn_accuracy", "linear_accuracy", "nearest_neighbours", "trained_accuracy"]


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


def trained_accuracy(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, query_labels: Tensor, *, epochs: int, seed: int
) -> float:
    """The same of a linear layer, by SGD with a cosine schedule: for banks that are large, in half precision too."""
    layer = nn.Linear(bank.shape[1], int(bank_labels.max()) + 1).to(bank.device)
    std, mean = torch.std_mean(bank.float(), 0)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    draw, batch = torch.Generator().manual_seed(seed), 1024
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(bank) // batch))
    for numbers in random_batches.epochs(epochs, len(bank), batch, draw):
        rows = numbers.to(bank.device)
        loss = F.cross_entropy(layer((bank[rows].float() - mean) / std.clamp_min(1e-6)), bank_labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    guesses = torch.cat([layer((q.float() - mean) / std.clamp_min(1e-6)).argmax(1) for q in torch.split(queries, 8192)])
    return float((guesses == query_labels).double().mean())
