"""Speed bars of searched embedding sizes: plain steps of the same factorisation machine on ``nn.Embedding``, and rows
put together one by one. No package on PyPI has the search; the authors' repository (github.com/Viperccc/AutoSrh) is a
training script.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.embedding_size import (
    EmbeddingSizeSearch,
    MixedDimEmbedding,
    SearchableEmbedding,
    compress,
    make_searchable,
    prune,
    weight_parameters,
)

N, K, B = 100_000, 64, 4_096
TORCH = f"torch {torch.__version__}"
Batch = tuple[Tensor, Tensor]
Calls = dict[str, Callable[[], Any]]


class Machine(nn.Module):
    """A factorisation machine of two fields."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.bias = table, nn.Embedding(N, 1)
        nn.init.zeros_(self.bias.weight)

    def forward(self, ids: Tensor) -> Tensor:
        e = self.table(ids)
        score: Tensor = self.bias(ids).sum((1, 2)) + 0.5 * (e.sum(1).square() - e.square().sum(1)).mean(1)
        return score


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def drawn(seed: int) -> Batch:
    """A batch in which low ids are more frequent."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(B, 2, generator=draw) ** 3 * N).long(), torch.randn(B, generator=draw)


def searchable(table: nn.Embedding) -> nn.Module:
    return make_searchable(Machine(table), {"table": torch.arange(N, 0, -1)})


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    value = loss(model, batch)
    optimizer.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def stepping(order: Literal[1, 2]) -> Calls:
    """A step of the search, and a step of training without one."""
    torch.manual_seed(0)
    table = nn.Embedding(N, K)
    ours, theirs = searchable(copy.deepcopy(table)), Machine(table)
    search = EmbeddingSizeSearch(ours, loss, torch.optim.Adam(weight_parameters(ours), 1e-3), order=order)
    optimizer, train, valid = torch.optim.Adam(theirs.parameters(), 1e-3), drawn(1), drawn(2)

    def agree() -> None:  # before α has moved, the weights do as they would without it
        found, expected = search.weight_step(train)["train_loss"], plain_step(theirs, optimizer, train)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(ours.table.weight, theirs.table.weight)  # type: ignore[union-attr]

    return {
        "ours": lambda: search.step(train, valid),
        "peer": lambda: plain_step(theirs, optimizer, train),
        "agree": agree,
    }


def after_pruning() -> Calls:
    """A step of training at a tenth of the table, and with all of it."""
    torch.manual_seed(0)
    ours = searchable(nn.Embedding(N, K))
    prune(ours, sparsity=0.9)
    table = nn.Embedding.from_pretrained(ours.table.weight.detach().clone(), freeze=False)  # type: ignore[union-attr, operator, arg-type]
    compress(ours)
    theirs, batch = Machine(table), drawn(1)
    optimizers = [torch.optim.Adam(model.parameters(), 1e-3) for model in (ours, theirs)]

    def agree() -> None:
        torch.testing.assert_close(ours(batch[0]), theirs(batch[0]))

    return {
        "ours": lambda: plain_step(ours, optimizers[0], batch),
        "peer": lambda: plain_step(theirs, optimizers[1], batch),
        "agree": agree,
    }


def looking_up(rows: int) -> Calls:
    """Rows of a compressed table at once, and one after the other."""
    torch.manual_seed(0)
    table = SearchableEmbedding(N, K, blocks=torch.zeros(N, dtype=torch.int64))
    prune(table, sparsity=0.9)
    made, ids = compress(table), drawn(1)[0][:rows, 0]
    assert isinstance(made, MixedDimEmbedding)
    values, columns, offsets = made.values.detach(), made.columns.long(), made.offsets.tolist()

    def loop() -> Tensor:
        out = torch.zeros(len(ids), K)
        for place, i in enumerate(ids.tolist()):
            begin, end = offsets[i], offsets[i + 1]
            out[place, columns[begin:end]] = values[begin:end]
        return out

    def ours() -> Tensor:
        with torch.no_grad():
            return made(ids)  # type: ignore[no-any-return]

    return {"ours": ours, "peer": loop, "agree": lambda: torch.testing.assert_close(ours(), loop(), rtol=0, atol=0)}


def cutting(sparsity: float) -> Calls:
    """A copy of a table cut at a joint threshold, and one cut by sorting all of its entries."""
    torch.manual_seed(0)
    table = SearchableEmbedding(N, K, blocks=torch.arange(N) // (N // 10))
    table.alpha.data.uniform_()

    def ours() -> Tensor:
        made = copy.deepcopy(table)
        prune(made, sparsity=sparsity)
        return made.weight.detach()

    def peer() -> Tensor:
        made = copy.deepcopy(table)
        product = made.product().detach()
        order = product.abs().flatten().argsort(descending=True, stable=True)
        kept = torch.zeros(N * K, dtype=torch.bool)
        kept[order[: N * K - round(sparsity * N * K)]] = True
        return product * kept.view(N, K)

    return {"ours": ours, "peer": peer, "agree": lambda: torch.testing.assert_close(ours(), peer(), rtol=0, atol=0)}


STEP_BYTES = 4.0 * 7 * N * K  # Adam reads a weight, its gradient and two moments, and writes all but the gradient
CASES = [
    Case(
        "EmbeddingSizeSearch.step, order 1, 100,000 × 64, batch 4,096",
        partial(stepping, 1),
        2.2,
        f"Adam on nn.Embedding, {TORCH}",
        work="less",
        bytes=STEP_BYTES,
    ),
    Case(
        "EmbeddingSizeSearch.step, order 2, 100,000 × 64, batch 4,096",
        partial(stepping, 2),
        5.5,
        f"Adam on nn.Embedding, {TORCH}",
        work="less",
        bytes=STEP_BYTES,
    ),
    Case(
        "Adam on MixedDimEmbedding, a tenth of 100,000 × 64, batch 4,096",
        after_pruning,
        1.0,
        f"Adam on nn.Embedding, {TORCH}",
        work="other",
        bytes=STEP_BYTES / 10,
    ),
    Case(
        "MixedDimEmbedding, a tenth of 100,000 × 64, 1,024 rows, forward",
        partial(looking_up, 1_024),
        0.2,
        "a loop over rows",
        bytes=4.0 * 1_024 * K,
    ),
    Case(
        "prune and copy, 100,000 × 64, nine tenths", partial(cutting, 0.9), 0.7, f"a sort, {TORCH}", bytes=12.0 * N * K
    ),
]


def following(features: int) -> Callable[[], Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(features, K))
    make_searchable(model, {"0": torch.arange(features)})
    search = EmbeddingSizeSearch(
        model, lambda model, ids: model(ids).square().mean(), torch.optim.SGD(weight_parameters(model), 0.1)
    )
    ids = torch.randint(features, (B,))
    return lambda: search.gradient(ids, ids)


def spreading(rows: int) -> Callable[[], Any]:
    table = SearchableEmbedding(10_000, K, blocks=torch.zeros(10_000, dtype=torch.int64))
    prune(table, sparsity=0.9)
    made, ids = compress(table), torch.randint(10_000, (rows,))
    return lambda: torch.autograd.grad(made(ids).square().sum(), list(made.parameters()))


def cut(features: int) -> Callable[[], Any]:
    table = SearchableEmbedding(features, K, blocks=torch.zeros(features, dtype=torch.int64))
    return lambda: prune(copy.deepcopy(table), sparsity=0.5)


GROWTH = [
    Growth("gradient of α, 4,096 rows of 64 dimensions", "features N", 4_096, following, time=0, memory=0),
    Growth(
        "MixedDimEmbedding, a tenth of 10,000 × 64, forward and backward", "rows", 4_096, spreading, time=1, memory=1
    ),
    Growth("prune, 64 dimensions", "features N", 1_024, cut, time=1, memory=1),
]
