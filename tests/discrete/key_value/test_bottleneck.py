"""The key-value bottleneck against brute force, SciPy's k-d tree and the recursion in plain NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck, nearest


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.randn(300, 12, generator=seeded(0), dtype=torch.float64)


def made(*, fit: bool = True, **options: Any) -> KeyValueBottleneck:
    sizes = {"num_codebooks": 5, "num_pairs": 16, "dim_key": 3, "generator": seeded(1)}
    bottleneck = KeyValueBottleneck(12, 4, **{**sizes, **options}).double()
    return bottleneck.fit_keys(X.split(100), epochs=3, generator=seeded(2)) if fit else bottleneck


def brute_force(h: Tensor, keys: Tensor) -> Tensor:
    """All squared distances, ``(n, C, K)``, through the table of differences that the part avoids."""
    return (h[:, :, None] - keys).square().sum(-1)


def test_heads_are_normalised_projections_of_their_own() -> None:
    bottleneck = made()
    assert bottleneck.projection is not None
    assert bottleneck.projection.shape == (5, 12, 3)
    torch.testing.assert_close(bottleneck.projection.norm(dim=1), torch.ones(5, 3).double())  # over the inputs
    flat = bottleneck.projection.transpose(1, 2).flatten(0, 1)
    assert torch.linalg.matrix_rank(flat) == 12  # no two codebooks share one
    by_hand = torch.stack([X @ projection for projection in bottleneck.projection], 1)
    torch.testing.assert_close(bottleneck.heads(X), by_hand)


def test_without_projection_heads_are_pieces() -> None:
    bottleneck = made(projection="none", num_codebooks=4)
    assert bottleneck.projection is None
    assert bottleneck.heads(X).equal(torch.stack(X.split(3, -1), 1))
    assert list(bottleneck.state_dict()) == ["values", "keys", "key_sum", "key_count", "usage", "initialized"]


@pytest.mark.parametrize("topk", [1, 4, 16])
@pytest.mark.parametrize("projection", ["random", "none"])
def test_looks_up_what_a_k_d_tree_finds(topk: int, projection: str) -> None:
    bottleneck = made(topk=topk, projection=projection, num_codebooks=4)
    found, heads = bottleneck.lookup(X), bottleneck.heads(X)
    assert found.shape == (300, 4, topk)
    assert found.dtype == torch.int64
    for c in range(4):
        nearest = KDTree(bottleneck.keys[c].numpy()).query(heads[:, c].numpy(), k=[*range(1, topk + 1)])[1]
        assert np.array_equal(found[:, c].numpy(), nearest)  # nearest first


@pytest.mark.parametrize("pairs", [5, 16, 64])
def test_of_tied_keys_one_is_taken_and_of_equal_scores_the_first(pairs: int) -> None:
    bottleneck, few = made(num_pairs=pairs, fit=False), made(num_pairs=5, fit=False)
    few.keys.copy_(torch.randn(5, 5, 3, generator=seeded(1)))
    bottleneck.keys.copy_(few.keys[:, torch.arange(pairs) % 5])  # each several times
    for one in (bottleneck, few):
        one.initialized.fill_(True)
    # which of equal keys is nearest, rounding in the product decides on some processors
    assert (bottleneck.lookup(X) % 5).equal(few.lookup(X))
    scores = torch.randint(3, (4, 20, pairs), generator=seeded(2)).float()
    best, place = nearest.place_of_largest(scores)
    assert place.equal(torch.from_numpy(scores.numpy().argmax(-1))[..., None])
    assert best.equal(scores.amax(-1, keepdim=True))
    bottleneck.keys.zero_()
    assert not bottleneck.lookup(X).any()


@pytest.mark.parametrize("at_once", [1, 40, 700, 10_000])
def test_scores_are_made_in_blocks(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bottleneck, sizes, product = made(), [], torch.bmm
    whole = {topk: brute_force(bottleneck.heads(X), bottleneck.keys).argsort(-1)[..., :topk] for topk in (1, 3)}

    def watched(*args: Tensor) -> Tensor:
        sizes.append((scores := product(*args)).numel())
        return scores

    monkeypatch.setattr(nearest, "CACHED", at_once)
    monkeypatch.setattr(torch, "bmm", watched)
    for topk, expected in whole.items():
        bottleneck.topk = topk
        assert bottleneck.lookup(X).equal(expected)
    assert max(sizes) <= max(at_once, 16)  # one row of one codebook at the least
    assert len(sizes) == 2 * {1: 1500, 40: 750, 700: 35, 10_000: 3}[at_once]


def test_a_common_offset_costs_no_digits() -> None:
    far = (X + 3_000).float()
    bottleneck = KeyValueBottleneck(12, 2, num_codebooks=4, num_pairs=16, dim_key=3, projection="none")
    bottleneck.fit_keys(far.split(100), epochs=2, generator=seeded(0))
    distances = brute_force(bottleneck.heads(far).double(), bottleneck.keys.double())
    chosen = distances.gather(-1, bottleneck.lookup(far)).squeeze(-1)
    assert (chosen - distances.amin(-1)).max() < 1e-4  # ‖h‖² is 3e7 here, and float32 has seven digits


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 17), st.integers(1, 4), st.floats(-50, 50), st.integers(0, 10**6))
def test_no_key_is_nearer_wherever_the_origin_is(books: int, pairs: int, width: int, shift: float, seed: int) -> None:
    draw = seeded(seed)
    x = torch.randn(7, books * width, generator=draw, dtype=torch.float64)
    bottleneck = KeyValueBottleneck(
        books * width, 2, num_codebooks=books, num_pairs=pairs, dim_key=width, projection="none"
    ).double()
    bottleneck.keys.copy_(torch.randn(books, pairs, width, generator=draw))
    bottleneck.initialized.fill_(True)  # set by hand
    found = bottleneck.lookup(x)
    distances = brute_force(bottleneck.heads(x), bottleneck.keys)
    assert (distances.gather(-1, found).squeeze(-1) <= distances.amin(-1) + 1e-12).all()
    bottleneck.keys.add_(shift)
    assert bottleneck.lookup(x + shift).equal(found)


def test_fetches_values_and_only_they_get_a_gradient() -> None:
    bottleneck = made()
    bottleneck.values.data.normal_(generator=seeded(3))
    x = X[:20].clone().requires_grad_()
    fetched = bottleneck(x)
    where = bottleneck.lookup(X[:20]).squeeze(-1)
    by_hand = torch.stack([torch.stack([bottleneck.values[c, j] for c, j in enumerate(row)]) for row in where])
    assert fetched.equal(by_hand)
    logits = CodebookVote()(fetched)
    torch.testing.assert_close(logits, by_hand.mean(1))
    logits[0].sum().backward()
    expected = torch.zeros_like(bottleneck.values)
    expected[torch.arange(5), where[0]] = 1 / 5
    torch.testing.assert_close(bottleneck.values.grad, expected)
    assert x.grad is None
    assert [name for name, _ in bottleneck.named_parameters()] == ["values"]


def test_top_k_is_the_plain_mean_of_the_nearest() -> None:
    bottleneck = made(topk=3)
    bottleneck.values.data.normal_(generator=seeded(3))
    nearest = brute_force(bottleneck.heads(X), bottleneck.keys).argsort(-1)[..., :3]
    expected = torch.stack([bottleneck.values[c][nearest[:, c]].mean(1) for c in range(5)], 1)
    torch.testing.assert_close(bottleneck(X), expected)
    everything = made(topk=16)
    everything.values.data.normal_(generator=seeded(3))
    torch.testing.assert_close(everything(X), everything.values.mean(1).expand(300, -1, -1))


def recursion(h: NDArray[Any], states: tuple[NDArray[Any], ...], decay: float, eps: float) -> tuple[NDArray[Any], ...]:
    """One step for one codebook, from the formulas."""
    keys, sums, count = states
    nearest = ((h[:, None] - keys) ** 2).sum(-1).argmin(1)
    for j in range(len(keys)):
        count[j] = decay * count[j] + (1 - decay) * (nearest == j).sum()
        sums[j] = decay * sums[j] + (1 - decay) * h[nearest == j].sum(0)
    smooth = (count + eps) / (count.sum() + len(keys) * eps) * count.sum()
    return sums / smooth[:, None], sums, count


def test_keys_follow_the_recursion() -> None:
    bottleneck = made(fit=False, decay=0.8, eps=1e-3, dead_threshold=0.0)
    bottleneck.update_keys(X[:50], generator=seeded(5))
    states = [
        tuple(state[c].numpy().copy() for state in (bottleneck.keys, bottleneck.key_sum, bottleneck.key_count))
        for c in range(5)
    ]
    for batch in X[50:].split(70):
        bottleneck.update_keys(batch)
        heads = bottleneck.heads(batch).numpy()
        states = [recursion(heads[:, c], state, 0.8, 1e-3) for c, state in enumerate(states)]
    for place, stored in enumerate((bottleneck.keys, bottleneck.key_sum, bottleneck.key_count)):
        np.testing.assert_allclose(stored.numpy(), np.stack([state[place] for state in states]), rtol=1e-10)


def test_the_first_batch_gives_the_keys_and_then_moves_them() -> None:
    bottleneck = made(fit=False, dead_threshold=0.0)
    batch, draw = X[:6], seeded(5)  # fewer rows than pairs
    chosen = torch.randint(6, (5, 16), generator=seeded(5))
    bottleneck.update_keys(batch, generator=draw)
    heads = bottleneck.heads(batch)
    for c in range(5):
        drawn = heads[chosen[c], c].numpy()
        keys, sums, count = recursion(heads[:, c].numpy(), (drawn, drawn.copy(), np.ones(16)), 0.95, 1e-5)
        np.testing.assert_allclose(bottleneck.keys[c].numpy(), keys, rtol=1e-10)
        np.testing.assert_allclose(bottleneck.key_sum[c].numpy(), sums, rtol=1e-10)
        np.testing.assert_allclose(bottleneck.key_count[c].numpy(), count, rtol=1e-10)
    assert bottleneck.initialized


def test_keys_stay_in_the_data_and_are_used() -> None:
    """Averages that start at count 0 with a sum that is not throw the keys away; they never come back."""
    x = torch.randn(4_000, 12, generator=seeded(7)) * 5 + 40
    bottleneck = KeyValueBottleneck(12, 2, num_codebooks=8, num_pairs=64, dim_key=3, generator=seeded(8))
    for epochs in (1, 4):
        bottleneck.fit_keys(x.split(250), epochs=epochs, generator=seeded(9))
        heads = bottleneck.heads(x)
        assert (bottleneck.keys >= heads.amin(0)[:, None]).all()
        assert (bottleneck.keys <= heads.amax(0)[:, None]).all()
        used = torch.stack([found.unique().numel() / torch.tensor(64) for found in bottleneck.lookup(x).squeeze(-1).T])
        assert used.min() > 0.95
    quantised = bottleneck.keys[torch.arange(8), bottleneck.lookup(x).squeeze(-1)]
    assert (heads - quantised).square().sum() < 0.2 * (heads - heads.mean(0)).square().sum()


def test_dead_pairs_start_anew_from_the_batch() -> None:
    bottleneck = made(dead_threshold=0.5)
    bottleneck.keys[:, 0] = 1e3  # nobody comes near
    bottleneck.key_count[:, 0], bottleneck.key_sum[:, 0] = 1e-9, 1e-6
    before = bottleneck.values.clone(), bottleneck.usage.clone()
    bottleneck.update_keys(X[:64], generator=seeded(3))
    least = 0.5 * 64 / 16
    heads = bottleneck.heads(X[:64])
    assert (bottleneck.key_count >= least).all()
    assert (bottleneck.key_count[:, 0] == least).all()
    for c in range(5):
        assert (heads[:, c] == bottleneck.keys[c, 0]).all(-1).any()  # one of the head vectors
    torch.testing.assert_close(bottleneck.key_sum[:, 0], least * bottleneck.keys[:, 0])
    placed = bottleneck.keys[:, 0].clone()
    bottleneck.update_keys(X[:64], generator=seeded(4))
    moved = (bottleneck.keys[:, 0] - placed).norm(dim=-1)
    assert (moved < (heads - heads.mean(0)).norm(dim=-1).amax(0)).all()  # not overwritten from stale averages
    assert bottleneck.values.equal(before[0])
    assert bottleneck.usage.equal(before[1])


def test_training_moves_no_key_and_only_fetched_values() -> None:
    bottleneck = made()
    model = nn.Sequential(bottleneck, CodebookVote()).train()
    state = {name: tensor.clone() for name, tensor in bottleneck.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(4):
        loss = F.cross_entropy(model(X[:30]), torch.arange(30) % 4, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fetched = torch.zeros(5, 16, dtype=torch.bool)
    fetched[torch.arange(5), bottleneck.lookup(X[:30]).squeeze(-1)] = True
    assert bottleneck.values[fetched].abs().sum(-1).min() > 0
    assert not bottleneck.values[~fetched].any()
    for name in ("projection", "keys", "key_sum", "key_count", "initialized"):
        assert bottleneck.state_dict()[name].equal(state[name]), name


def test_usage_counts_fetches_in_training_only() -> None:
    bottleneck = made(topk=2)
    found = bottleneck.lookup(X)
    bottleneck.eval()(X)
    assert not bottleneck.usage.any()
    bottleneck.train()
    for part in X.view(30, 10, 12).split(7):
        bottleneck(part)
    expected = torch.stack([found[:, c].flatten().bincount(minlength=16) for c in range(5)])
    assert bottleneck.usage.equal(expected.double())


def test_other_regions_predict_as_before() -> None:
    """What the paper is about: new data touch only the keys that they hit."""
    offset = 20 * torch.eye(12, dtype=torch.float64)[0]
    here, there = X[:150] - offset, X[150:] + offset
    bottleneck = made(fit=False, num_pairs=64, projection="none", num_codebooks=1, dim_key=12)
    bottleneck.fit_keys(torch.cat([here, there]).split(300), generator=seeded(0))
    model = nn.Sequential(bottleneck, CodebookVote())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def train(x: Tensor, label: int) -> None:
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), torch.full((len(x),), label)).backward()
            optimizer.step()

    train(here, 0)
    before = model(here)
    train(there, 1)
    assert model(here).equal(before)
    assert (model(here).argmax(1) == 0).all()
    assert (model(there).argmax(1) == 1).all()


def test_fits_from_whatever_yields_batches() -> None:
    plain, loader, once = (made(fit=False) for _ in range(3))
    plain.fit_keys(X.split(100), epochs=3, generator=seeded(2))
    loader.fit_keys(DataLoader(TensorDataset(X, torch.zeros(300)), batch_size=100), epochs=3, generator=seeded(2))
    draw = seeded(2)
    for _ in range(3):
        once.fit_keys((part for part in X.view(10, 30, 12).flatten(0, 1).split(100)), epochs=1, generator=draw)
    assert plain.keys.equal(loader.keys)
    assert plain.keys.equal(once.keys)
    assert plain.keys.equal(made().keys)
    assert not plain.keys.equal(made(fit=False).fit_keys(X.split(100), epochs=3, generator=seeded(3)).keys)


def test_a_loaded_state_goes_on_where_it_was() -> None:
    first = made()
    second = made(fit=False, generator=seeded(9))
    second.load_state_dict(first.state_dict())
    assert torch.compile(second.lookup, backend="eager", fullgraph=True)(X).equal(first.lookup(X))
    assert second.lookup(X).equal(first.lookup(X))
    first.update_keys(X[:80], generator=seeded(4))
    second.update_keys(X[:80], generator=seeded(4))
    assert second.keys.equal(first.keys)


def test_a_rejected_batch_leaves_everything() -> None:
    bottleneck = made()
    state = {name: tensor.clone() for name, tensor in bottleneck.state_dict().items()}
    for bad in (X[:3].clone().index_fill_(1, torch.tensor([2]), torch.nan), X[:, :5], X[:0]):
        with pytest.raises(ValueError, match=r"^x must"):
            bottleneck.update_keys(bad)
    assert all(bottleneck.state_dict()[name].equal(tensor) for name, tensor in state.items())


def test_updates_leave_no_graph() -> None:
    x = X[:50].clone().requires_grad_()
    bottleneck = made(fit=False).update_keys(x * 2, generator=seeded(0))
    states = (bottleneck.keys, bottleneck.key_sum, bottleneck.key_count)
    assert not any(state.requires_grad or state.grad_fn for state in states)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_finds_the_same_keys(dtype: torch.dtype) -> None:
    bottleneck = made(num_pairs=200).to(dtype)
    x = X.to(dtype)
    expected = made(num_pairs=200)
    expected.load_state_dict(bottleneck.state_dict())
    same = bottleneck.lookup(x) == expected.lookup(x.double())
    assert (
        same.double().mean() > 0.99
    )  # float32 inside, near ties apart; with products in the short dtype a third differs
    assert bottleneck(x).dtype == dtype
    assert bottleneck.heads(x).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert expected.lookup(x.double()).equal(expected.lookup(X.to(dtype).double()))
        assert expected.float().lookup(x).equal(expected.lookup(x.float()))
    bottleneck.update_keys(x, generator=seeded(0))
    assert bottleneck.keys.isfinite().all()


def test_sequences_are_averaged_with_the_codebooks() -> None:
    bottleneck = made()
    bottleneck.values.data.normal_(generator=seeded(3))
    tokens = X.view(30, 10, 12)
    assert bottleneck(tokens).shape == (30, 10, 5, 4)
    logits = CodebookVote()(bottleneck(tokens).flatten(1, 2))
    torch.testing.assert_close(logits, bottleneck(X).view(30, 50, 4).mean(1))


def test_one_pair_is_a_bias() -> None:
    bottleneck = made(num_pairs=1, num_codebooks=1)
    bottleneck.values.data.normal_(generator=seeded(3))
    assert bottleneck(X).equal(bottleneck.values[0, 0].expand(300, 1, 4))
    torch.testing.assert_close(
        made(num_pairs=1, num_codebooks=1, decay=1e-9).keys[0, 0],
        made(num_pairs=1, num_codebooks=1).heads(X[200:])[:, 0].mean(0),
    )  # without memory the key is the mean of the last batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same() -> None:
    here = made()
    there = made(fit=False).cuda().fit_keys(X.split(100), epochs=3, generator=seeded(2))
    torch.testing.assert_close(there.keys.cpu(), here.keys)
    assert there.lookup(X.cuda()).cpu().equal(here.lookup(X))


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"in_features": 0}, "in_features must be at least 1, got 0"),
        (ValueError, {"dim_value": -1}, "dim_value must be at least 1, got -1"),
        (ValueError, {"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        (ValueError, {"num_pairs": 0}, "num_pairs must be at least 1, got 0"),
        (ValueError, {"dim_key": 0}, "dim_key must be at least 1, got 0"),
        (ValueError, {"projection": "none", "num_codebooks": 5}, r"must be num_codebooks \* dim_key = 15 .* got 12"),
        (ValueError, {"decay": 0.0}, r"decay must be in \(0, 1\), got 0\.0"),
        (ValueError, {"decay": float("nan")}, r"decay must be in \(0, 1\), got nan"),
        (ValueError, {"eps": -1e-5}, "eps must be positive and finite, got -1e-05"),
        (ValueError, {"dead_threshold": float("nan")}, "dead_threshold must be finite and not negative, got nan"),
        (ValueError, {"topk": 17}, "topk must be between 1 and num_pairs = 16, got 17"),
    ],
)
def test_names_the_bad_argument(error: type[Exception], options: dict[str, Any], message: str) -> None:
    sizes = {"in_features": 12, "dim_value": 4, "num_codebooks": 5, "num_pairs": 16, "dim_key": 3}
    with pytest.raises(error, match=message):
        KeyValueBottleneck(**{**sizes, **options})


# ---- transforms, and what is not finite ----


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("topk", [1, 3])
def test_gradients_of_each_sample(training: bool, topk: int) -> None:
    bottleneck = made(topk=topk).train(training)
    bottleneck.values.data.normal_(generator=seeded(3))
    tokens = X[:30].view(6, 5, 12)

    def loss(values: Tensor, x: Tensor) -> Tensor:
        return torch.func.functional_call(bottleneck, {"values": values}, (x,)).square().sum()

    expected = [torch.autograd.grad(bottleneck(x).square().sum(), bottleneck.values)[0] for x in tokens]
    counted = bottleneck.usage.clone()
    bottleneck.usage.zero_()
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(bottleneck.values.detach(), tokens)
    torch.testing.assert_close(each, torch.stack(expected))
    assert bottleneck.usage.equal(counted)
    assert torch.func.vmap(bottleneck)(tokens).equal(bottleneck(tokens))
    assert torch.func.vmap(bottleneck.lookup)(tokens).equal(bottleneck.lookup(tokens))


@pytest.mark.parametrize("pairs", [16, 7])
@pytest.mark.parametrize("topk", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_fetches_nan(topk: int, pairs: int, value: float) -> None:
    bottleneck = made(topk=topk, num_pairs=pairs)
    bottleneck.values.data.normal_(generator=seeded(3))
    x = X[:4].clone()
    expected = bottleneck(x)
    bottleneck.usage.zero_()
    x[1, 3] = value
    fetched = bottleneck(x)
    assert fetched[1].isnan().all()
    assert fetched[[0, 2, 3]].equal(expected[[0, 2, 3]])
    assert bottleneck.usage.sum() == 3 * 5 * topk
    fetched[[0, 2, 3]].sum().backward()
    assert bottleneck.values.grad.isfinite().all()
    with pytest.raises(ValueError, match=r"^x must be finite, got NaN"):
        bottleneck.lookup(x)
    assert (torch.func.vmap(bottleneck.lookup)(x) < 0).all(-1).all(-1).tolist() == [False, True, False, False]
