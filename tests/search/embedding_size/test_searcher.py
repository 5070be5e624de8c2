"""The search step by step against its definition, both orders of its gradient against autograd through the step, what a
step may touch, resuming to the last bit, and every promised error."""

import copy
import inspect
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.embedding_size import (
    EmbeddingSizeSearch,
    MixedDimEmbedding,
    SearchableEmbedding,
    make_searchable,
    prune,
    selection_parameters,
    weight_parameters,
)

TRAIN = torch.tensor([[0, 1], [2, 0], [5, 3], [0, 4]]), torch.tensor([1.0, -1.0, 0.5, 2.0])
VALID = torch.tensor([[1, 1], [0, 3]]), torch.tensor([0.5, -2.0])
COUNTS = torch.tensor([9, 7, 5, 3, 1, 0])  # blocks 0, 0, 1, 1, 2, 2
Batch = tuple[Tensor, Tensor]


class Machine(nn.Module):
    """A factorisation machine of two fields, with whatever between the table and the sum."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.table, self.bias = nn.Embedding(6, 4), nn.Embedding(6, 1)
        self.between = between or nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        e = self.between(self.table(ids))
        return (e.sum(1).square() - e.square().sum(1)).sum(1) / 2 + self.bias(ids).sum((1, 2))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1].to(next(model.parameters()).dtype))


def searched(between: nn.Module | None = None, *, lr: float = 0.1, **options: Any) -> EmbeddingSizeSearch:
    torch.manual_seed(0)
    model = make_searchable(Machine(between), {"table": COUNTS}, num_blocks=3).double()
    model.table.alpha.data.uniform_(0.3, 0.9)  # type: ignore[union-attr, operator]
    optimizer = options.pop("optimizer", None) or torch.optim.Adam(weight_parameters(model), lr)
    return EmbeddingSizeSearch(model, options.pop("loss", loss), optimizer, **options)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def followed(search: EmbeddingSizeSearch, rate: float) -> tuple[Tensor, Tensor]:
    """L_val after a step of gradient descent and its gradient in α, by autograd through the step."""
    model = search.model
    named = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    weights = [name for name in named if name != "table.alpha"]
    inner = torch.func.functional_call(model, named, (TRAIN[0],))
    slopes = torch.autograd.grad(F.mse_loss(inner, TRAIN[1].double()), [named[n] for n in weights], create_graph=True)
    moved = {n: named[n] - rate * g for n, g in zip(weights, slopes, strict=True)}
    outer = torch.func.functional_call(model, {**named, **moved}, (VALID[0],))
    value = F.mse_loss(outer, VALID[1].double())
    return value.detach(), torch.autograd.grad(value, named["table.alpha"])[0]


# ---- gradients ----


def test_the_first_order_is_a_central_difference() -> None:
    search = searched()
    (found,) = search.gradient(None, VALID)
    alpha, expected = search.model.table.alpha.data, torch.zeros(3, 4, dtype=torch.float64)
    for place in range(12):
        ends = []
        for move in (1e-5, -1e-5):
            alpha.flatten()[place] += move
            ends.append(loss(search.model, VALID).item())
            alpha.flatten()[place] -= move
        expected.flatten()[place] = (ends[0] - ends[1]) / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert (found[2] == 0).all()  # a block that is absent


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.0])
def test_the_second_order_goes_through_a_step(rate: float) -> None:
    search = searched(lr=rate, order=2)
    value, expected = followed(search, rate)
    (found,) = search.gradient(TRAIN, VALID)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * rate + 1e-12)
    (first,) = searched(lr=rate).gradient(TRAIN, VALID)
    assert torch.allclose(found, first, rtol=1e-9) == (rate == 0)
    assert search.architecture_step(VALID, TRAIN)["valid_loss"].item() == pytest.approx(value.item())


def test_frozen_weights_take_no_part_in_the_step() -> None:
    search = searched(lr=0.1, order=2)
    (every,) = search.gradient(TRAIN, VALID)
    held = searched(order=2, optimizer=None)
    held.weight_optimizer = torch.optim.SGD([held.model.bias.weight], 0.1)  # type: ignore[union-attr, list-item]
    (some,) = held.gradient(TRAIN, VALID)
    assert not torch.allclose(every, some)
    held.weight_step(TRAIN)
    assert torch.equal(held.model.table.weight, search.model.table.weight)
    assert held.model.table.weight.grad is None


class Masks(nn.Dropout):
    """A dropout that keeps what it gave of ones."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.seen: list[Tensor] = []

    def forward(self, input: Tensor) -> Tensor:
        drawn = super().forward(torch.ones_like(input))
        self.seen.append(drawn.detach())
        return input * drawn


def test_the_three_passes_over_the_training_batch_drop_the_same() -> None:
    between = Masks()
    search = searched(between, order=2)
    for _ in range(2):
        search.gradient(TRAIN, VALID)
    passes = [m for m in between.seen if len(m) == len(TRAIN[0])]
    assert len(passes) == 6
    assert all(torch.equal(passes[0], m) for m in passes[1:3])
    assert all(torch.equal(passes[3], m) for m in passes[4:])
    assert not torch.equal(passes[0], passes[3])  # in another step they are others


@pytest.mark.parametrize("order", [1, 2])
def test_a_gradient_leaves_everything_as_it_is(order: int) -> None:
    search = searched(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), order=order)
    model = search.model
    search.weight_step(TRAIN)
    before, gradients = snapshot(model), [p.grad for p in model.parameters()]
    kept = [None if g is None else g.clone() for g in gradients]
    modes, flags = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    with torch.no_grad():  # wherever it is called
        search.gradient(TRAIN, VALID)
    assert same(snapshot(model), before)
    assert model.between[0].num_batches_tracked == 1  # type: ignore[index, union-attr]
    for p, held, copied in zip(model.parameters(), gradients, kept, strict=True):
        assert p.grad is held
        assert held is None or torch.equal(held, copied)  # type: ignore[arg-type]
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags


# ---- steps ----


@pytest.mark.parametrize("order", [1, 2])
def test_a_step_on_alpha_is_normalised_by_block_and_clipped(order: int) -> None:
    search = searched(order=order, alpha_lr=0.3)
    before, weights = (
        search.model.table.alpha.detach().clone(),
        [p.detach().clone() for p in weight_parameters(search.model)],
    )
    (g,) = search.gradient(TRAIN, VALID)
    expected = torch.empty_like(g)
    for block in range(3):
        size = sum(abs(v) for v in g[block].tolist()) / 4
        expected[block] = torch.tensor(
            [v - 0.3 * s / (size + 1e-8) for v, s in zip(before[block], g[block], strict=True)]
        )
    found = search.architecture_step(VALID, TRAIN)
    assert list(found) == ["valid_loss"]
    assert not found["valid_loss"].requires_grad
    torch.testing.assert_close(search.model.table.alpha.data, expected.clamp(0, 1))
    assert (expected.clamp(0, 1) != expected).any()
    assert all(map(torch.equal, weight_parameters(search.model), weights))
    if order == 1:
        assert torch.equal(search.model.table.alpha[2], before[2])
        torch.testing.assert_close((expected - before)[:2].abs().mean(1), torch.full((2,), 0.3, dtype=torch.float64))


def test_a_step_on_weights_is_that_of_the_optimizer_alone() -> None:
    search, twin = searched(), copy.deepcopy(searched().model)
    optimizer = torch.optim.Adam(weight_parameters(twin), 0.1)
    alpha = search.model.table.alpha.detach().clone()
    for _ in range(3):
        found = search.weight_step(TRAIN)
        expected = loss(twin, TRAIN)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        assert list(found) == ["train_loss"]
        assert not found["train_loss"].requires_grad
        assert found["train_loss"].item() == expected.item()
    assert same(snapshot(search.model), snapshot(twin))
    assert search.model.table.alpha.grad is None
    assert torch.equal(search.model.table.alpha, alpha)


def test_a_step_moves_alpha_first() -> None:
    one, other = searched(), searched()
    found = one.step(TRAIN, VALID)
    expected = {**other.architecture_step(VALID, TRAIN), **other.weight_step(TRAIN)}
    assert found == expected
    assert same(snapshot(one.model), snapshot(other.model))
    late = searched()
    late.weight_step(TRAIN)
    late.architecture_step(VALID, TRAIN)
    assert not same(snapshot(late.model), snapshot(one.model))


def test_half_precision_keeps_absent_blocks() -> None:
    search = searched()
    search.model.bfloat16()
    before = search.model.table.alpha.detach().clone()
    search.architecture_step(VALID, None)
    assert search.model.table.alpha.isfinite().all()
    assert torch.equal(search.model.table.alpha[2], before[2])


def test_two_tables_are_searched_apart() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user, self.item = nn.Embedding(6, 3), nn.Embedding(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return (self.user(ids[:, 0]) * self.item(ids[:, 1].clamp_max(3))).sum(1)

    for order in (1, 2):
        torch.manual_seed(0)
        model = make_searchable(Product(), {"item": torch.arange(4), "user": COUNTS}, num_blocks=2)
        search = EmbeddingSizeSearch(model, loss, torch.optim.SGD(weight_parameters(model), 0.1), order=order)  # type: ignore[arg-type]
        shapes = [g.shape for g in search.gradient(TRAIN, VALID)]
        assert shapes == [p.shape for p in selection_parameters(model)]
        search.step(TRAIN, VALID)
        assert all((p < 1).any() for p in selection_parameters(model))
        unused = search.gradient(TRAIN, VALID)
        search._whole.loss = lambda m, b: m.user(b[0]).square().sum()  # the item's table takes no part
        if order == 1:
            found = search.gradient(TRAIN, VALID)
            assert (found[1] == 0).all()
            assert not (unused[1] == 0).all()


def test_the_search_finds_what_is_useless() -> None:
    """Frequent features follow two hidden dimensions and rare ones none: α of the others falls."""
    torch.manual_seed(0)
    truth = torch.randn(40, 2)
    truth[20:] = 0
    model = nn.Sequential(nn.Embedding(40, 4))
    make_searchable(model, {"0": torch.arange(40, 0, -1)}, num_blocks=2)
    draw = torch.Generator().manual_seed(1)

    def batch() -> Batch:
        ids = torch.randint(40, (256,), generator=draw)
        return ids, torch.cat([truth[ids], torch.zeros(256, 2)], 1) + 0.7 * torch.randn(256, 4, generator=draw)

    search = EmbeddingSizeSearch(model, loss, torch.optim.Adam(weight_parameters(model), 0.05))
    train, valid = batch(), batch()  # so few rows that noise is fitted, where α lets it
    for _ in range(120):
        search.step(train, valid)
    alpha = model[0].alpha.detach()
    assert alpha[0, :2].min() > 0.5
    assert alpha[0, 2:].max() < 0.2
    assert alpha[1].max() < 0.2


# ---- ends and beginnings ----


def test_the_discrete_model_is_a_copy_without_what_is_switched_off() -> None:
    search = searched()
    search.model.table.alpha.data[1, :3] = 0
    before, expected = snapshot(search.model), search.model(TRAIN[0]).detach()
    made = search.discretise()
    assert isinstance(made.table, MixedDimEmbedding)
    assert made.table.sizes().tolist() == [4, 4, 1, 1, 4, 4]
    torch.testing.assert_close(made(TRAIN[0]), expected)
    assert same(snapshot(search.model), before)
    assert isinstance(search.model.table, SearchableEmbedding)
    search.step(TRAIN, VALID)


@pytest.mark.parametrize("order", [1, 2])
def test_a_resumed_search_is_the_same_to_the_last_bit(order: int) -> None:
    whole = searched(order=order)
    losses = [whole.step(TRAIN, VALID) for _ in range(7)]
    first = searched(order=order)
    begun = [first.step(TRAIN, VALID) for _ in range(3)]
    state = first.state_dict()
    first.step(TRAIN, VALID)  # the state is a copy
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    second = searched(order=order)
    second.step(VALID, TRAIN)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert begun + [second.step(TRAIN, VALID) for _ in range(4)] == losses
    assert same(snapshot(second.model), snapshot(whole.model))
    assert set(state) == {"model", "weight_optimizer"}
    with pytest.raises(ValueError, match="state must be what state_dict returns, got one without weight_optimizer"):
        second.load_state_dict({"model": state["model"]})


def test_it_is_a_searcher() -> None:
    """The names and arguments that all searches of this area share."""
    search = searched()
    assert {"model", "weight_optimizer"} <= set(vars(search))
    arguments = {
        name: list(inspect.signature(getattr(search, name)).parameters)
        for name in ("weight_step", "architecture_step", "step", "discretise", "state_dict", "load_state_dict")
    }
    assert arguments == {
        "weight_step": ["train_batch"],
        "architecture_step": ["valid_batch", "train_batch"],
        "step": ["train_batch", "valid_batch"],
        "discretise": [],
        "state_dict": [],
        "load_state_dict": ["state"],
    }


# ---- refused ----


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha_lr": 0.0}, "alpha_lr must be positive and finite, got 0.0"),
        ({"alpha_lr": math.inf}, "alpha_lr must be positive and finite, got inf"),
        ({"alpha_lr": math.nan}, "alpha_lr must be positive and finite, got nan"),
        ({"order": 3}, "order must be 1 or 2, got 3"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)}, "hold parameters of the model, got none"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        searched(**options)


def test_models_that_cannot_be_searched() -> None:
    model = make_searchable(Machine(), {"table": COUNTS}, num_blocks=3)
    with pytest.raises(ValueError, match="weight_optimizer must not hold an alpha; give it weight_parameters"):
        EmbeddingSizeSearch(model, loss, torch.optim.Adam(model.parameters(), 0.1))
    plain = Machine()
    with pytest.raises(ValueError, match="model must hold a SearchableEmbedding, got one without"):
        EmbeddingSizeSearch(plain, loss, torch.optim.Adam(plain.parameters(), 0.1))
    prune(model, sparsity=0.5)
    with pytest.raises(ValueError, match="model must have an alpha to search, got one whose tables are pruned"):
        EmbeddingSizeSearch(model, loss, torch.optim.Adam(weight_parameters(model), 0.1))
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got int"):
        EmbeddingSizeSearch(3, loss, torch.optim.Adam(plain.parameters(), 0.1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda m, b: (m(b[0]) - b[1]).square(), ValueError, r"loss must return a scalar, got shape \(\d,\)"),
        (lambda m, b: m(b[0]).sum() * math.inf, ValueError, "loss must be finite, got -?(inf|nan)"),
        (lambda m, b: 3.0, TypeError, "the result of loss must be a tensor, got float"),
        (lambda m, b: torch.ones(()), ValueError, "must depend on"),
        (lambda m, b: (m(b[0]).sum() * 0).sqrt(), ValueError, "loss must (be|have a) finite"),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_losses_that_cannot_be_used(wrong: Any, error: type[Exception], match: str, order: int) -> None:
    search = searched(loss=wrong, order=order)
    before = snapshot(search.model)
    for step in (search.step, search.gradient):
        with pytest.raises(error, match=match):
            step(TRAIN, VALID)
    assert same(snapshot(search.model), before)


def test_a_pruned_model_is_not_searched_on() -> None:
    search = searched()
    prune(search.model, sparsity=0.5)
    with pytest.raises(ValueError, match="model was pruned, and its alphas are 1 now"):
        search.step(TRAIN, VALID)
    replaced = searched()
    replaced.model.load_state_dict(replaced.model.state_dict(), assign=True)
    with pytest.raises(ValueError, match="model has other parameters than those that are being trained"):
        replaced.step(TRAIN, VALID)
