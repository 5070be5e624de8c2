"""The table behind its selection layer, against nn.Embedding and a loop; and embeddings of a model turned into it."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.embedding_size import (
    SearchableEmbedding,
    compress,
    make_searchable,
    prune,
    selection_parameters,
    weight_parameters,
)

BLOCKS = torch.tensor([0, 2, 1, 2, 0, 1])


def table(**options: Any) -> SearchableEmbedding:
    torch.manual_seed(0)
    made = SearchableEmbedding(6, 4, blocks=BLOCKS, **options)
    made.alpha.data.uniform_(generator=torch.Generator().manual_seed(1))
    return made


def test_rows_are_scaled_by_their_block() -> None:
    made, ids = table(), torch.tensor([[0, 5, 5], [3, 1, 2]])
    for place, i in zip(made(ids).flatten(0, 1), ids.flatten(), strict=True):
        torch.testing.assert_close(place, made.alpha[BLOCKS[i]] * made.weight[i], rtol=0, atol=0)
    torch.testing.assert_close(made(ids), made.product()[ids], rtol=0, atol=0)
    assert made(ids[0, 1]).shape == (4,)
    assert made(ids[:0]).shape == (0, 3, 4)


def test_it_starts_as_an_embedding() -> None:
    torch.manual_seed(0)
    made = SearchableEmbedding(600, 40, blocks=torch.zeros(600, dtype=torch.int32), padding_idx=-1)
    assert made.padding_idx == 599
    assert (made.alpha == 1).all()
    assert made.alpha.shape == (1, 40)
    assert made.weight.std().item() == pytest.approx((2 / 640) ** 0.5, rel=0.05)  # Xavier
    assert (made.weight[599] == 0).all()
    ids = torch.tensor([599, 3, 599])
    assert torch.equal(made(ids), F.embedding(ids, made.weight))


def test_a_padding_row_does_not_learn() -> None:
    made = table(padding_idx=2)
    made(torch.tensor([2, 2, 1])).sum().backward()
    assert made.weight.grad is not None
    assert (made.weight.grad[2] == 0).all()
    assert (made.weight.grad[1] != 0).all()


@pytest.mark.parametrize("outside", [6, -1])
def test_ids_outside_raise_as_those_of_an_embedding(outside: int) -> None:
    for stage in (lambda t: t, lambda t: (prune(t, sparsity=0.5), t)[1], compress):
        with pytest.raises(IndexError):
            stage(table())(torch.tensor([0, outside]))  # type: ignore[no-untyped-call]
    with pytest.raises(IndexError):
        nn.Embedding(6, 4)(torch.tensor([0, outside]))


def test_short_ids_are_ids_and_bytes_no_mask() -> None:
    made, ids = table(), torch.tensor([1, 0, 5])
    assert torch.equal(made(ids.int()), made(ids))
    for dtype in (torch.uint8, torch.bool, torch.float32):
        with pytest.raises(TypeError, match="ids must be int64 or int32, got torch"):
            made(ids.to(dtype))


def test_what_it_says_of_itself() -> None:
    made = table(padding_idx=1)
    assert repr(made) == "SearchableEmbedding(6, 4, num_blocks=3, padding_idx=1)"
    prune(made, sparsity=0.5)
    assert repr(made).endswith("padding_idx=1, pruned)")


@pytest.mark.parametrize("way", ["onto a fresh table", "back"])
def test_a_state_says_whether_a_table_is_pruned(way: str) -> None:
    plain, pruned = table(), table()
    prune(pruned, sparsity=0.4)
    source, target = (pruned, table()) if way == "onto a fresh table" else (plain, copy.deepcopy(pruned))
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.product(), source.product())
    assert (target.mask is None) == (source.mask is None)
    assert target.alpha.requires_grad == (source.mask is None)
    target.load_state_dict({}, strict=False)  # nothing is said, and nothing changes
    assert (target.mask is None) == (source.mask is None)


# ---- embeddings of a model ----


class Twin(nn.Module):
    """Two tables, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Embedding(6, 4, padding_idx=0)
        self.item = nn.Embedding(3, 4, dtype=torch.float64)
        self.again = self.user
        self.tower = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Embedding(2, 4))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.user(user) * self.item(item) + self.tower[0](self.again(user))).sum(-1)


COUNTS = {"user": torch.tensor([1, 9, 3, 5, 0, 2]), "item": torch.tensor([4.0, 2.0, 7.0])}
IDS = torch.tensor([0, 1, 5]), torch.tensor([2, 0, 1])


def test_the_model_says_what_it_said() -> None:
    model = Twin().eval()
    weights, expected = [model.user.weight, model.item.weight], model(*IDS)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    assert make_searchable(model, COUNTS, num_blocks=2) is model
    assert torch.equal(model(*IDS), expected)
    user, item = model.user, model.item
    assert isinstance(user, SearchableEmbedding)
    assert isinstance(item, SearchableEmbedding)
    assert user is model.again
    assert [user.weight, item.weight][0] is weights[0]
    assert item.weight is weights[1]
    assert user.padding_idx == 0
    assert item.alpha.dtype == torch.float64
    assert not user.training
    assert user.blocks.tolist() == [1, 0, 0, 0, 1, 1]
    assert item.blocks.tolist() == [1, 1, 0]
    assert type(model.tower[1]) is nn.Embedding
    model(*IDS).sum().backward()
    optimizer.step()
    assert not torch.equal(model(*IDS), expected)


def test_parameters_are_parted() -> None:
    model = make_searchable(Twin(), COUNTS, num_blocks=2)
    alphas, weights = selection_parameters(model), weight_parameters(model)
    assert [id(p) for p in alphas] == [id(model.user.alpha), id(model.item.alpha)]
    assert {id(p) for p in alphas + weights} == {id(p) for p in model.parameters()}
    assert len(alphas) + len(weights) == len(list(model.parameters()))
    prune(model, sparsity=0.5)
    assert selection_parameters(model) == []
    assert [id(p) for p in weight_parameters(model)] == [id(p) for p in weights]


def test_a_model_that_is_an_embedding() -> None:
    plain = nn.Embedding(4, 2)
    made = make_searchable(plain, {"": torch.arange(4)}, num_blocks=2)
    assert isinstance(made, SearchableEmbedding)
    assert made.weight is plain.weight


def test_the_default_is_ten_blocks() -> None:
    made = make_searchable(nn.Embedding(25, 2), {"": torch.arange(25)})
    assert len(made.alpha) == 10


def shared() -> Twin:
    model = Twin()
    model.out = nn.Linear(4, 6, bias=False)
    model.out.weight = model.user.weight
    return model


def hooked() -> Twin:
    model = Twin()
    model.user.register_forward_hook(lambda *_: None)
    return model


class Scaled(nn.Embedding):
    """An embedding of somebody else's, with a forward of its own."""


def other(embedding: nn.Embedding) -> Twin:
    model = Twin()
    model.user = model.again = embedding
    return model


@pytest.mark.parametrize(
    ("model", "counts", "match"),
    [
        (Twin(), {}, "counts must name at least one embedding"),
        (
            Twin(),
            {"usr": COUNTS["user"]},
            r"nn.Embeddings of the model \('user', 'item', 'again', 'tower.1'\), got 'usr'",
        ),
        (Twin(), {"tower.0": COUNTS["user"]}, r"counts must name nn.Embeddings of the model .*, got 'tower.0'"),
        (nn.Linear(2, 2), {"user": COUNTS["user"]}, r"of the model \(none\), got 'user'"),
        (make_searchable(Twin(), COUNTS, num_blocks=2), {"user": COUNTS["user"]}, "got 'user'"),
        (other(Scaled(6, 4)), {"user": COUNTS["user"]}, "got 'user'"),
        (Twin(), {"user": COUNTS["user"], "again": COUNTS["user"]}, "and 'again' is one that was named before"),
        (Twin(), {"user": COUNTS["item"]}, r"counts\['user'\] must have 6 entries, .* got 3"),
        (Twin(), {"user": COUNTS["user"][None]}, r"counts\['user'\] must be 1-d"),
        (Twin(), {"user": -COUNTS["user"]}, r"counts\['user'\] must be finite and not negative, got -1"),
        (Twin(), {"item": COUNTS["item"]}, "num_blocks must be from 1 to the 3 entries of counts, got 4"),
        (other(nn.Embedding(6, 4, max_norm=1.0)), COUNTS, "without max_norm .* got 'user' with max_norm=1.0"),
        (other(nn.Embedding(6, 4, sparse=True)), COUNTS, "without sparse .* got 'user' with sparse=True"),
        (other(nn.Embedding(6, 4, scale_grad_by_freq=True)), COUNTS, "without scale_grad_by_freq"),
        (shared(), COUNTS, "got 'user', which shares it with 'out': pruning one would change the other"),
        (hooked(), COUNTS, "must be without hooks to be searched, got 'user'"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_left_alone(model: nn.Module, counts: Any, match: str) -> None:
    before = [id(m) for m in model.modules()]
    with pytest.raises(ValueError, match=match):
        make_searchable(model, counts, num_blocks=4)
    assert [id(m) for m in model.modules()] == before


def test_no_model_is_refused() -> None:
    for call in (lambda m: make_searchable(m, COUNTS), selection_parameters, weight_parameters):
        with pytest.raises(TypeError, match=r"model must be an nn\.Module, got int"):
            call(3)  # type: ignore[no-untyped-call]
