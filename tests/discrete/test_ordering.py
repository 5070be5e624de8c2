"""Group ordering losses against diffsort, a loop over anchors, the closed form of one pair, and two real processes."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffsort import DiffSortNet
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.allocation import allocated
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.sorting import order_probability
from throughline.discrete import ordering
from throughline.discrete.ordering import GroupOrderingLoss, group_ordering_loss

D64 = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D64, generator=torch.Generator().manual_seed(seed))


def by_diffsort(positive: Tensor, negative: Tensor, steepness: float = 1.0, network: str = "odd_even") -> Tensor:
    """The mean of the paper's two cross-entropies, from diffsort's (transposed) matrix; one value per anchor."""
    x = torch.cat([negative.sort(-1).values, positive.sort(-1).values], -1).float()
    m, n = negative.shape[-1], x.shape[-1]
    _, p = DiffSortNet(network, n, steepness=steepness, distribution="cauchy")(x)  # p[anchor, element, position]
    is_positive = (torch.arange(n) >= m).float().expand(x.shape)
    low = F.binary_cross_entropy(p[..., :m].sum(-1).clamp(0, 1), 1 - is_positive, reduction="none")
    high = F.binary_cross_entropy(p[..., m:].sum(-1).clamp(0, 1), is_positive, reduction="none")
    return (low + high).mean(-1) / 2


def by_loop(views: Tensor, negatives: int, positive_views: int, *, stop_gradient: bool = True) -> Tensor:
    """The self-supervised loss anchor by anchor, as the paper words it."""
    losses = []
    for v, view in enumerate(views):
        for i, anchor in enumerate(view):

            def similarity(other: Tensor, anchor: Tensor = anchor) -> Tensor:
                return F.cosine_similarity(anchor, other.detach() if stop_gradient else other, dim=-1, eps=1e-8)

            positive = torch.stack([similarity(views[p, i]) for p in range(positive_views) if p != v])
            rest = torch.stack([similarity(other) for j, other in enumerate(view) if j != i])
            hardest = rest.sort().values[-negatives:]
            losses.append(group_ordering_loss(positive, hardest))
    return torch.stack(losses).mean()


# --- the loss of one anchor


@pytest.mark.parametrize(("n", "m", "network"), [(1, 10, "odd_even"), (3, 4, "odd_even"), (3, 5, "bitonic")])
def test_agrees_with_diffsort(n: int, m: int, network: str) -> None:
    positive, negative = noise(6, n).requires_grad_(), noise(6, m, seed=1).requires_grad_()
    for steepness in (1.0, 10.0):
        ours = group_ordering_loss(positive, negative, steepness=steepness, network=network, reduction="none")
        expected = by_diffsort(positive, negative, steepness, network)
        torch.testing.assert_close(ours.float(), expected, atol=1e-5, rtol=1e-5)
        gradients = (torch.autograd.grad(loss.sum(), (positive, negative)) for loss in (ours, expected))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("distribution", ["cauchy", "reciprocal", "optimal", "logistic", "gaussian", "logistic_phi"])
def test_one_pair_is_the_comparator(distribution: str) -> None:
    positive, negative = noise(9, 1), noise(9, 1, seed=1)
    loss = group_ordering_loss(positive, negative, distribution=distribution, reduction="none")
    p = order_probability((positive - negative)[:, 0], steepness=1.0, distribution=distribution)
    torch.testing.assert_close(loss, -p.log())


def test_cauchy_pair_by_hand() -> None:
    loss = group_ordering_loss(torch.tensor([1.0]), torch.tensor([0.0]))
    assert loss.item() == pytest.approx(-math.log(0.75))


@settings(max_examples=40)
@given(st.data())
def test_order_within_a_group_does_not_matter(data: st.DataObject) -> None:
    entries = st.lists(st.floats(-1, 1), min_size=1, max_size=7)
    positive, negative = data.draw(entries), data.draw(entries)
    shuffled = data.draw(st.permutations(positive)), data.draw(st.permutations(negative))
    one = group_ordering_loss(torch.tensor(positive, dtype=D64), torch.tensor(negative, dtype=D64))
    other = group_ordering_loss(*(torch.tensor(group, dtype=D64) for group in shuffled))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert one >= 0


def test_vanishes_when_ordered_and_steep_and_saturates_when_not() -> None:
    high, low = torch.tensor([0.9, 0.8], dtype=D64), torch.tensor([0.1, 0.2, -0.5], dtype=D64)
    assert group_ordering_loss(high, low, steepness=1e9) < 1e-6
    assert group_ordering_loss(high, low) > 0.1  # steepness 1 stays soft
    wrong = group_ordering_loss(low, high, steepness=200.0, distribution="gaussian")
    assert 50 < wrong <= 100  # four of five elements are on the wrong side, at the bound of 100 each


def test_gradient_flows_through_the_hard_sort() -> None:
    positive, negative = noise(2, 2).requires_grad_(), noise(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, n: group_ordering_loss(p, n, reduction="none"), (positive, negative))
    closer, farther = torch.autograd.grad(group_ordering_loss(positive, negative), (positive, negative))
    assert (closer.sum(-1) < 0).all()
    assert (farther.sum(-1) > 0).all()


def test_leading_dimensions_agree_with_a_loop() -> None:
    positive, negative = noise(2, 3, 4), noise(2, 3, 5, seed=1)
    losses = group_ordering_loss(positive, negative, reduction="none")
    assert losses.shape == (2, 3)
    torch.testing.assert_close(losses[1, 2], group_ordering_loss(positive[1, 2], negative[1, 2]))
    torch.testing.assert_close(losses.mean(), group_ordering_loss(positive, negative))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_ties_masks_and_saturation_stay_finite(dtype: torch.dtype) -> None:
    rows = [([1.0], [1.0, 1.0]), ([0.5], [-math.inf, 0.2]), ([-1.0], [-math.inf, math.inf]), ([0.0], [0.0, 0.0])]
    for steepness in (1.0, 1e2 if dtype == torch.float16 else 1e6):
        for distribution in ("cauchy", "optimal", "logistic", "gaussian"):
            positive = torch.tensor([p for p, _ in rows], dtype=dtype).requires_grad_()
            negative = torch.tensor([n for _, n in rows], dtype=dtype).requires_grad_()
            loss = group_ordering_loss(positive, negative, steepness=steepness, distribution=distribution)
            assert loss.dtype == dtype
            for tensor in (loss, *torch.autograd.grad(loss, (positive, negative))):
                assert tensor.isfinite().all()


def test_a_masked_negative_counts_as_placed() -> None:
    masked = group_ordering_loss(torch.tensor([0.5]), torch.tensor([-math.inf, 0.2]))
    alone = group_ordering_loss(torch.tensor([0.5]), torch.tensor([0.2]))
    torch.testing.assert_close(masked, alone * 2 / 3)  # its own share of the mean over n is zero


def test_nan_gives_nan() -> None:  # a mixed-precision overflow is the gradient scaler's business
    assert group_ordering_loss(torch.tensor([math.nan]), torch.tensor([0.2])).isnan()


# --- the self-supervised loss


@pytest.mark.parametrize(("views", "positive_views"), [(2, None), (3, None), (4, 2)])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_agrees_with_a_loop_over_anchors(views: int, positive_views: int | None, stop_gradient: bool) -> None:
    z = noise(views, 6, 5).requires_grad_()
    criterion = GroupOrderingLoss(3, positive_views=positive_views, stop_gradient=stop_gradient)
    ours, expected = criterion(z), by_loop(z, 3, positive_views or views, stop_gradient=stop_gradient)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z) for loss in (ours, expected)))
    torch.testing.assert_close(criterion(list(z)), expected)


@pytest.mark.parametrize("first", [0, 8])
def test_gradient_from_the_keys_compared_with_is_that_of_all(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of anchors that lie anywhere among the keys: sums of rows against products, and autograd's of the definition."""
    anchors, keys = noise(3, 32, 6).requires_grad_(), noise(3, 64, 6, seed=1)
    found = ordering._Similarities.apply(anchors, keys, first, 2, 2)
    table = anchors @ keys.mT
    own = torch.eye(32, 64, dtype=torch.bool).roll(first, 1)
    negative = table.masked_fill(own, -torch.inf).topk(2).values
    positive = torch.stack([(anchors * keys[p, first : first + 32]).sum(-1) for p in range(2)], -1)
    torch.testing.assert_close(found[0], positive)
    torch.testing.assert_close(found[1].sort(descending=True).values, negative)
    gradients = []
    for few in (1, math.inf):  # sums of rows, then products
        monkeypatch.setattr(ordering, "FEW", few)
        loss = found[0].sin().sum() + found[1].square().sum()
        gradients.append(torch.autograd.grad(loss, anchors, retain_graph=True)[0])
    expected = torch.autograd.grad(positive.sin().sum() + negative.square().sum(), anchors)[0]
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(gradients[1], expected)


def test_unit_length_and_its_gradient_are_those_of_torch() -> None:
    lengths = torch.tensor([0.0, 1e-12, 1e-8, 3e-8, 1.0, 1e18])[:, None]
    z = F.normalize(noise(6, 5).float(), dim=-1) * lengths
    pull = noise(6, 5, seed=1).float()
    both = []
    for unit in (ordering._Unit.apply, functools.partial(F.normalize, dim=-1, eps=1e-8)):
        x = z.clone().requires_grad_()
        made = unit(x)
        both.append((made, torch.autograd.grad((made * pull).sum(), x)[0]))
    torch.testing.assert_close(both[0][0], both[1][0], rtol=0, atol=0)
    torch.testing.assert_close(both[0][1] * lengths, both[1][1] * lengths)


def test_training_keeps_little_beside_the_units_and_their_gradient() -> None:
    """At the highest point two tensors like the views, and a table of similarities of which there is one at a time."""
    z = noise(2, 256, 1024).float().requires_grad_()
    criterion = GroupOrderingLoss(10)
    size, table = 4 * z.numel(), 4 * 2 * 256 * 256
    criterion(z).backward()
    z.grad = None
    assert allocated(lambda: torch.autograd.grad(criterion(z), z)) < 2.2 * size + 2 * table


def test_the_paper_defaults() -> None:
    z = noise(2, 12, 4)
    torch.testing.assert_close(GroupOrderingLoss()(z), by_loop(z, 10, 2))
    torch.testing.assert_close(GroupOrderingLoss()(z), GroupOrderingLoss()(7 * z))  # cosine similarity


def test_negatives_come_from_the_own_view() -> None:
    z = torch.stack([torch.eye(6), torch.eye(6).roll(1, 0)]).double()
    # within each view all others are orthogonal, and so is the other view of the anchor: every similarity is 0
    tied = group_ordering_loss(torch.zeros(1, dtype=D64), torch.zeros(3, dtype=D64))
    torch.testing.assert_close(GroupOrderingLoss(3)(z), tied)


def test_bfloat16_is_computed_in_float32() -> None:
    z = noise(2, 12, 8).bfloat16()
    torch.testing.assert_close(GroupOrderingLoss()(z), GroupOrderingLoss()(z.float()).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        loss = GroupOrderingLoss()(z)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, GroupOrderingLoss()(z.float()))


def test_training_pulls_the_views_together() -> None:
    z = nn.Parameter(noise(2, 16, 8).float())
    optimizer = torch.optim.Adam([z], lr=0.05)
    start = None
    for _ in range(150):
        loss = GroupOrderingLoss(5, steepness=5.0)(z)
        start = loss.item() if start is None else start
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    one, other = F.normalize(z.detach(), dim=-1)
    assert loss < start / 2
    assert ((one @ other.T).argmax(1) == torch.arange(16)).double().mean() > 0.9


SPLITS = [(4, 4), (5, 3), (2, 6)]


def _share(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for split in SPLITS:
        z = noise(2, 8, 5).split(split, 1)[rank].clone().requires_grad_()
        for stop in (True, False):
            loss = GroupOrderingLoss(6, gather_distributed=True, stop_gradient=stop)(z) * split[rank] / 8
            found.append((loss.detach(), torch.autograd.grad(loss, z)[0]))
    messages = []
    for batch, negatives in (((8, 0)[rank], 6), ((4, 3)[rank], 7)):
        with pytest.raises(ValueError, match=r"views|negatives") as caught:
            GroupOrderingLoss(negatives, gather_distributed=True)(noise(2, batch, 5))
        messages.append(str(caught.value))
    torch.save((found, messages), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """Six negatives from parts of eight samples, also of unequal size: only the gathered batch has them."""
    torch.multiprocessing.start_processes(_share, (str(tmp_path),), nprocs=2, start_method="forkserver")
    ranks, messages = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    for setting, pair in enumerate(zip(*ranks, strict=True)):
        whole = noise(2, 8, 5).requires_grad_()
        expected = GroupOrderingLoss(6, stop_gradient=setting % 2 == 0)(whole)
        torch.testing.assert_close(sum(loss for loss, _ in pair), expected.detach())
        together = torch.cat([gradient for _, gradient in pair], 1)
        torch.testing.assert_close(together, torch.autograd.grad(expected, whole)[0])
    none, few = messages[0]
    assert messages[1] == messages[0]  # each process is told, and none waits for the other
    assert none == "views must hold a sample in every process, got batches of 8, 0"
    assert few.endswith("7 negatives need a batch of at least 8, got 7")


@pytest.mark.parametrize("make", [GroupOrderingLoss, functools.partial(GroupOrderingLoss, positive_views=2)])
def test_keys_are_detached_unless_asked_otherwise(make: Callable[..., GroupOrderingLoss]) -> None:
    gradients = []
    for options in ({}, {"stop_gradient": True}, {"stop_gradient": False}):
        z = noise(2, 8, 5).requires_grad_()
        gradients.append(torch.autograd.grad(make(3, **options)(z), z)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert not torch.allclose(gradients[0], gradients[2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p, n: group_ordering_loss(p.long(), n), TypeError, "positive must be floating point, got torch.int64"),
        (lambda p, n: group_ordering_loss(p, n.long()), TypeError, "negative must be floating point"),
        (lambda p, n: group_ordering_loss(p, n, steepness=0.0), ValueError, "steepness must be positive .* got 0.0"),
        (lambda p, n: group_ordering_loss(p, n, distribution="x"), ValueError, "distribution must be one of cauchy"),
        (lambda p, n: group_ordering_loss(p, n, network="x"), ValueError, "network must be one of odd_even"),
        (lambda p, n: group_ordering_loss(p, n, reduction="sum"), ValueError, 'must be "mean" or "none", got \'sum\''),
        (lambda p, n: group_ordering_loss(p[:1], n), ValueError, r"same leading shape, got \(1, 3\) and \(2, 4\)"),
        (lambda p, n: group_ordering_loss(p[:, :0], n), ValueError, r"positive must have shape .* got \(2, 0\)"),
        (lambda p, n: group_ordering_loss(p, n[:, :0]), ValueError, r"negative must have shape .* got \(2, 0\)"),
        (lambda p, n: group_ordering_loss(p.sum(), n), ValueError, r"positive must have shape .* got \(\)"),
    ],
)
def test_loss_names_the_bad_argument(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(noise(2, 3), noise(2, 4))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "views", "error", "message"),
    [
        ({}, [noise(12, 3)], ValueError, "views must be at least two, got 1"),
        ({}, [], ValueError, "views must be at least two, got 0"),
        ({}, [noise(12, 3), noise(11, 3)], ValueError, r"one shape \(B, D\), got \(12, 3\), \(11, 3\)"),
        ({}, noise(2, 12), ValueError, r"one shape \(B, D\), got \(12,\)"),
        ({}, noise(2, 12, 3).long(), TypeError, "views must be floating point, got torch.int64"),
        ({}, noise(2, 10, 3), ValueError, "10 negatives need a batch of at least 11, got 10"),
        ({"negatives": 0}, None, ValueError, "negatives must be at least 1, got 0"),
        ({"positive_views": 1}, None, ValueError, r"positive_views must be at least 2 \(.*\), got 1"),
        ({"positive_views": 3}, noise(2, 12, 3), ValueError, r"at most the number of views \(2\), got 3"),
        ({"steepness": -1.0}, None, ValueError, "steepness must be positive .* got -1.0"),
        ({"distribution": "x"}, None, ValueError, "distribution must be one of cauchy, .* got 'x'"),
        ({"network": "x"}, None, ValueError, "network must be one of odd_even, bitonic, got 'x'"),
        ({"gather_distributed": True}, noise(2, 12, 3), ValueError, "needs an initialised torch.distributed"),
    ],
)
def test_module_names_the_bad_argument(options: dict, views: object, error: type[Exception], message: str) -> None:
    make = functools.partial(GroupOrderingLoss, **options)
    with pytest.raises(error, match=message):
        make() if views is None else make()(views)


def test_repr_shows_the_choices() -> None:
    assert repr(GroupOrderingLoss(5, positive_views=2)).startswith(
        "GroupOrderingLoss(5, steepness=1.0, positive_views=2"
    )
