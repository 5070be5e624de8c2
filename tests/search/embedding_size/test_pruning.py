"""One threshold over all tables against a plain sort; what is cut stays cut; and what is stored gives the same."""

import copy
import io
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from throughline.search.embedding_size import MixedDimEmbedding, SearchableEmbedding, compress, prune


def model(seed: int = 0, **options: Any) -> nn.ModuleList:
    """Two tables of different shapes, with entries of different size."""
    torch.manual_seed(seed)
    first = SearchableEmbedding(7, 5, blocks=torch.tensor([0, 1, 1, 0, 2, 2, 1]), **options)
    second = SearchableEmbedding(4, 3, blocks=torch.tensor([1, 1, 0, 0]))
    for table in (first, second):
        table.alpha.data.uniform_(0.1, 1)
    return nn.ModuleList([first, nn.Linear(2, 2), second])


def products(made: nn.ModuleList) -> list[Tensor]:
    return [made[i].product().detach().clone() for i in (0, 2)]


@pytest.mark.parametrize("sparsity", [0.0, 0.013, 0.3, 0.5, 0.75, 0.95, 0.999])
def test_exactly_the_largest_products_of_all_tables_are_kept(sparsity: float) -> None:
    made = model()
    before = products(made)
    entries = [(-abs(v), t, i) for t, e in enumerate(before) for i, v in enumerate(e.flatten().tolist())]
    kept = {(t, i) for _, t, i in sorted(entries)[: len(entries) - round(sparsity * len(entries))]}
    sizes = prune(made, sparsity=sparsity)
    for t, (place, size) in enumerate(zip((0, 2), sizes, strict=True)):
        table = made[place]
        expected = [
            [(t, r * table.embedding_dim + c) in kept for c in range(table.embedding_dim)] for r in range(len(size))
        ]
        assert table.mask.tolist() == expected
        assert size.tolist() == [sum(row) for row in expected]
        torch.testing.assert_close(table.weight.data, before[t] * table.mask, rtol=0, atol=0)
        assert (table.alpha == 1).all()
        assert not table.alpha.requires_grad
        assert torch.equal(table(torch.arange(len(size))), table.weight)


@settings(max_examples=40)
@given(st.lists(st.integers(-2, 2), min_size=6, max_size=6), st.integers(0, 5))
def test_of_equals_the_first_are_kept(values: list[int], cut: int) -> None:
    table = SearchableEmbedding(3, 2, blocks=torch.zeros(3, dtype=torch.int64))
    table.weight.data.copy_(torch.tensor(values).view(3, 2))
    prune(table, sparsity=cut / 6)
    order = sorted(range(6), key=lambda i: (-abs(values[i]), i))
    assert table.mask is not None
    assert table.mask.flatten().nonzero().flatten().tolist() == sorted(order[: 6 - cut])


def test_a_sparsity_that_leaves_nothing_of_a_small_table() -> None:
    made = nn.ModuleList([SearchableEmbedding(1, 2, blocks=torch.tensor([0]))])
    assert [s.tolist() for s in prune(made, sparsity=0.9)] == [[0]]
    assert (compress(made)[0](torch.tensor([0, 0])) == 0).all()


def test_neither_alpha_nor_weight_alone_decides() -> None:
    table = SearchableEmbedding(2, 2, blocks=torch.tensor([0, 1]))
    table.weight.data.copy_(torch.tensor([[10.0, 3.0], [1.0, 2.0]]))
    table.alpha.data.copy_(torch.tensor([[0.1, 0.2], [0.9, 1.0]]))  # products 1, 0.6, 0.9, 2
    prune(table, sparsity=0.5)
    assert table.mask is not None
    assert table.mask.tolist() == [[True, False], [False, True]]


def test_a_threshold() -> None:
    made = model()
    before = products(made)
    before_all = torch.cat([p.flatten() for p in before]).abs()
    level = before_all.median().item()
    sizes = prune(made, threshold=level)
    assert [s.tolist() for s in sizes] == [(p.abs() >= level).sum(1).tolist() for p in before]
    made = model()
    made[0].alpha.data[1, 2:] = 0
    assert [s.tolist() for s in prune(made, threshold=0.0)] == [[5, 2, 2, 5, 5, 5, 2], [3] * 4]


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_what_is_cut_stays_cut(optimizer: Any) -> None:
    made = model()
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    steps = optimizer(made.parameters(), 0.1, weight_decay=0.01, **options)
    ids = torch.arange(7)
    for stage in range(2):
        for _ in range(3):  # momentum from before reaches entries that are cut
            steps.zero_grad()
            (made[0](ids) - 1).square().sum().backward()
            steps.step()
        if stage == 0:
            prune(made, sparsity=0.5)
            mask = made[0].mask.clone()
            alpha = made[0].alpha.clone()
    assert ((made[0](ids) != 0) == mask).all()
    assert torch.equal(made[0].alpha, alpha)
    expected = made[0](ids).detach()
    assert torch.equal(compress(made)[0](ids), expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "sparsity or threshold must be given, and not both, got None and None"),
        ({"sparsity": 0.5, "threshold": 0.1}, "and not both, got 0.5 and 0.1"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, r"sparsity must be in \[0, 1\), got -0.1"),
        ({"sparsity": float("nan")}, r"sparsity must be in \[0, 1\), got nan"),
        ({"threshold": -1e-9}, "threshold must be finite and not negative, got -1e-09"),
        ({"threshold": float("inf")}, "threshold must be finite and not negative, got inf"),
    ],
)
def test_what_cannot_be_cut(options: dict[str, float], match: str) -> None:
    made = model()
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(ValueError, match=match):
        prune(made, **options)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), made.state_dict().values(), strict=True))


def test_models_that_cannot_be_cut() -> None:
    made = model()
    prune(made[0], sparsity=0.1)
    with pytest.raises(ValueError, match="model must not be pruned already"):
        prune(made, sparsity=0.5)
    broken = model()
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="model must have finite embeddings to be pruned"):
        prune(broken, sparsity=0.5)
    for call in (lambda m: prune(m, sparsity=0.5), compress):
        with pytest.raises(ValueError, match="model must hold a SearchableEmbedding, got one without"):
            call(nn.Linear(2, 2))  # type: ignore[no-untyped-call]
        with pytest.raises(TypeError, match=r"model must be an nn\.Module, got list"):
            call([])  # type: ignore[no-untyped-call]


# ---- compressed ----


@pytest.mark.parametrize("sparsity", [None, 0.0, 0.5, 0.9, 0.97])
def test_compressed_gives_the_same(sparsity: float | None) -> None:
    made = model()
    sizes = prune(made, sparsity=sparsity) if sparsity is not None else [torch.full((7,), 5), torch.full((4,), 3)]
    expected, shapes = (
        products(made),
        (torch.tensor([[0, 6, 6], [3, 1, 2]]), torch.tensor(4), torch.empty(0, dtype=int)),
    )
    rows = [made[0](ids).detach() for ids in shapes]
    assert compress(made) is made
    for place, size, want in zip((0, 2), sizes, expected, strict=True):
        table = made[place]
        assert isinstance(table, MixedDimEmbedding)
        assert torch.equal(table.to_dense(), want)
        assert torch.equal(table.sizes(), size)
        assert [name for name, _ in table.named_parameters()] == ["values"]
        assert len(table.values) == int(size.sum())
    for ids, row in zip(shapes, rows, strict=True):
        assert torch.equal(made[0](ids), row)
        assert torch.equal(made[0](ids.int()), row)


def test_a_table_in_two_places_stays_one() -> None:
    table = SearchableEmbedding(4, 3, blocks=torch.tensor([1, 1, 0, 0]))
    made = compress(nn.ModuleDict({"a": table, "b": nn.ModuleList([table])}))
    assert made["a"] is made["b"][0]  # type: ignore[index]
    assert isinstance(compress(table), MixedDimEmbedding)


def test_compressed_learns_on() -> None:
    """Its values follow the gradient of the dense table at the entries that are there; rows without any do not fail."""
    made = model()
    prune(made, sparsity=0.8)
    dense, mask = made[0].weight.detach().clone().requires_grad_(), made[0].mask
    table = compress(made)[0]
    ids = torch.tensor([0, 3, 3, 5, 1])
    weights = torch.randn(5, 5)
    (table(ids) * weights).sum().backward()
    (dense[ids] * weights).sum().backward()
    assert torch.equal(table.values.grad, dense.grad[mask])
    (table.to_dense() ** 2).sum().backward()
    empty = (table.sizes() == 0).nonzero().flatten()
    assert len(empty)
    out = table(empty)
    assert (out == 0).all()
    out.sum().backward()


def test_a_padding_row_has_no_entries() -> None:
    made = model(padding_idx=3)
    dense = made[0].product().detach()
    table = compress(made)[0]
    assert table.sizes().tolist() == [5, 5, 5, 0, 5, 5, 5]
    assert torch.equal(table.to_dense(), dense)


@pytest.mark.parametrize(("dim", "columns"), [(256, torch.uint8), (257, torch.int16), (40_000, torch.int32)])
def test_columns_take_the_smallest_type(dim: int, columns: torch.dtype) -> None:
    table = MixedDimEmbedding(torch.ones(2), torch.tensor([0, dim - 1]), torch.tensor([0, 2]), dim)
    assert (table.columns.dtype, table.offsets.dtype) == (columns, torch.int32)
    assert table(torch.tensor([0]))[0, [0, dim - 1]].tolist() == [1, 1]


def test_nine_tenths_cut_is_a_seventh_of_the_memory() -> None:
    table = SearchableEmbedding(2000, 64, blocks=torch.zeros(2000, dtype=torch.int64))
    prune(table, sparsity=0.9)
    made = compress(table)
    stored = sum(t.numel() * t.element_size() for t in itertools.chain(made.parameters(), made.buffers()))
    assert stored <= 0.15 * 4 * table.weight.numel()


def test_a_compressed_table_is_stored_and_restored() -> None:
    made = model()
    prune(made, sparsity=0.7)
    table = compress(made)[0]
    file = io.BytesIO()
    torch.save(table.state_dict(), file)
    file.seek(0)
    twin = MixedDimEmbedding(torch.zeros_like(table.values), table.columns, table.offsets, 5)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin.to_dense(), table.to_dense())


@pytest.mark.parametrize("outside", [3, -1])
def test_ids_outside_of_a_compressed_table(outside: int) -> None:
    table = MixedDimEmbedding(torch.ones(2), torch.tensor([0, 1]), torch.tensor([0, 1, 1, 2]), 2)
    with pytest.raises(IndexError):
        table(torch.tensor([0, outside]))
