"""The arms of the AnyLoss claim: what each minimises, three models to fit with it, and how they are scored."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.anyloss.config import Config
from throughline.claims.anyloss.data import Split
from throughline.claims.shared.evaluation import outputs
from throughline.claims.shared.thresholds import best_threshold, hard_counts
from throughline.discrete.confusion import Confusion, accuracy, balanced_accuracy, fbeta, gmean, metric_loss
from throughline.lab import require

__all__ = [
    "LOSSES",
    "SCORES",
    "Fitted",
    "fit",
    "fit_mlp",
    "fit_resnet",
    "fit_slp",
    "histogram",
    "measure",
]

PLAIN = ("bce", "mse", "bce_threshold", "soft_f1")  # arms whose gradients do not fade: they take the large steps

Loss = Callable[[Tensor, Tensor], Tensor]
SCORES: dict[str, Callable[[Confusion], Tensor]] = {
    "f1": fbeta,
    "balanced_accuracy": balanced_accuracy,
    "gmean": gmean,
    "accuracy": accuracy,
}
LOSSES: dict[str, Loss] = {
    "bce": F.binary_cross_entropy_with_logits,
    "bce_threshold": F.binary_cross_entropy_with_logits,
    "mse": lambda z, y: F.mse_loss(z.sigmoid(), y),
    "soft_f1": partial(metric_loss, amplification=None),
    **{f"metric_{name}": partial(metric_loss, metric=name) for name in SCORES},
}
ADAM = {"bce": 0.003, "bce_threshold": 0.003, "mse": 0.005}  # the paper's rates of the MLP; 0.001 for the others
WIDE = ("metric_gmean", "metric_balanced_accuracy")  # these get half of the rows in a batch, as in the paper
POINTS = 100  # of a loss curve


class Fitted(NamedTuple):
    """Logits of both parts, and the loss over training."""

    train: Tensor
    test: Tensor
    losses: list[float]


def fit(arm: str, model: str, split: Split, config: Config) -> Fitted:
    """Train one arm's model on one split."""
    if model == "slp":
        return fit_slp(arm, split, lr=config.lr if arm in PLAIN else config.metric_lr, steps=config.steps)
    if model == "mlp":
        return fit_mlp(arm, split, epochs=config.epochs)
    return fit_resnet(arm, split, epochs=config.resnet_epochs)


def fit_slp(arm: str, split: Split, *, lr: float, steps: int) -> Fitted:
    """The paper's single-layer perceptron: full-batch gradient descent from zero, the intercept a column."""
    x, x_test = (F.pad(part, (0, 1), value=1.0) for part in (split.x, split.x_test))
    weight = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    every = max(1, steps // POINTS)
    losses = []
    for step in range(steps):
        loss = LOSSES[arm](x @ weight, split.y)
        (gradient,) = torch.autograd.grad(loss, weight)
        weight.data.sub_(gradient, alpha=lr)
        if step % every == 0:
            losses.append(loss.detach())
    weight = weight.detach()
    return Fitted(x @ weight, x_test @ weight, [float(loss) for loss in losses])


def fit_mlp(arm: str, split: Split, *, epochs: int) -> Fitted:
    """The paper's MLP with two hidden units."""
    hidden, last = nn.Linear(split.x.shape[1], 2), nn.Linear(2, 1)
    nn.init.kaiming_normal_(hidden.weight)
    nn.init.xavier_uniform_(last.weight)  # Keras's default, as the zero biases are
    nn.init.zeros_(hidden.bias)
    nn.init.zeros_(last.bias)
    network = nn.Sequential(hidden, nn.BatchNorm1d(2), nn.Sigmoid(), last).to(split.x)
    batch = round(len(split.x) * (0.5 if arm in WIDE else 0.05))
    return _train(network, arm, split, lr=ADAM.get(arm, 0.001), epochs=epochs, batch=max(2, batch))


def fit_resnet(arm: str, split: Split, *, epochs: int, batch: int = 128) -> Fitted:
    """torchvision's ResNet-18 with one logit; Adam at 0.001 in every arm."""
    network = require("torchvision.models", extra="paper").resnet18(weights=None, num_classes=1).to(split.x)
    return _train(network, arm, split, lr=0.001, epochs=epochs, batch=batch)


def measure(arm: str, fitted: Fitted, split: Split) -> list[float]:
    """Every score on the test part, at p > 1/2 or at the threshold that is best for it on the training part."""
    found = []
    for score in SCORES.values():
        threshold = best_threshold(fitted.train, split.y, score) if arm == "bce_threshold" else 0.0
        found.append(float(score(hard_counts(fitted.test, split.y_test, threshold))))
    return found


def histogram(z: Tensor, bins: int = 40) -> NDArray[np.float64]:
    """Shares of the probabilities σ(z) in equal bins."""
    counts: NDArray[Any] = np.histogram(z.sigmoid().cpu().numpy(), bins=bins, range=(0, 1))[0]
    return counts / len(z)


def _train(network: nn.Module, arm: str, split: Split, *, lr: float, epochs: int, batch: int) -> Fitted:
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for rows in _batches(len(split.x), batch):
            loss = LOSSES[arm](network(split.x[rows])[:, 0], split.y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        losses.append(float(loss.detach()))
    train, test = (outputs(network, part, chunk=4096)[:, 0] for part in (split.x, split.x_test))
    return Fitted(train, test, losses)


def _batches(rows: int, size: int) -> Iterator[Tensor]:
    parts = list(torch.split(torch.randperm(rows), size))
    if len(parts) > 1 and len(parts[-1]) == 1:  # batch normalisation needs two
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts
