"""Rows of `throughline.continual`."""

from typing import Any

import numpy as np
import torch
from sklearn.exceptions import NotFittedError
from tests.contract.part import COMPILER, Bad, Part, normal, seeded
from torch import Generator, Tensor, nn

from throughline.continual.analytic import AnalyticClassifier, AnalyticHead, RandomExpansion, StreamingLDA
from throughline.continual.streams import class_incremental, si_blurry

IDS = torch.tensor([7, 3, 7, -2, 3, 7, 3, -2])
ONES = torch.ones(8, 3, dtype=torch.float64)
NO_GRADIENT = {"gradcheck": "learns in closed form: every method runs under no_grad"}


def learn(head: Any) -> None:
    head.partial_fit(normal(seeded(7), 8, 3), IDS)


def rejects(subject: type[nn.Module]) -> tuple[Bad, ...]:
    """What both stream learners refuse."""
    return (
        Bad(ValueError, r"in_features must be >= 1, got 0", in_features=0),
        Bad(ValueError, r"features must be \(\.\.\., 3\), got shape \(4,\)", torch.ones(4)),
        Bad(ValueError, r"features must be \(n, 3\), got shape \(3,\)", do=lambda m: m.partial_fit(ONES[0], IDS)),
        Bad(ValueError, r"labels must be \(8,\) .* got shape \(7,\)", do=lambda m: m.partial_fit(ONES, IDS[1:])),
        Bad(ValueError, r"labels must be integer .* torch.float64", do=lambda m: m.partial_fit(ONES, ONES[:, 0])),
        Bad(TypeError, r"labels must be .*, got list of str", do=lambda m: m.partial_fit(ONES, ["a"] * 8)),
        Bad(TypeError, r"features must be a tensor, got ndarray", do=lambda m: m.partial_fit(ONES.numpy(), IDS)),
        Bad(ValueError, r"features must be finite", do=lambda m: m.partial_fit(ONES / 0, IDS)),
        Bad(ValueError, r"partial_fit must be called with data", do=lambda m: subject(3)(ONES)),
        Bad(ValueError, r"partial_fit must be called with data", do=lambda m: subject(3).predict(ONES)),
    )


def labelled(generator: Generator) -> tuple[Tensor, Tensor]:
    features = normal(generator, 12, 4)
    return features, (features[:, 0] > 0).long() + 2 * (features[:, 1] > 0).long()


PENALTY = Bad(ValueError, r"penalty must be positive and finite, got 0\.0", penalty=0.0)

NOT_PARTS = {
    "throughline.continual.labels.Labels": "a type: what is taken for class ids",
    "throughline.continual.labels.class_ids": "the check of labels, which those of all learners and streams go through",
}
PARTS = [
    Part(
        RandomExpansion,
        lambda g: (normal(g, 3),),
        {"in_features": 3, "out_features": 8},
        batched=(0,),
        backend=COMPILER,
        edges={"single": lambda: (ONES[0],)},
        bad=(
            Bad(ValueError, r"in_features and out_features must be >= 1, got 3 and 0", out_features=0),
            Bad(ValueError, r"features must be \(\.\.\., 3\), got shape \(4,\)", torch.ones(4)),
        ),
    ),
    *(
        Part(
            AnalyticHead,
            lambda g: (normal(g, 3),),
            {"in_features": 3, "expansion": 8, "penalty": 0.7, "form": form},
            variant=form,
            prepare=learn,
            batched=(0,),
            own_precision=True,
            edges={"single": lambda: (ONES[0],)},
            bad=(PENALTY, *rejects(AnalyticHead)),
            skips=NO_GRADIENT,
        )
        for form in ("information", "covariance")
    ),
    Part(
        StreamingLDA,
        lambda g: (normal(g, 3),),
        {"in_features": 3},
        prepare=learn,
        backend=COMPILER,
        batched=(0,),
        own_precision=True,
        edges={"single": lambda: (ONES[0],)},
        bad=(Bad(ValueError, r"shrinkage must be in \(0, 1\], got 0", shrinkage=0), *rejects(StreamingLDA)),
        skips=NO_GRADIENT,
    ),
    Part(
        AnalyticClassifier,
        labelled,
        {"expansion": 16, "penalty": 1.0},
        bad=(
            PENALTY,
            Bad(NotFittedError, r"not fitted", do=lambda c: c.predict(np.ones((2, 4)))),
            Bad(ValueError, r"NaN", torch.full((3, 2), torch.nan), torch.tensor([0, 1, 0])),
            Bad(
                ValueError,
                r"y must hold labels of one kind in all pieces, got texts after numbers",
                do=lambda c: c.fit(np.eye(2), [1, 2]).partial_fit(np.eye(2), ["1", "b"]),
            ),
        ),
    ),
    Part(
        si_blurry,
        lambda g: (torch.randint(5, (40,), generator=g),),
        {"tasks": 3},
        foreign=(0,),
        bad=(
            Bad(ValueError, r"tasks must be at least 1, got 0", tasks=0),
            Bad(ValueError, r"disjoint must be in \[0, 1\], got 1\.5", disjoint=1.5),
            Bad(ValueError, r"blurry must be in \[0, 1\], got -0\.1", blurry=-0.1),
            Bad(ValueError, r"labels must be \(n,\) with n >= 1, got shape \(0,\)", torch.zeros(0).long()),
            Bad(ValueError, r"labels must be integer class ids, got torch.float32", torch.zeros(4)),
        ),
        skips={
            **dict.fromkeys(("gradcheck", "dtype", "autocast", "nan"), "labels in, indices out"),
            **dict.fromkeys(("batch", "transforms"), "one stream at a time: the sizes of its tasks are random"),
            "fullgraph": "the sizes of the tasks depend on the data",
        },
    ),
    Part(
        class_incremental,
        lambda g: (torch.randint(5, (40,), generator=g),),
        {"tasks": 3},
        foreign=(0,),
        edges={"single": lambda: (torch.arange(3),)},  # a class for each task
        bad=(
            Bad(ValueError, r"tasks must be at least 1, got 0", tasks=0),
            Bad(ValueError, r"tasks must be at most the number of classes \(5\), got 6", tasks=6),
            Bad(ValueError, r"labels must be \(n,\) with n >= 1, got shape \(0,\)", torch.zeros(0).long()),
            Bad(ValueError, r"labels must be integer class ids, got torch.float32", torch.zeros(4)),
        ),
        skips={
            **dict.fromkeys(("gradcheck", "dtype", "autocast", "nan"), "labels in, indices out"),
            **dict.fromkeys(("batch", "transforms"), "one stream at a time: the sizes of its tasks differ"),
            "fullgraph": "the sizes of the tasks depend on the data",
        },
    ),
]
