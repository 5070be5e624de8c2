"""Rows of `throughline.discrete.key_value`."""

from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part, normal, seeded
from torch import Generator, Tensor

from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck

BATCH = normal(seeded(3), 40, 6).float()
SIZES = {"in_features": 6, "dim_value": 3, "num_codebooks": 3, "num_pairs": 5, "dim_key": 2}


def learn(bottleneck: Any) -> None:
    """Keys from data, and values that differ."""
    bottleneck.fit_keys(BATCH.split(20), epochs=2, generator=seeded(4))
    bottleneck.values.data.copy_(normal(seeded(5), *bottleneck.values.shape))


def embedding(generator: Generator) -> tuple[Tensor]:
    return (normal(generator, 6),)


def update(x: Tensor) -> Any:
    return lambda bottleneck: bottleneck.update_keys(x)


BAD = (
    *(Bad(ValueError, rf"{name} must be at least 1, got 0", **{name: 0}) for name in SIZES),
    *(Bad(TypeError, rf"{name} must be an integer, got 2\.5", **{name: 2.5}) for name in (*SIZES, "topk")),
    Bad(ValueError, r'projection must be "random" or "none", got \'fixed\'', projection="fixed"),
    Bad(ValueError, r"num_codebooks \* dim_key = 9 without a projection, got 6", projection="none", dim_key=3),
    Bad(ValueError, r"decay must be in \(0, 1\), got 1\.0", decay=1.0),
    Bad(ValueError, r"decay must be in \(0, 1\), got 0", decay=0),
    Bad(ValueError, r"eps must be positive and finite, got 0\.0", eps=0.0),
    Bad(ValueError, r"dead_threshold must be finite and not negative, got -0\.1", dead_threshold=-0.1),
    Bad(ValueError, r"topk must be between 1 and num_pairs = 5, got 6", topk=6),
    Bad(ValueError, r"topk must be between 1 and num_pairs = 5, got 0", topk=0),
    Bad(ValueError, r"x must be \(\.\.\., 6\), got shape \(2, 5\)", torch.ones(2, 5)),
    Bad(ValueError, r"x must be \(\.\.\., 6\), got shape \(\)", torch.ones(())),
    Bad(TypeError, r"x must be floating point, got torch.int64", torch.ones(6).long()),
    Bad(TypeError, r"x must be floating point, got torch.int64", do=update(torch.ones(2, 6).long())),
    Bad(ValueError, r"x must be \(\.\.\., 6\), got shape \(6, 2\)", do=update(torch.ones(6, 2))),
    Bad(ValueError, r"x must hold at least one embedding, got shape \(0, 6\)", do=update(torch.ones(0, 6))),
    Bad(ValueError, r"x must be finite, got NaN or infinity", do=update(torch.full((2, 6), torch.nan))),
    Bad(ValueError, r"x must be finite, got NaN or infinity", do=update(torch.full((2, 6), torch.inf))),
    Bad(ValueError, r"keys must be found first", do=lambda b: KeyValueBottleneck(**SIZES)(BATCH)),
    Bad(ValueError, r"keys must be found first", do=lambda b: KeyValueBottleneck(**SIZES).lookup(BATCH)),
    Bad(ValueError, r"at least one batch, got none", do=lambda b: b.fit_keys([])),
    Bad(ValueError, r"re-iterable for 2 epochs", do=lambda b: b.fit_keys(iter([BATCH]), epochs=2)),
    Bad(ValueError, r"epochs must be at least 1, got 0", do=lambda b: b.fit_keys([BATCH], epochs=0)),
    Bad(TypeError, r"batches must be an iterable of tensors, such as x.split", do=lambda b: b.fit_keys(BATCH)),
    Bad(TypeError, r"batches must yield tensors, .* got dict", do=lambda b: b.fit_keys([{"x": BATCH}])),
    Bad(TypeError, r"epochs must be an integer, got 1\.5", do=lambda b: b.fit_keys([BATCH], epochs=1.5)),
    Bad(ValueError, r"x must be finite, got NaN", do=lambda b: b.lookup(BATCH * torch.nan)),
    Bad(ValueError, r"x must be finite, got NaN", do=lambda b: b.lookup(BATCH / 0)),
)

PARTS = [
    *(
        Part(
            KeyValueBottleneck,
            embedding,
            {**SIZES, "projection": projection, "topk": topk},
            prepare=learn,
            batched=(0,),
            constant=(0,),
            backend=COMPILER if topk == 1 and projection == "random" else "aot_eager",
            edges={"single": lambda: (torch.zeros(0, 6, dtype=torch.float64),)},
            bad=BAD if projection == "random" else (),
            skips={}
            if projection == "random"
            else {
                "errors": "those of the other rows",
                "seed": "the generator draws the projection, and there is none",
            },
        )
        for projection, topk in (("random", 1), ("random", 3), ("none", 1))
    ),
    Part(
        CodebookVote,
        lambda g: (normal(g, 4, 3),),
        batched=(0,),
        bad=(
            Bad(TypeError, r"values must be floating point, got torch.int64", torch.ones(4, 3).long()),
            Bad(ValueError, r"values must be \(\.\.\., C, classes\) .* got shape \(3,\)", torch.ones(3)),
            Bad(ValueError, r"values must be .* got shape \(0, 3\)", torch.ones(0, 3)),
        ),
    ),
]
