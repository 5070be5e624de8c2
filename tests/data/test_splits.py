"""Splits and scaling: invariants over drawn labels, scikit-learn as oracle, nothing learned from held-out rows."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from throughline.data import DataError, standardize, stratified_split

LABELS = np.repeat(["a", "b", "c"], [70, 20, 10])


@given(
    counts=st.lists(st.integers(6, 40), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
    test=st.floats(0.3, 0.5),
    validation=st.sampled_from([0.0, 0.25]),
)
def test_parts_are_disjoint_complete_and_in_proportion(
    counts: list[int], seed: int, test: float, validation: float
) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = stratified_split(labels, seed, test=test, validation=validation)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    held_out = dict(zip((test, validation) if validation else (test,), reversed(parts[1:]), strict=True))
    for share, part in held_out.items():
        assert len(part) == round(share * len(labels))
        expected = np.array(counts) * len(part) / len(labels)
        assert (np.abs(np.bincount(labels[part], minlength=len(counts)) - expected) < 1).all()
    assert all(set(labels[part]) == set(labels) for part in parts)


def test_class_sizes_agree_with_scikit_learn() -> None:
    theirs = train_test_split(np.arange(100), test_size=0.3, stratify=LABELS, random_state=0)
    ours = stratified_split(LABELS, 0, test=0.3)
    for part, other in zip(ours, theirs, strict=True):
        assert (
            np.unique(LABELS[part], return_counts=True)[1].tolist()
            == np.unique(LABELS[other], return_counts=True)[1].tolist()
        )


def test_a_seed_gives_one_split_and_another_seed_another() -> None:
    train, test = stratified_split(LABELS, 3)
    again, _ = stratified_split(LABELS, 3)
    other, _ = stratified_split(LABELS, 4)
    np.testing.assert_array_equal(train, again)
    assert set(train) != set(other)
    assert train.tolist() != sorted(train)  # in random order: minibatches may be cut from it
    _, validation, same = stratified_split(LABELS, 3, validation=0.2)
    np.testing.assert_array_equal(test, same)
    assert len(validation) == 20


def test_the_global_generators_are_untouched() -> None:
    before = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    stratified_split(LABELS, 0)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert (torch.random.get_rng_state() == before[2]).all()


def test_every_row_is_held_out_equally_often() -> None:
    hits = np.zeros(100)
    for seed in range(600):
        hits[stratified_split(LABELS, seed, test=0.3)[1]] += 1
    assert (np.abs(hits / 600 - 0.3) < 5 * np.sqrt(0.21 / 600)).all()


def test_numbers_of_rows_tensors_and_the_smallest_case() -> None:
    train, validation, test = stratified_split(torch.tensor([0, 1] * 3), 0, test=2, validation=2)
    for part in (train, validation, test):
        assert sorted(part % 2) == [0, 1]
    _, test = stratified_split(np.array([0] * 98 + [1] * 2), 1, test=0.1)
    assert (test >= 98).sum() == 1  # a share of 0.2 rows is rounded up to one
    labels = np.repeat(np.arange(4), [94, 2, 2, 2])
    assert sorted(labels[stratified_split(labels, 0, test=4)[1]]) == [0, 1, 2, 3]
    labels = np.repeat(np.arange(5), [60, 34, 2, 2, 2])
    _, test = stratified_split(labels, 0, test=6)  # shares of 3.6, 2.04 and 0.12
    assert sorted(labels[test]) == [0, 0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 9, "labels hold 1 class, and a split by class needs two"),
        (["a"] * 9 + ["b"], "class b has 1 of 10 rows, and 2 parts need one each; add rows, or merge"),
    ],
)
def test_labels_that_cannot_be_split(labels: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        stratified_split(np.array(labels), 0)


def test_one_of_each_class_is_named_by_the_name_of_its_class() -> None:
    with pytest.raises(DataError, match=r"class oak has 1 of 7 rows, and 2 parts need one each; .* \(--target\)"):
        stratified_split([0, 1, 0, 2, 0, 2, 0], 0, test=0.25, classes=["elm", "oak", "yew"])
    with pytest.raises(DataError, match="class 0 has 1 of 2 rows"):
        stratified_split([0, 1], 0, test=0.25)  # where the share is less than half a row, too
    with pytest.raises(
        DataError, match="test must leave one row of each of 10 classes in every part, got 5 rows of 20"
    ):
        stratified_split([*range(10)] * 2, 0, test=0.25)


def test_a_share_of_less_than_half_a_row_is_too_small_for_the_data() -> None:
    with pytest.raises(DataError, match="test must leave one row of each of 2 classes in every part, got 1 rows of 4"):
        stratified_split([0, 1, 0, 1], 0, test=0.1)


def test_numbers_of_numpy_are_numbers_of_rows_and_nan_is_no_class() -> None:
    ours, theirs = (stratified_split(LABELS, 0, test=test)[1] for test in (np.int64(30), 30))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match="labels must be classes, got NaN in row 2"):
        stratified_split(np.array([0.0, 1.0, np.nan] * 9), 0)


def test_parts_that_cannot_be_filled() -> None:
    with pytest.raises(DataError, match="class c has 2 of 8 rows, and 3 parts"):
        stratified_split(np.repeat(["a", "b", "c"], [3, 3, 2]), 0, validation=0.3)
    with pytest.raises(ValueError, match=r"labels must be one-dimensional, got shape \(2, 1\)"):
        stratified_split(np.zeros((2, 1)), 0)
    for test in (0.0, 1.0, -1, 100, 1.5):
        with pytest.raises(
            ValueError, match=rf"test must be a share in \(0, 1\) or a number of rows below 100, got {test}"
        ):
            stratified_split(LABELS, 0, test=test)
    with pytest.raises(ValueError, match="validation must be a share"):
        stratified_split(LABELS, 0, validation=-0.1)
    for test in (2, 98):
        with pytest.raises(
            ValueError, match=f"test must leave one row of each of 3 classes in every part, got {test} rows"
        ):
            stratified_split(LABELS, 0, test=test)
    with pytest.raises(
        ValueError, match="validation must leave one row of each of 3 classes in every part, got 60 rows"
    ):
        stratified_split(LABELS, 0, test=0.4, validation=0.6)


def test_standardize_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 5, (50, 4)), rng.normal(0, 1, (20, 4))
    scaler = StandardScaler().fit(train)
    ours = standardize(train, test)
    np.testing.assert_allclose(ours[0], scaler.transform(train))
    np.testing.assert_allclose(ours[1], scaler.transform(test))


def test_held_out_rows_do_not_leak() -> None:
    train = np.random.default_rng(0).normal(size=(30, 3))
    np.testing.assert_array_equal(standardize(train, train)[0], standardize(train, 1e9 * train)[0])


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e9])
def test_constant_columns_become_zero_everywhere(constant: float) -> None:
    train = np.full((7, 1), constant)
    scaled, other = standardize(train, np.array([[5.0]]))
    assert not scaled.any()
    assert not other.any()


def test_standardize_follows_the_dtype_and_leaves_its_input() -> None:
    train = np.array([[1.0], [3.0]], np.float32)
    assert standardize(train)[0].dtype == np.float32
    assert standardize(train.astype(int))[0].dtype == np.float64
    assert train.tolist() == [[1.0], [3.0]]


def test_standardize_names_the_bad_shape() -> None:
    for bad in (np.zeros(3), np.zeros((0, 2))):
        with pytest.raises(ValueError, match=r"train must have shape \(n, d\) with n >= 1, got"):
            standardize(bad)
    with pytest.raises(ValueError, match=r"every part must have shape \(m, 2\) like train, got \(4, 3\)"):
        standardize(np.zeros((4, 2)), np.zeros((4, 3)))
