"""Rows of `throughline.search.embedding_size`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, seeded
from torch import Tensor

from throughline.search.embedding_size import (
    MixedDimEmbedding,
    SearchableEmbedding,
    frequency_blocks,
    mixed_dimensions,
    prune,
)

NOT_PARTS = {
    "throughline.search.embedding_size.EmbeddingSizeSearch": "takes steps on a model; test_searcher.py is about them",
    "throughline.search.embedding_size.make_searchable": "makes SearchableEmbeddings, which have rows",
    "throughline.search.embedding_size.prune": "cuts SearchableEmbeddings in place; test_pruning.py is about it",
    "throughline.search.embedding_size.compress": "makes MixedDimEmbeddings, which have a row",
    "throughline.search.embedding_size.selection_parameters": "lists parameters of a model; test_searchable.py",
    "throughline.search.embedding_size.weight_parameters": "lists parameters of a model; test_searchable.py",
}

BLOCKS = torch.tensor([0, 2, 1, 2, 0, 1])
COLUMNS, OFFSETS = torch.tensor([0, 3, 1, 0, 1, 2, 3]), torch.tensor([0, 2, 2, 3, 3, 7, 7])
NO_FLOATS = {"nan": "takes no floating point tensor: ids are integers"}
GLOBAL = {"untouched": "the weight starts from torch's global generator, as that of nn.Embedding does"}


def ids(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(6, (5,), generator=generator),)


def drawn(module: Any) -> None:
    """Parameters that do not depend on the global generator."""
    draw = seeded(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))


def pruned(module: Any) -> None:
    drawn(module)
    prune(module, sparsity=0.4)


def looped(ids: Tensor) -> Tensor:
    """Row by row."""
    table = SearchableEmbedding(6, 4, blocks=BLOCKS)
    drawn(table)
    table.double()
    return torch.stack([table.alpha[BLOCKS[i]] * table.weight[i] for i in ids]).detach()


def spread(ids: Tensor) -> Tensor:
    """Entry by entry."""
    table = MixedDimEmbedding(torch.zeros(7), COLUMNS, OFFSETS, 4)
    drawn(table)
    out = torch.zeros(len(ids), 4, dtype=torch.float64)
    for place, i in enumerate(ids.tolist()):
        for entry in range(int(OFFSETS[i]), int(OFFSETS[i + 1])):
            out[place, COLUMNS[entry]] = table.values[entry].item()
    return out


IDS_BAD = (
    Bad(TypeError, r"ids must be int64 or int32, got torch.uint8", torch.ones(3, dtype=torch.uint8)),
    Bad(TypeError, r"ids must be int64 or int32, got torch.float32", torch.ones(3)),
    Bad(IndexError, r"index out of range", torch.tensor([6])),
    Bad(IndexError, r"index out of range", torch.tensor([-1])),
)
COUNTS_BAD = (
    Bad(ValueError, r"counts must be 1-d, .* got shape \(2, 2\)", torch.ones(2, 2)),
    Bad(ValueError, r"counts must be finite and not negative, got -3", torch.tensor([1, -3])),
    Bad(ValueError, r"counts must be finite and not negative, got nan", torch.tensor([1, float("nan")])),
    Bad(ValueError, r"counts must be finite and not negative, got inf", torch.tensor([float("inf"), 1])),
    Bad(ValueError, r"num_blocks must be from 1 to the 8 entries of counts, got 0", num_blocks=0),
    Bad(ValueError, r"num_blocks must be from 1 to the 8 entries of counts, got 9", num_blocks=9),
    Bad(TypeError, r"num_blocks must be an integer, got 2.5", num_blocks=2.5),
)
COUNTED = {
    "batch": "features are sorted among all of one table",
    "transforms": "gives whole numbers, and has no derivative",
    "gradcheck": "gives whole numbers, and has no derivative",
    "extremes": "gives whole numbers, and has no derivative",
    "dtype": "gives int64 whatever the counts are",
    "autocast": "gives int64, which autocast leaves alone",
    "nan": "is drawn with whole counts; a NaN is among what is refused",
}


def counts(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(1, 50, (8,), generator=generator),)


PARTS = [
    Part(
        SearchableEmbedding,
        ids,
        {"num_embeddings": 6, "embedding_dim": 4, "blocks": BLOCKS},
        variant="searched",
        prepare=drawn,
        batched=(0,),
        reference=looped,
        edges={"single": lambda: (torch.tensor([0]),)},
        bad=(
            *IDS_BAD,
            Bad(ValueError, r"num_embeddings must be at least 1, got 0", num_embeddings=0),
            Bad(ValueError, r"embedding_dim must be at least 1, got 0", embedding_dim=0),
            Bad(TypeError, r"embedding_dim must be an integer, got 2.5", embedding_dim=2.5),
            Bad(ValueError, r"blocks must be \(6,\), a block for each feature, got shape \(5,\)", blocks=BLOCKS[:5]),
            Bad(ValueError, r"blocks must be \(6,\), .* got shape \(6, 1\)", blocks=BLOCKS[:, None]),
            Bad(ValueError, r"blocks must not be negative, got -1", blocks=BLOCKS - 1),
            Bad(TypeError, r"blocks must be integers, got torch.float32", blocks=BLOCKS.float()),
            Bad(TypeError, r"blocks must be a tensor, got list", blocks=BLOCKS.tolist()),
            Bad(ValueError, r"padding_idx must be one of the 6 features, got 6", padding_idx=6),
            Bad(ValueError, r"padding_idx must be one of the 6 features, got -7", padding_idx=-7),
        ),
        skips={**NO_FLOATS, **GLOBAL},
    ),
    Part(
        SearchableEmbedding,
        ids,
        {"num_embeddings": 6, "embedding_dim": 4, "blocks": BLOCKS},
        variant="pruned",
        prepare=pruned,
        batched=(0,),
        edges={"single": lambda: (torch.tensor([0]),)},
        bad=IDS_BAD,
        skips={**NO_FLOATS, **GLOBAL},
    ),
    Part(
        MixedDimEmbedding,
        ids,
        {"values": torch.zeros(7), "columns": COLUMNS, "offsets": OFFSETS, "embedding_dim": 4},
        variant="compressed",
        prepare=drawn,
        batched=(0,),
        reference=spread,
        edges={"single": lambda: (torch.tensor([4]),)},
        bad=(
            *IDS_BAD,
            Bad(ValueError, r"embedding_dim must be at least 1, got 0", embedding_dim=0),
            Bad(TypeError, r"values must be floating point, got torch.int64", values=COLUMNS),
            Bad(ValueError, r"values must be 1-d, .* got shape \(7, 1\)", values=torch.zeros(7, 1)),
            Bad(TypeError, r"columns must be integers, got torch.float32", columns=COLUMNS.float()),
            Bad(TypeError, r"offsets must be a tensor, got list", offsets=OFFSETS.tolist()),
            Bad(ValueError, r"columns must be \(7,\), as the values, got shape \(6,\)", columns=COLUMNS[:6]),
            Bad(ValueError, r"columns must be in \[0, 3\), got 3", embedding_dim=3),
            Bad(ValueError, r"columns must be in \[0, 4\), got -1", columns=COLUMNS - 1),
            Bad(ValueError, r"columns must rise within each row", columns=COLUMNS.flip(0)),
            Bad(ValueError, r"columns must rise within each row", columns=torch.tensor([1, 1, 1, 0, 1, 2, 3])),
            Bad(
                ValueError, r"offsets must be 1-d and rise from 0 to the 7 .* from 0 to 6", offsets=OFFSETS.clamp_max(6)
            ),
            Bad(ValueError, r"offsets must .* from 1 to 7", offsets=OFFSETS.clamp_min(1)),
            Bad(ValueError, r"offsets must .* from 0 to 7", offsets=torch.tensor([0, 3, 2, 7])),
            Bad(ValueError, r"offsets must .* got shape \(1,\) from 0 to 0", offsets=torch.tensor([0])),
            Bad(ValueError, r"offsets must .* got shape \(1, 7\)", offsets=OFFSETS[None]),
        ),
        skips={
            **NO_FLOATS,
            "transforms": "how many entries a batch has differs from one batch to another",
        },
    ),
    Part(
        frequency_blocks,
        counts,
        {"num_blocks": 3},
        bad=COUNTS_BAD,
        skips=COUNTED,
    ),
    Part(
        mixed_dimensions,
        counts,
        {"num_blocks": 3, "base_dim": 4, "temperature": 0.5},
        bad=(
            *COUNTS_BAD,
            Bad(ValueError, r"counts must not all be 0", torch.zeros(8)),
            Bad(ValueError, r"base_dim must be at least 1, got 0", base_dim=0),
            Bad(TypeError, r"base_dim must be an integer, got 0.5", base_dim=0.5),
            Bad(ValueError, r"temperature must be in \[0, 1\), got 1.0", temperature=1.0),
            Bad(ValueError, r"temperature must be in \[0, 1\), got -0.1", temperature=-0.1),
        ),
        skips=COUNTED,
    ),
]
