"""Labels: their names and groups, priors by counting, and merging by a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughline.geometry.body import DSR_C_GROUPS, DSR_MC_LABELS, PARSING_LABELS, merge_labels, semantic_prior

GROUP_NAMES = (
    {"background"},
    {"hat", "hair", "sunglasses", "scarf", "face"},
    {"glove", "upper clothes", "dress", "coat", "jumpsuit"},
    {"socks", "pants", "skirt"},
    {"left arm"},
    {"right arm"},
    {"left leg", "left shoe"},
    {"right leg", "right shoe"},
)


def test_labels_and_groups() -> None:
    assert len(PARSING_LABELS) == len(set(PARSING_LABELS)) == 20
    assert tuple({PARSING_LABELS[n] for n in group} for group in DSR_C_GROUPS) == GROUP_NAMES
    names = [PARSING_LABELS[n] for n in DSR_MC_LABELS]
    assert names == ["left shoe", "right shoe", "left arm", "right arm", "face"]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0.0, 0.5, 3.0]))
def test_prior_counts(people: int, vertices: int, classes: int, smoothing: float) -> None:
    labels = np.random.default_rng(people * 100 + vertices * 10 + classes).integers(classes, size=(people, vertices))
    prior = semantic_prior(torch.from_numpy(labels), classes, smoothing=smoothing)
    assert prior.shape == (vertices, classes)
    for v in range(vertices):
        counts = np.array([(labels[:, v] == c).sum() for c in range(classes)]) + smoothing
        np.testing.assert_allclose(prior[v].numpy(), counts / counts.sum(), rtol=1e-6)


def test_prior_of_nobody_is_even_where_it_is_smoothed() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert torch.equal(semantic_prior(none, 4, smoothing=1.0), torch.full((3, 4), 0.25))
    with pytest.raises(ValueError, match=r"labels must be \(N, V\) of at least one person, got shape \(0, 3\)"):
        semantic_prior(none, 4)


@pytest.mark.parametrize(
    ("error", "match", "labels", "classes", "smoothing"),
    [
        (TypeError, "labels must be int64, got torch.float32", torch.zeros(2, 3), 3, 0.0),
        (TypeError, "labels must be a tensor, got list", [[0]], 3, 0.0),
        (ValueError, r"labels must lie in \[0, 3\), got 0 to 3", torch.tensor([[0, 3]]), 3, 0.0),
        (ValueError, r"labels must lie in \[0, 3\), got -1 to 0", torch.tensor([[0, -1]]), 3, 0.0),
        (ValueError, r"labels must be \(N, V\)", torch.tensor([0, 1]), 3, 0.0),
        (ValueError, "num_classes must be at least 1, got 0", torch.tensor([[0]]), 0, 0.0),
        (TypeError, "num_classes must be an integer, got 2.0", torch.tensor([[0]]), 2.0, 0.0),
        (ValueError, "smoothing must be finite and not negative, got -1", torch.tensor([[0]]), 1, -1.0),
        (ValueError, "smoothing must be finite and not negative, got nan", torch.tensor([[0]]), 1, float("nan")),
    ],
)
def test_prior_refuses(
    error: type[Exception], match: str, labels: torch.Tensor, classes: int, smoothing: float
) -> None:
    with pytest.raises(error, match=match):
        semantic_prior(labels, classes, smoothing=smoothing)


def test_merging_by_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(20, (3, 4, 5), generator=draw)
    merged = merge_labels(labels, DSR_C_GROUPS)
    for label, group in zip(labels.flatten().tolist(), merged.flatten().tolist(), strict=True):
        assert label in DSR_C_GROUPS[group]
    prior = torch.rand(6, 20, generator=draw, dtype=torch.float64)
    sums = merge_labels(prior, DSR_C_GROUPS)
    for row, merged_row in zip(prior, sums, strict=True):
        assert merged_row.tolist() == pytest.approx([sum(row[n].item() for n in group) for group in DSR_C_GROUPS])


def test_merging_and_one_hot_go_either_way() -> None:
    labels = torch.arange(20)
    hot = torch.nn.functional.one_hot(labels, 20).double()
    assert torch.equal(merge_labels(hot, DSR_C_GROUPS).argmax(-1), merge_labels(labels, DSR_C_GROUPS))


@pytest.mark.parametrize(
    ("error", "match", "given_", "groups"),
    [
        (
            ValueError,
            r"groups must partition the labels 0 to C - 1, got \(\(0,\), \(0,\)\)",
            torch.tensor(0),
            [(0,), (0,)],
        ),
        (ValueError, "groups must partition", torch.tensor(0), [(0, 2)]),
        (ValueError, "groups must partition", torch.tensor(0), []),
        (ValueError, r"prior_or_labels must lie in \[0, 2\), got 2 to 2", torch.tensor([2]), [(0,), (1,)]),
        (ValueError, r"prior_or_labels must be \(\.\.\., 2\), .* got \(3,\)", torch.zeros(3), [(0,), (1,)]),
        (ValueError, r"prior_or_labels must be \(\.\.\., 2\)", torch.tensor(0.5), [(0,), (1,)]),
        (
            TypeError,
            "prior_or_labels must be int64 labels or floating point, got torch.int32",
            torch.zeros(2).int(),
            [(0, 1)],
        ),
        (TypeError, "prior_or_labels must be a tensor, got list", [0, 1], [(0, 1)]),
    ],
)
def test_merging_refuses(
    error: type[Exception], match: str, given_: torch.Tensor, groups: list[tuple[int, ...]]
) -> None:
    with pytest.raises(error, match=match):
        merge_labels(given_, groups)
