"""Rows of `throughline.discrete.confusion`."""

import numpy as np
import torch
from scipy.special import expit
from sklearn import metrics
from sklearn.exceptions import NotFittedError
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Generator, Tensor

from throughline.discrete import confusion
from throughline.discrete.confusion import (
    Confusion,
    MetricClassifier,
    MetricLoss,
    metric_loss,
    soft_confusion,
)

NOT_PARTS = {
    "throughline.discrete.confusion.Confusion": "a NamedTuple of four tensors: what soft_confusion returns",
    "throughline.discrete.confusion.Metric": "type alias: a name or a function of the counts",
}

# ---- metrics of a confusion matrix ----

SCIKIT = {  # the counts are the weights of four samples, one of each kind
    "accuracy": metrics.accuracy_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
    "specificity": lambda *a, **k: metrics.recall_score(*a, pos_label=0, **k),
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "jaccard": metrics.jaccard_score,
    "mcc": metrics.matthews_corrcoef,
    "gmean": lambda *a, **k: np.sqrt(metrics.recall_score(*a, **k) * SCIKIT["specificity"](*a, **k)),
    "fbeta": lambda *a, **k: metrics.fbeta_score(*a, beta=2.0, **k),
}


def scikit_metric(name: str, *counts: Tensor) -> Tensor:
    value = SCIKIT[name]([1, 0, 1, 0], [1, 1, 0, 0], sample_weight=[float(count) for count in counts])
    return torch.tensor(float(value), dtype=torch.float64)


METRICS = [
    Part(
        metric,
        lambda g: tuple(torch.rand(4, generator=g, dtype=torch.float64) * 5 + 0.5),
        {"beta": 2.0} if name == "fbeta" else {},
        call=lambda *counts, f=metric, **options: f(Confusion(*counts), **options),
        batched=(0, 1, 2, 3),
        arguments=Confusion._fields,
        edges={
            "all alike": lambda: counted(2, 2, 2, 2),
            "perfect": lambda: counted(3, 0, 0, 5),
            "all wrong": lambda: counted(0, 3, 5, 0),
            "no positives": lambda: counted(0, 2, 0, 5),
            "no negatives": lambda: counted(2, 0, 5, 0),
        },
        reference=lambda *counts, name=name: scikit_metric(name, *counts),
        backend="aot_eager" if name == "mcc" else "eager",
        bad=(Bad(ValueError, r"beta must be positive and finite, got 0", beta=0),) if name == "fbeta" else (),
        skips={} if name == "fbeta" else {"errors": "takes whatever counts there are"},
    )
    for name, metric in ((name, getattr(confusion, name)) for name in SCIKIT)
]


def counted(*counts: float) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(counts, dtype=torch.float64))


# ---- soft confusion matrices and the losses on them ----


def logits(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, soft labels and weights of five samples."""
    return normal(generator, 5), *(torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(2))


def probabilities(generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    z, target, weight = logits(generator)
    return z.sigmoid(), target, weight


def slow_confusion(x: Tensor, y: Tensor, w: Tensor, steepness: float | None, from_logits: bool) -> list[Tensor]:
    p = expit(x.numpy()) if from_logits else x.numpy()
    soft = p if steepness is None else 1 / (1 + np.exp(-steepness * (p - 0.5)))
    own, other = (w * y).numpy(), (w * (1 - y)).numpy()
    return [torch.tensor(sum(part)) for part in (own * soft, other * soft, own * (1 - soft), other * (1 - soft))]


def profit(c: Confusion) -> Tensor:
    return c.tp - 5 * c.fp


Z, Y = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
INPUT_BAD = (
    Bad(TypeError, r"input must be floating point, got torch.int64", Z.long(), Y),
    Bad(TypeError, r"input must be floating point, got torch.bool", Z > 0, Y),
    Bad(ValueError, r"one shape, got input \(3, 1\) and target \(3,\)", Z.mT, Y[0]),
    Bad(ValueError, r"target must be in \[0, 1\], got values from 0 to 2", Z, 2 * Y),
    Bad(ValueError, r"target must be in \[0, 1\], got values from nan", Z, Y * torch.nan),
    Bad(ValueError, r"input must not be empty, got shape \(0,\)", torch.zeros(0), torch.zeros(0)),
    Bad(
        ValueError,
        r"input must be probabilities in \[0, 1\] .* got values from -2 to -?0",
        -2 * Z,
        Y,
        from_logits=False,
    ),
    Bad(ValueError, r"weight must be .* got values from -1", Z, Y, -Y),
    Bad(ValueError, r"weight must broadcast to \(1, 3\), got shape \(2,\)", Z, Y, torch.ones(2)),
    Bad(ValueError, r"amplification must be positive .* got 0\.0", amplification=0.0),
)
METRIC_BAD = Bad(ValueError, r"metric must be .* accuracy, .*specificity, got 'f3'", metric="f3")


def samples(*rows: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    z, y = torch.tensor(rows, dtype=torch.float64).T
    return z, y, torch.ones_like(z)


LOGIT_EDGES = {
    "no positives": lambda: samples((0.0, 0.0), (1.0, 0.0)),
    "no negatives": lambda: samples((0.0, 1.0), (1.0, 1.0)),
    "all wrong": lambda: samples((-40.0, 1.0), (40.0, 0.0)),
    "weightless": lambda: (*samples((1.0, 1.0), (0.0, 0.0))[:2], torch.zeros(2, dtype=torch.float64)),
}
ENDS = {"ends": lambda: samples((0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.0, 1.0))}
SOFT = [
    *(
        Part(
            soft_confusion,
            logits if from_logits else probabilities,
            {"dim": -1, "amplification": steepness, "from_logits": from_logits},
            variant=f"{'logits' if from_logits else 'probabilities'}, amplification={steepness}",
            call=lambda input, target, weight=None, **options: soft_confusion(input, target, weight=weight, **options),
            batched=(0, 1, 2),
            stretched=(0,) if from_logits else (),
            edges=LOGIT_EDGES if from_logits else ENDS,
            shortest=torch.float32,
            reference=lambda *args, s=steepness, f=from_logits: slow_confusion(*args, s, f),
            backend=COMPILER if from_logits and steepness else "aot_eager",
            bad=INPUT_BAD,
        )
        for from_logits, steepness in ((True, 73.0), (True, None), (False, 73.0), (False, None))
    ),
    *(
        Part(
            metric_loss,
            logits,
            {"metric": metric},
            call=lambda input, target, weight=None, **options: metric_loss(input, target, weight=weight, **options),
            stretched=(0,),
            edges=LOGIT_EDGES,
            backend="aot_eager" if metric == "gmean" else "eager",
            bad=(*INPUT_BAD, METRIC_BAD),
            skips={"batch": "one number over everything"},
        )
        for metric in ("f1", "balanced_accuracy", "gmean", "mcc", profit)
    ),
    *(
        Part(
            MetricLoss,
            logits,
            {"metric": metric},
            stretched=(0,),
            edges=LOGIT_EDGES,
            bad=(*INPUT_BAD, METRIC_BAD),
            skips={"batch": "one number over everything"},
        )
        for metric in ("f2", profit)
    ),
]


def labelled(generator: Generator) -> tuple[Tensor, Tensor]:
    features = normal(generator, 12, 3)
    return features, (features[:, 0] > 0.3).long()


X, LABELS = labelled(torch.Generator().manual_seed(0))
CLASSIFIER = Part(
    MetricClassifier,
    labelled,
    {"max_iter": 100},
    bad=(
        METRIC_BAD,
        Bad(ValueError, r"amplification must be positive .* got -1", amplification=-1.0),
        Bad(ValueError, r"batch_size must be at least 2, .* got 1", batch_size=1),
        Bad(TypeError, r"batch_size must be an integer, or None for all rows, got 'auto'", batch_size="auto"),
        Bad(TypeError, r"max_iter must be an integer, got 20\.0", max_iter=20.0),
        Bad(TypeError, r"hidden_layer_sizes must be an integer, or several, got 2\.5", hidden_layer_sizes=2.5),
        Bad(TypeError, r"hidden_layer_sizes must be an integer, or several, got 2\.5", hidden_layer_sizes=(3, 2.5)),
        Bad(ValueError, r"pos_label must be one of the labels \[0, 1\], got 7", pos_label=7),
        Bad(ValueError, r"y must hold two classes, got 3", X, torch.arange(12) % 3),
        Bad(ValueError, r"y must hold two classes, got one class", X, torch.zeros(12)),
        Bad(ValueError, r"NaN", X * torch.nan, LABELS),
        Bad(ValueError, r"sample_weight must not be negative", do=lambda c: c.fit(X, LABELS, -np.ones(12))),
        Bad(NotFittedError, r"not fitted", do=lambda c: c.predict(X)),
    ),
)

PARTS = [*METRICS, *SOFT, CLASSIFIER]
