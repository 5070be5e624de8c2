"""Speed bars of searched embedding sizes: factorisation machines on a large table.

A search step does more than a plain one, and a pruned table has less to do: references are an Adam step of the same
model on ``nn.Embedding``. Reading a compressed table is compared with the loop over its rows that a user would write.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.embedding_size import (
    EmbeddingSizeSearch,
    MixedDimEmbedding,
    compress,
    make_searchable,
    prune,
    weight_parameters,
)

FEATURES, DIMENSIONS, BATCH = 100_000, 64, 4_096
COUNTS = 1_000_000 // torch.arange(1, FEATURES + 1)


class Machine(nn.Module):
    """A factorisation machine over two ids a sample: mean_k ½[(Σ e)² − Σ e²], biases and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.bias = nn.Embedding(FEATURES, DIMENSIONS), nn.Embedding(FEATURES, 1)
        self.constant = nn.Parameter(torch.zeros(()))
        nn.init.xavier_normal_(self.table.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, ids: Tensor) -> Tensor:
        found = self.table(ids)
        pairs = (found.sum(1).square() - found.square().sum(1)).mean(1) / 2
        return pairs + self.bias(ids).sum((1, 2)) + self.constant


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def drawn(seed: int, count: int = 8, size: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    """Batches in which popular features are frequent."""
    draw = torch.Generator().manual_seed(seed)
    return [
        ((torch.rand(size, 2, generator=draw) ** 4 * FEATURES).long(), torch.randn(size, generator=draw))
        for _ in range(count)
    ]


def plain(model: nn.Module) -> Callable[[], Tensor]:
    """An Adam step."""
    optimizer, batches = torch.optim.Adam(model.parameters(), 1e-3), itertools.cycle(drawn(0))

    def call() -> Tensor:
        value = loss(model, next(batches))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return value.detach()

    return call


def seeded() -> Machine:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Machine()


def searching(order: int) -> dict[str, Callable[[], Any]]:
    model = make_searchable(seeded(), {"table": COUNTS})
    search = EmbeddingSizeSearch(model, loss, torch.optim.Adam(weight_parameters(model), 1e-3), order=order)
    train, valid = itertools.cycle(drawn(0)), itertools.cycle(drawn(1))

    def agree() -> None:
        """Before the first step a searchable table says what the plain one says."""
        twin, batch = seeded(), drawn(2, 1)[0]
        torch.testing.assert_close(loss(make_searchable(seeded(), {"table": COUNTS}), batch), loss(twin, batch))

    return {"ours": lambda: search.step(next(train), next(valid)), "peer": plain(seeded()), "agree": agree}


def pruned() -> tuple[nn.Module, Tensor]:
    """A model whose table has a tenth of its entries, and that table as it is laid out in full."""
    model = make_searchable(seeded(), {"table": COUNTS})
    prune(model, sparsity=0.9)
    compress(model)
    return model, model.table.to_dense().detach()  # type: ignore[union-attr,operator]


def stepping() -> dict[str, Callable[[], Any]]:
    model, dense = pruned()
    same = seeded()
    same.table.weight.data = dense

    def agree() -> None:
        batch = drawn(2, 1)[0]
        torch.testing.assert_close(loss(pruned()[0], batch), loss(same_as(dense), batch))

    return {"ours": plain(model), "peer": plain(same), "agree": agree}


def same_as(dense: Tensor) -> Machine:
    model = seeded()
    model.table.weight.data = dense.clone()
    return model


def reading(size: int) -> dict[str, Callable[[], Tensor]]:
    table: MixedDimEmbedding = pruned()[0].table  # type: ignore[assignment]
    ids = drawn(0, 1, size)[0][0][:, 0]
    values, columns, offsets = table.values.detach(), table.columns.long(), table.offsets

    def ours() -> Tensor:
        with torch.no_grad():
            return table(ids)  # type: ignore[no-any-return]

    def loop() -> Tensor:
        rows = torch.zeros(len(ids), DIMENSIONS)
        for place, i in enumerate(ids.tolist()):
            entries = slice(int(offsets[i]), int(offsets[i + 1]))
            rows[place, columns[entries]] = values[entries]
        return rows

    return {"ours": ours, "peer": loop, "agree": lambda: torch.testing.assert_close(ours(), loop())}


PLAIN = "an Adam step of the same model on nn.Embedding"
CASES = [
    Case("a search step of order 1, FM, 100,000 × 64, batch 4,096", partial(searching, 1), 2.2, PLAIN, work="less"),
    Case("the same of order 2", partial(searching, 2), 5.5, PLAIN, work="less"),
    Case("an Adam step of the FM with a table pruned to a tenth", stepping, 1.0, PLAIN),
    Case("reading 1,024 rows of the compressed table", partial(reading, 1_024), 0.2, "a loop over the rows"),
]


def cutting(features: int) -> Callable[[], Any]:
    weight = torch.randn(features, 16, generator=torch.Generator().manual_seed(0))

    def call() -> Any:
        table = nn.Sequential(nn.Embedding.from_pretrained(weight.clone(), freeze=False))
        make_searchable(table, {"0": torch.arange(features)})
        prune(table, sparsity=0.9)
        return compress(table)

    return call


GROWTH = [Growth("prune and compress, N features", "features N", 20_000, cutting, time=1.1, memory=1, step=2)]
