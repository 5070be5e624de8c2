"""ridge and RecursiveRidge against scikit-learn, an SVD, and the definition of a stream: any order, any partition."""

import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from throughline.core._growing import resize_to_saved
from throughline.core.ridge import RecursiveRidge, ridge

FORMS = ("information", "covariance")
D64 = torch.float64


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=D64, generator=torch.Generator().manual_seed(seed))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def scikit(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    return torch.from_numpy(Ridge(alpha=penalty, fit_intercept=False, solver="svd").fit(x, y).coef_.T)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40), (7, 7), (1, 3)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
def test_ridge_agrees_with_scikit_learn(n: int, d: int, penalty: float) -> None:
    x, y = normal(n, d), normal(n, 2, seed=1)
    torch.testing.assert_close(ridge(x, y, penalty=penalty), scikit(x, y, penalty))


def test_ridge_takes_batch_dimensions_and_no_rows() -> None:
    x, y = normal(3, 1, 9, 4), normal(1, 2, 9, 5, seed=1)
    weight = ridge(x, y)
    assert weight.shape == (3, 2, 4, 5)
    torch.testing.assert_close(weight[2, 1], scikit(x[2, 0], y[0, 1], 1.0))
    assert ridge(normal(0, 3), normal(0, 2)).equal(torch.zeros(3, 2, dtype=D64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, D64])
def test_ridge_follows_the_dtype_of_x(dtype: torch.dtype) -> None:
    x, y = normal(9, 4), normal(9, 2, seed=1)
    weight = ridge(x.to(dtype), y)
    assert weight.dtype == dtype
    torch.testing.assert_close(weight.to(D64), ridge(x, y), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("n", [3, 6])
def test_ridge_is_differentiable(n: int) -> None:
    assert torch.autograd.gradcheck(ridge, (normal(n, 4).requires_grad_(), normal(n, 2, seed=1).requires_grad_()))


def test_ridge_shrinks_to_nothing_and_to_least_squares() -> None:
    x, y = normal(30, 4), normal(30, 2, seed=1)
    assert ridge(x, y, penalty=1e12).abs().max() < 1e-9
    torch.testing.assert_close(ridge(x, y, penalty=1e-9), torch.linalg.lstsq(x, y).solution)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(data=st.data())
def test_a_stream_equals_ridge_on_all_of_it(form: Any, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    d, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 1000))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))  # repeated cuts give empty batches
    penalty = data.draw(st.sampled_from([0.1, 1.0, 100.0]))
    x, y = normal(n, d, seed=seed), normal(n, 3, seed=seed + 1)
    stream = RecursiveRidge(d, penalty=penalty, form=form)
    for start, end in pairwise([0, *cuts, n]):
        rows = order[start:end]
        stream.update(x[rows], y[rows])
        if end:
            seen = order[:end]
            torch.testing.assert_close(stream.weight, scikit(x[seen], y[seen], penalty), rtol=1e-9, atol=1e-10)
    assert stream.num_samples == n


@pytest.mark.parametrize("form", FORMS)
def test_one_row_at_a_time(form: Any) -> None:
    x, y = normal(50, 8), normal(50, 2, seed=1)
    stream = RecursiveRidge(8, penalty=0.3, form=form)
    for row, target in zip(x, y, strict=True):
        stream.update(row[None], target[None])
    assert relative(stream.weight, scikit(x, y, 0.3)) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_columns_widen_and_missing_columns_are_zeros(form: Any) -> None:
    x, y = normal(30, 5), normal(30, 4, seed=1)
    y[:10, 2:] = 0
    y[20:, 1:] = 0
    stream = RecursiveRidge(5, 1, form=form)
    stream.update(x[:10], y[:10, :2]).update(x[10:20], y[10:20]).update(x[20:], y[20:, :1])
    assert stream.out_features == 4
    torch.testing.assert_close(stream.weight, scikit(x, y, 1.0))


def test_starts_from_the_right_prior() -> None:
    stream = RecursiveRidge(3, 2, penalty=4.0, form="covariance")
    assert stream.covariance.equal(torch.eye(3, dtype=D64) / 4)  # R_0 = I/γ, not the γI of the paper's algorithm box
    for form in FORMS:
        assert RecursiveRidge(3, 2, penalty=4.0, form=form).weight.equal(torch.zeros(3, 2, dtype=D64))


def test_precision_on_features_of_low_rank() -> None:
    x, y = normal(2048, 30) @ normal(30, 300, seed=1), normal(2048, 5, seed=2)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    exact = u @ ((s**2 / (s**2 + 1e-3))[:, None] * (u.mT @ y))
    for form, bound in (("information", 1e-13), ("covariance", 1e-6)):  # plain (2) and (3): 1e-3
        stream = RecursiveRidge(300, penalty=1e-3, form=form)
        for rows, targets in zip(x.split(64), y.split(64), strict=True):
            stream.update(rows, targets)
        assert relative(x @ stream.weight, exact) < bound
        if form == "covariance":
            assert relative(stream.covariance.mT, stream.covariance) < 1e-15


class Largest(TorchDispatchMode):
    """Records the most entries that any operation made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return out


@pytest.mark.parametrize("form", FORMS)
def test_a_tall_batch_is_chunked(form: Any) -> None:
    x, y = normal(600, 20), normal(600, 2, seed=1)
    stream = RecursiveRidge(20, form=form)
    with Largest() as largest:
        stream.update(x, y)
    assert largest.entries <= 600 * 20  # the batch itself; a 600 × 600 system would be thirty times that
    assert relative(stream.weight, scikit(x, y, 1.0)) < 1e-12


def test_wide_batches_cross_the_blocks() -> None:
    x, y = normal(40, 600), normal(40, 2, seed=1)  # wider than a block of the Gram matrix, in several chunks' worth
    for form in FORMS:
        assert relative(RecursiveRidge(600, form=form).update(x, y).weight, scikit(x, y, 1.0)) < 1e-11


def test_merging_adds_the_data() -> None:
    x, y = normal(60, 7), normal(60, 3, seed=1)
    y[:20, 2] = 0
    one, two = RecursiveRidge(7, penalty=2.0), RecursiveRidge(7, penalty=2.0)
    one.update(x[:20], y[:20, :2])
    assert one.weight.shape == (7, 2)
    two.update(x[20:], y[20:])
    before = copy.deepcopy(two.state_dict())
    merged = one.merge(two)
    assert merged is one
    assert (one.num_samples, one.out_features) == (60, 3)
    torch.testing.assert_close(one.weight, scikit(x, y, 2.0))
    assert all(before[key].equal(value) for key, value in two.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_state_dict_and_pickle_restore_a_stream_in_the_middle(form: Any) -> None:
    x, y = normal(40, 6), normal(40, 3, seed=1)
    stream = RecursiveRidge(6, penalty=0.5, form=form).update(x[:25], y[:25])
    assert stream.weight.shape == (6, 3)
    twin = RecursiveRidge(6, 1, form=form).update(x[:3], y[:3, :2])  # used before, other width, other penalty
    assert twin.weight.shape == (6, 2)
    twin.load_state_dict(stream.state_dict())
    for copied in (twin, pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)):
        assert (copied.num_samples, copied.out_features, copied.penalty) == (25, 3, 0.5)
        assert copied.weight.equal(stream.weight)
        assert relative(copied.update(x[25:], y[25:]).weight, scikit(x, y, 0.5)) < 1e-12
    assert relative(stream.weight, scikit(x[:25], y[:25], 0.5)) < 1e-12  # no copy shares its buffers
    with pytest.raises(RuntimeError, match="size mismatch"):
        RecursiveRidge(5, form=form).load_state_dict(stream.state_dict())


def test_resize_to_saved_leaves_missing_keys_alone() -> None:
    stream = RecursiveRidge(3, 2)
    resize_to_saved(stream, {}, "", moment=1)
    assert stream.out_features == 2


@pytest.mark.parametrize("form", FORMS)
def test_precision_is_the_learners_own(form: Any) -> None:
    x, y = normal(200, 5).float(), normal(200, 2, seed=1).float()
    stream = RecursiveRidge(5, form=form).update(x, y)
    assert stream.weight.dtype == D64
    assert relative(stream.weight, scikit(x.double(), y.double(), 1.0)) < 1e-12
    assert stream(x).dtype == torch.float32
    assert stream(x.long()).dtype == D64
    assert RecursiveRidge(5, form=form, dtype=torch.float32).update(x, y).weight.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS)
def test_forward_is_linear_over_leading_dimensions_without_a_graph(form: Any) -> None:
    stream = RecursiveRidge(4, form=form).update(normal(9, 4).requires_grad_(), normal(9, 2))
    x = normal(2, 3, 4, seed=3).requires_grad_()
    assert not stream(x).requires_grad
    torch.testing.assert_close(stream(x)[1, 2], x[1, 2].detach() @ stream.weight)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_no_rows_changes_nothing(form: Any) -> None:
    stream = RecursiveRidge(4, 1, form=form).update(normal(0, 4), normal(0, 3))
    assert (stream.num_samples, stream.out_features) == (0, 1)


def bad_batches() -> list[Any]:
    x, y = normal(4, 3), normal(4, 2)
    nan, inf, huge = x.clone(), y.clone(), x.clone()
    nan[1, 1], inf[0, 0], huge[2, 2] = float("nan"), float("-inf"), 1e200
    return [
        pytest.param(x[0], y, r"x must be \(n, 3\), got shape \(3,\)", id="x 1-D"),
        pytest.param(x[:, :2], y, r"x must be \(n, 3\), got shape \(4, 2\)", id="x narrow"),
        pytest.param(x, y[:3], r"y must be \(4, c\) to fit x, got shape \(3, 2\)", id="y short"),
        pytest.param(x, y[:, 0], r"y must be \(4, c\) to fit x, got shape \(4,\)", id="y 1-D"),
        pytest.param(nan, y, r"x must be finite .* got nan", id="x nan"),
        pytest.param(x, inf, r"y must be finite .* got -inf", id="y inf"),
        pytest.param(huge, y, r"x must be finite and its squares too, got 1e\+200", id="x overflows"),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("x", "y", "message"), bad_batches())
def test_a_rejected_batch_leaves_the_learner_unchanged(form: Any, x: Tensor, y: Tensor, message: str) -> None:
    stream = RecursiveRidge(3, form=form).update(normal(5, 3), normal(5, 1))
    before = copy.deepcopy(stream.state_dict())
    with pytest.raises(ValueError, match=message):
        stream.update(x, y)
    assert all(before[key].equal(value) for key, value in stream.state_dict().items())


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan"), float("inf")])
def test_names_a_bad_penalty(penalty: float) -> None:
    for make in (
        lambda: RecursiveRidge(3, penalty=penalty),
        lambda: ridge(normal(4, 3), normal(4, 1), penalty=penalty),
    ):
        with pytest.raises(ValueError, match=f"penalty must be positive and finite, got {penalty}"):
            make()


def test_names_other_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"x must be floating point, got torch\.int64"):
        ridge(torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 1))
    with pytest.raises(
        ValueError, match=r"x must be \(\.\.\., n, d\) and y \(\.\.\., n, c\), got \(3, 2\) and \(4, 1\)"
    ):
        ridge(torch.ones(3, 2), torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"form must be 'information' or 'covariance', got 'qr'"):
        RecursiveRidge(3, form="qr")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"in_features must be >= 1 and out_features >= 0, got 0 and 0"):
        RecursiveRidge(0)
    with pytest.raises(ValueError, match=r"dtype must be torch\.float64 or torch\.float32, got torch\.bfloat16"):
        RecursiveRidge(3, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"got 0 samples so far"):
        RecursiveRidge(3, 2)(normal(4, 3))
    with pytest.raises(ValueError, match=r"x must be \(\.\.\., 3\), got shape \(4, 2\)"):
        RecursiveRidge(3).update(normal(4, 3), normal(4, 1))(normal(4, 2))


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (
            RecursiveRidge(3, form="covariance"),
            ValueError,
            "form must be 'information' to merge, got 'information' and",
        ),
        (RecursiveRidge(4), ValueError, "other.in_features must be 3, got 4"),
        (RecursiveRidge(3, penalty=2.0), ValueError, r"other.penalty must be 1\.0, got 2\.0"),
        ("ridge", TypeError, "other must be a RecursiveRidge, got str"),
    ],
)
def test_merge_names_what_does_not_fit(other: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RecursiveRidge(3).merge(other)
    with pytest.raises(ValueError, match="form must be"):
        RecursiveRidge(3, form="covariance").merge(RecursiveRidge(3))


def test_failed_factorisations_name_the_penalty() -> None:
    same = 1e6 * torch.ones(8, 8)  # in float32 the Gram matrix swallows a penalty of 1
    with pytest.raises(RuntimeError, match=r"not positive definite in torch\.float32: penalty=1 is too small"):
        ridge(same, same)
    stream = RecursiveRidge(8, dtype=torch.float32).update(same, same)
    with pytest.raises(RuntimeError, match="penalty=1 is too small"):
        _ = stream.weight
    stream = RecursiveRidge(3, 1, form="covariance")
    stream.covariance[2, 2] = -1  # what rounding does to it in the end
    before = copy.deepcopy(stream.state_dict())
    with pytest.raises(RuntimeError, match="penalty=1 is too small"):
        stream.update(
            3 * torch.eye(3)[[0, 1, 0, 2]], torch.ones(4, 2)
        )  # the first chunk goes through, the second fails
    assert all(before[key].equal(value) for key, value in stream.state_dict().items())


def test_repr_says_what_it_holds() -> None:
    assert repr(RecursiveRidge(3, 2, penalty=0.5)) == "RecursiveRidge(3, 2, penalty=0.5, form='information')"


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_rows_that_are_no_numbers_are_named_and_targets_stay_apart(bad: float) -> None:
    for n, d in ((6, 3), (3, 6)):
        x, y = normal(n, d), normal(n, 2, seed=1)
        expected = ridge(x, y)
        spoilt = y.clone()
        spoilt[1, 0] = torch.nan
        assert ridge(x, spoilt)[:, 0].isnan().all()
        torch.testing.assert_close(ridge(x, spoilt)[:, 1], expected[:, 1])
        x[1, 1] = bad
        with pytest.raises(ValueError, match=r"x must be finite and its squares too, got -?(nan|inf)"):
            ridge(x, y)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_leaves_it_alone(form: str) -> None:
    """Also a stream whose state is in float32, which autocast would multiply in bfloat16."""
    x, y = normal(20, 5).float(), normal(20, 2, seed=1).float()

    def learned() -> tuple[Tensor, ...]:
        stream = RecursiveRidge(5, form=form, dtype=torch.float32).update(x[:12], y[:12]).update(x[12:], y[12:])
        return stream.weight, stream(x), ridge(x, y)

    expected = learned()
    with torch.autocast("cpu", torch.bfloat16):
        got = learned()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
