"""Streams: what holds of every stream, and its laws at the ends of its ranges."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from throughline.continual.streams import class_incremental, si_blurry


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(labels: Tensor, stream: list[Tensor]) -> Tensor:
    """Samples by class and task."""
    ids = labels.unique()
    return torch.stack([(labels[task][:, None] == ids).sum(0) for task in stream], 1)


LABELS = torch.arange(10).repeat_interleave(40)


@settings(max_examples=60)
@given(
    st.lists(st.integers(-3, 12), min_size=1, max_size=60),
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 10**6),
)
def test_every_sample_is_dealt_once(ids: list[int], tasks: int, disjoint: float, blurry: float, seed: int) -> None:
    stream = si_blurry(torch.tensor(ids), tasks, disjoint=disjoint, blurry=blurry, generator=seeded(seed))
    assert len(stream) == tasks
    assert torch.cat(stream).sort().values.equal(torch.arange(len(ids)))


@pytest.mark.parametrize("seed", range(5))
def test_spreading_keeps_task_sizes_and_the_disjoint_classes(seed: int) -> None:
    still = table(LABELS, si_blurry(LABELS, 4, blurry=0.0, generator=seeded(seed)))
    moved = table(LABELS, si_blurry(LABELS, 4, blurry=0.3, generator=seeded(seed)))
    assert ((still > 0).sum(1) == 1).all()  # without spreading every class has one task
    assert moved.sum(0).equal(still.sum(0))
    assert ((moved > 0).sum(1) == 1).sum() >= 5
    assert 0 <= (moved - still).clamp(min=0).sum() <= 60  # 30% of the 200 samples of blurry classes


@pytest.mark.parametrize("seed", range(20))
def test_no_class_vanishes(seed: int) -> None:
    assert (
        table(LABELS, si_blurry(LABELS, 4, generator=seeded(seed))).sum(1) == 40
    ).all()  # the official one drops two


def test_spread_samples_come_from_blurry_classes_at_the_stated_rate() -> None:
    labels = torch.arange(20).repeat_interleave(200)
    returning = []
    for seed in range(20):
        counts = table(labels, si_blurry(labels, 5, disjoint=0.3, blurry=0.2, generator=seeded(seed)))
        away = counts.sum(1) - counts.max(1).values
        assert (away == 0).sum() >= 6  # ⌊20 · 0.3⌋ disjoint classes
        returning.append(away.sum() / (14 * 200))
    assert 0.08 < torch.stack(returning).mean() < 0.2  # at most the ratio, less those who drew their own task again


def test_uniform_cut_points_reach_the_end() -> None:
    last = [table(LABELS, si_blurry(LABELS, 2, disjoint=1.0, blurry=0, generator=seeded(s)))[:, 1] for s in range(800)]
    kept = torch.stack([(counts > 0).sum() for counts in last])
    share = torch.bincount(kept, minlength=11) / 800  # the second task takes 0..10 classes, each with chance 1/11
    assert (share - 1 / 11).abs().max() < 5 * (1 / 11 * 10 / 11 / 800) ** 0.5


def test_tasks_are_shuffled() -> None:
    (only,) = si_blurry(LABELS, 1, generator=seeded(0))
    halves = LABELS[only[:200]].bincount(minlength=10)
    assert ((halves > 5) & (halves < 35)).all()


def test_one_generator_one_stream_and_the_global_one_is_left_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (si_blurry(LABELS, generator=seeded(seed)) for seed in (3, 3, 4))
    assert before.equal(torch.get_rng_state())
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not torch.cat(first).equal(torch.cat(other))


@pytest.mark.parametrize(("ratios", "moving"), [((1.0, 1.0), False), ((0.0, 0.0), False), ((0.0, 1.0), True)], ids=str)
def test_extreme_ratios(ratios: tuple[float, float], moving: bool) -> None:
    counts = table(LABELS, si_blurry(LABELS, 5, disjoint=ratios[0], blurry=ratios[1], generator=seeded(1)))
    assert ((counts > 0).sum(1) > 1).any() == moving


def test_decimal_ratios_mean_what_they_say() -> None:
    for seed in range(10):  # 10 · 0.7 is 7.000000000000001 and 10 · 0.3 is 3; 100 · 0.29 is 28.999999999999996
        labels = torch.arange(100).repeat_interleave(10)
        counts = table(labels, si_blurry(labels, 6, disjoint=0.29, blurry=1.0, generator=seeded(seed)))
        assert ((counts > 0).sum(1) == 1).sum() >= 29


def test_feeds_a_data_loader() -> None:
    data = TensorDataset(torch.randn(400, 3), LABELS)
    stream = si_blurry(LABELS, generator=seeded(0))
    seen = sum(
        len(y) for task in stream if len(task) for _, y in DataLoader(Subset(data, task.tolist()), batch_size=64)
    )
    assert seen == 400


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (LABELS, {"tasks": 0}, "tasks must be at least 1, got 0"),
        (LABELS, {"disjoint": -0.1}, r"disjoint must be in \[0, 1\], got -0\.1"),
        (LABELS, {"disjoint": float("nan")}, r"disjoint must be in \[0, 1\], got nan"),
        (LABELS, {"blurry": 1.5}, r"blurry must be in \[0, 1\], got 1\.5"),
        (LABELS[:0], {}, r"labels must be \(n,\) with n >= 1, got shape \(0,\)"),
        (LABELS[None], {}, r"labels must be \(n,\) with n >= 1, got shape \(1, 400\)"),
        (LABELS.double(), {}, r"labels must be integer class ids, got torch\.float64"),
    ],
)
def test_names_the_bad_argument(labels: Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        si_blurry(labels, **options)


@settings(max_examples=60)
@given(st.lists(st.integers(-3, 12), min_size=1, max_size=60), st.integers(1, 16), st.integers(0, 10**6))
def test_classes_are_dealt_evenly_and_whole(ids: list[int], tasks: int, seed: int) -> None:
    labels, classes = torch.tensor(ids), len(set(ids))
    tasks = min(tasks, classes)
    stream = class_incremental(labels, tasks, generator=seeded(seed))
    assert torch.cat(stream).sort().values.equal(torch.arange(len(ids)))
    counts = table(labels, stream)
    assert ((counts > 0).sum(1) == 1).all()  # a class has one task
    sizes = (counts > 0).sum(0).tolist()
    assert sizes == [classes // tasks + (task < classes % tasks) for task in range(tasks)]


def test_every_pairing_of_classes_comes_up() -> None:
    together = torch.zeros(6, 6)
    for seed in range(600):
        for task in class_incremental(torch.arange(6).repeat(3), 3, generator=seeded(seed)):
            one, other = torch.arange(6).repeat(3)[task].unique().tolist()
            together[one, other] += 1 / 600
    chance = 1 / 5  # that a class meets a given one of the other five
    pairs = together[torch.triu_indices(6, 6, 1).unbind()]
    assert (pairs - chance).abs().max() < 5 * (chance * (1 - chance) / 600) ** 0.5


def test_incremental_tasks_are_shuffled_and_reproducible() -> None:
    first, again, other = (class_incremental(LABELS, generator=seeded(seed)) for seed in (3, 3, 4))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not torch.cat(first).equal(torch.cat(other))
    assert all(len(LABELS[task[:20]].unique()) == 2 for task in first)


@pytest.mark.parametrize(
    ("labels", "tasks", "message"),
    [
        (LABELS, 0, "tasks must be at least 1, got 0"),
        (LABELS, 11, r"tasks must be at most the number of classes \(10\), got 11"),
        (LABELS[:0], 1, r"labels must be \(n,\) with n >= 1, got shape \(0,\)"),
        (LABELS.bool(), 1, r"labels must be integer class ids, got torch\.bool"),
    ],
)
def test_incremental_names_the_bad_argument(labels: Tensor, tasks: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_incremental(labels, tasks)


@pytest.mark.parametrize("deal", [class_incremental, si_blurry])
def test_targets_are_taken_as_data_sets_have_them(deal: Any) -> None:
    targets = LABELS.tolist()
    expected = deal(LABELS, 3, generator=seeded(0))
    for same in (targets, tuple(targets), np.array(targets), np.array(targets, dtype=np.uint8), LABELS.int()):
        assert all(a.equal(b) for a, b in zip(deal(same, 3, generator=seeded(0)), expected, strict=True))
    for wrong, message in (
        (["a", "b"], r"labels must be integer class ids in a tensor, list or array, got list of str"),
        (np.array(["a", "b"]), r"labels must be integer class ids in a tensor, list or array, got ndarray"),
        (None, r"labels must be integer class ids in a tensor, list or array, got NoneType"),
        ([[1, 2], [1]], r"labels must be integer class ids in a tensor, list or array, got list of list"),
    ):
        with pytest.raises(TypeError, match=message):
            deal(wrong)
    for wrong in ([1.0, 2.0], np.array([0.5]), [True, False]):
        with pytest.raises(ValueError, match=r"labels must be integer class ids, got torch\."):
            deal(wrong)
    with pytest.raises(ValueError, match=r"labels must be \(n,\) with n >= 1, got shape \(0,\)"):
        deal([])
