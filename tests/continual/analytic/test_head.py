"""AnalyticHead, StreamingLDA and AnalyticClassifier against scikit-learn, and against themselves in any partition."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor, nn

from throughline.continual.analytic import AnalyticClassifier, AnalyticHead, RandomExpansion, StreamingLDA

FORMS = ("information", "covariance")
D64 = torch.float64
DIGITS, LABELS = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
DIGITS = DIGITS / 15  # not a power of two: float32 rounds it


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=D64, generator=seeded(seed))


def learners(m: int) -> list[Any]:
    return [
        AnalyticHead(m, expansion=20, penalty=0.5, generator=seeded()),
        AnalyticHead(m, expansion=None, penalty=0.5, form="covariance"),
        StreamingLDA(m, shrinkage=0.1),
    ]


LEARNERS = [pytest.param(index, id=name) for index, name in enumerate(("expanded", "covariance", "slda"))]


def test_expansion_is_a_frozen_relu_of_the_official_law() -> None:
    layer = RandomExpansion(64, 3000, generator=seeded())
    assert not list(layer.parameters())
    assert list(layer.state_dict()) == ["weight"]
    assert layer.weight.shape == (3000, 64)
    assert layer.weight.abs().max() <= 1 / 8  # uniform on ±1/√64: variance 1/(3 · 64)
    assert abs(float(layer.weight.var()) * 192 - 1) < 0.02
    assert abs(float(layer.weight.mean())) < 1e-3
    x = normal(2, 5, 64).float()
    torch.testing.assert_close(layer(x), (x @ layer.weight.T).clamp(min=0))
    assert layer(x.double()).dtype == D64


def test_expansion_is_the_same_in_every_dtype_and_draws_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    wide, narrow = (RandomExpansion(5, 7, generator=seeded(2), dtype=d) for d in (D64, torch.float32))
    assert before.equal(torch.get_rng_state())
    assert wide.weight.float().equal(narrow.weight)
    assert not RandomExpansion(5, 7, generator=seeded(3)).weight.equal(narrow.weight)


def test_head_is_ridge_regression_on_one_hot_targets() -> None:
    head = AnalyticHead(64, expansion=150, penalty=2.0, generator=seeded())
    for rows in torch.randperm(600, generator=seeded(1)).split(50):
        head.partial_fit(DIGITS[rows], LABELS[rows])
    hidden = RandomExpansion(64, 150, generator=seeded(), dtype=D64)(DIGITS[:600])
    targets = (LABELS[:600, None] == head.classes).double()
    expected = Ridge(alpha=2.0, fit_intercept=False, solver="svd").fit(hidden, targets).coef_.T
    torch.testing.assert_close(head.weight, torch.from_numpy(expected), rtol=1e-9, atol=1e-11)
    accuracy = (head.predict(DIGITS[600:]) == LABELS[600:]).double().mean()
    assert accuracy > 0.85


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)
@given(data=st.data())
def test_weights_do_not_depend_on_order_or_partition(form: Any, data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 40))
    ids = torch.tensor(data.draw(st.lists(st.sampled_from([-7, 0, 3, 10**12]), min_size=n, max_size=n)))
    order = torch.tensor(data.draw(st.permutations(range(n))))
    x = normal(n, 4, seed=data.draw(st.integers(0, 99)))
    joint = AnalyticHead(4, expansion=9, penalty=0.1, form="information", generator=seeded()).partial_fit(x, ids)
    stream = AnalyticHead(4, expansion=9, penalty=0.1, form=form, generator=seeded())
    for rows in order.split(data.draw(st.integers(1, n))):
        stream.partial_fit(x[rows], ids[rows])
    assert stream.classes.sort().values.equal(joint.classes.sort().values)
    torch.testing.assert_close(
        stream.weight[:, stream.classes.argsort()], joint.weight[:, joint.classes.argsort()], rtol=1e-9, atol=1e-10
    )


def test_returning_classes_gain_and_forgetting_is_impossible() -> None:
    x, y = normal(200, 6), torch.arange(200) % 2
    head = AnalyticHead(6, expansion=None, penalty=1.0)
    for part in (y == 0, y == 1, y == 0):  # class 0 returns with the same rows: they count twice
        head.partial_fit(x[part], y[part])
    twice = torch.cat((x, x[y == 0]))
    expected = Ridge(alpha=1.0, fit_intercept=False).fit(twice, np.r_[np.eye(2)[y], np.eye(2)[y[y == 0]]]).coef_.T
    torch.testing.assert_close(head.weight, torch.from_numpy(expected))


@pytest.mark.parametrize("which", LEARNERS)
def test_classes_come_in_order_of_first_appearance(which: int) -> None:
    learner = learners(3)[which]
    learner.partial_fit(normal(5, 3), torch.tensor([9, -2, 9, 400, -2], dtype=torch.int32))
    learner.partial_fit(normal(3, 3), torch.tensor([5, 9, 0], dtype=torch.uint8))
    assert learner.classes.tolist() == [9, -2, 400, 5, 0]
    scores = learner(normal(2, 7, 3))
    assert scores.shape == (2, 7, 5)
    assert learner.predict(normal(2, 7, 3)).equal(learner.classes[scores.argmax(-1)])
    assert learner.predict(normal(3)).shape == ()


@pytest.mark.parametrize("which", LEARNERS)
def test_an_empty_batch_changes_nothing(which: int) -> None:
    learner = learners(3)[which]
    assert learner.partial_fit(normal(0, 3), torch.zeros(0, dtype=torch.int64)) is learner
    assert len(learner.classes) == 0
    with pytest.raises(ValueError, match="partial_fit must be called with data before forward or predict"):
        learner(normal(2, 3))
    learner.partial_fit(normal(5, 3), torch.arange(5))
    weight = learner.weight.clone()
    assert learner.partial_fit(normal(0, 3), torch.zeros(0, dtype=torch.int64)).weight.equal(weight)


@pytest.mark.parametrize("which", LEARNERS)
def test_works_behind_a_frozen_backbone_in_its_dtype(which: int) -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout()).eval()
    images = torch.randn(40, 3, 2, 2)
    learner = learners(8)[which].partial_fit(backbone(images), torch.arange(40) % 4)
    model = nn.Sequential(backbone, learner)
    scores = model(images)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert learner.weight.dtype == D64
    assert model(images[:1]).shape == (1, 4)
    assert learner(torch.ones(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert learner(torch.ones(2, 8, dtype=torch.uint8)).dtype == D64


def test_takes_an_expansion_module_of_any_dtype() -> None:
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Linear(6, 11), nn.BatchNorm1d(11), nn.Tanh()).eval()
    state = copy.deepcopy(mine.state_dict())
    head = AnalyticHead(6, expansion=mine, penalty=0.3).partial_fit(normal(30, 6), torch.arange(30) % 3)
    hidden = mine(normal(30, 6).float()).double().detach()
    expected = Ridge(alpha=0.3, fit_intercept=False).fit(hidden, np.eye(3)[np.arange(30) % 3]).coef_.T
    torch.testing.assert_close(head.weight, torch.from_numpy(expected))
    assert all(state[key].equal(value) for key, value in mine.state_dict().items())
    assert head(normal(2, 6)).shape == (2, 3)
    AnalyticHead(6, expansion=copy.deepcopy(mine).train())  # finding its width leaves training mode and statistics
    assert state["1.running_mean"].equal(mine.state_dict()["1.running_mean"])


@pytest.mark.parametrize("which", LEARNERS)
def test_state_dict_and_pickle_restore_a_stream_in_the_middle(which: int) -> None:
    x, y = normal(60, 5), torch.randint(6, (60,), generator=seeded(3)) * 7
    learner = learners(5)[which].partial_fit(x[:30], y[:30])
    learner(x)  # a solved weight must not travel stale
    twin = learners(5)[which].partial_fit(x[:2], torch.tensor([1, 2]))
    twin(x)
    twin.load_state_dict(learner.state_dict())
    for copied in (twin, pickle.loads(pickle.dumps(learner)), copy.deepcopy(learner)):
        assert copied.classes.equal(learner.classes)
        assert copied(x).equal(learner(x))
        copied.partial_fit(x[30:], y[30:])
    whole = learners(5)[which].partial_fit(x, y)
    torch.testing.assert_close(twin(x), whole(x), rtol=1e-9, atol=1e-10)
    assert len(learner.classes) == len(y[:30].unique())


def bad_batches() -> list[Any]:
    x, y = normal(4, 3), torch.tensor([0, 1, 2, 3])
    nan, inf = x.clone(), x.clone()
    nan[1, 1], inf[2] = float("nan"), float("-inf")
    return [
        pytest.param(x[0], y, r"features must be \(n, 3\), got shape \(3,\)", id="1-D"),
        pytest.param(x[:, :2], y, r"features must be \(n, 3\), got shape \(4, 2\)", id="narrow"),
        pytest.param(x, y[:3], r"labels must be \(4,\) to fit features, got shape \(3,\)", id="short"),
        pytest.param(x, y[:, None], r"labels must be \(4,\) to fit features, got shape \(4, 1\)", id="2-D labels"),
        pytest.param(x, y.double(), r"labels must be integer class ids, got torch\.float64", id="float labels"),
        pytest.param(x, y > 1, r"labels must be integer class ids, got torch\.bool", id="bool labels"),
        pytest.param(nan, y, "features must be finite, got NaN", id="nan"),
        pytest.param(inf, y, "features must be finite, got NaN", id="an infinity that a ReLU hides"),
    ]


@pytest.mark.parametrize("which", LEARNERS)
@pytest.mark.parametrize(("x", "y", "message"), bad_batches())
def test_a_rejected_batch_leaves_the_learner_unchanged(which: int, x: Tensor, y: Tensor, message: str) -> None:
    learner = learners(3)[which].partial_fit(normal(5, 3), torch.arange(5) + 2)
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(ValueError, match=message):
        learner.partial_fit(x, y)
    assert before.keys() == learner.state_dict().keys()
    assert all(before[key].equal(value) for key, value in learner.state_dict().items())


def test_features_that_overflow_only_after_expansion_are_rejected_too() -> None:
    head = AnalyticHead(2, expansion=nn.Hardtanh(0, 1), penalty=1.0).partial_fit(normal(5, 2), torch.arange(5))
    blown = AnalyticHead(2, expansion=_Blown())
    with pytest.raises(ValueError, match="x must be finite"):
        blown.partial_fit(normal(2, 2), torch.tensor([0, 1]))
    assert len(blown.classes) == 0
    assert len(head.classes) == 5


class _Blown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnalyticHead(3, penalty=0.0), r"penalty must be positive and finite, got 0\.0"),
        (lambda: AnalyticHead(3, penalty=float("inf")), "penalty must be positive and finite, got inf"),
        (lambda: AnalyticHead(0), "in_features must be >= 1, got 0"),
        (lambda: AnalyticHead(3, expansion=0), "in_features and out_features must be >= 1, got 3 and 0"),
        (lambda: AnalyticHead(3, form="qr"), "form must be 'information' or 'covariance', got 'qr'"),  # type: ignore
        (lambda: AnalyticHead(3, expansion=nn.Flatten(0)), r"expansion must map \(n, 3\) to \(n, d\), got \(3,\)"),
        (lambda: RandomExpansion(3, -1), "in_features and out_features must be >= 1, got 3 and -1"),
        (lambda: RandomExpansion(3)(normal(4, 2)), r"features must be \(\.\.\., 3\), got shape \(4, 2\)"),
        (lambda: StreamingLDA(0), "in_features must be >= 1, got 0"),
        (lambda: StreamingLDA(3, shrinkage=0.0), r"shrinkage must be in \(0, 1\], got 0\.0"),
        (lambda: StreamingLDA(3, shrinkage=float("nan")), r"shrinkage must be in \(0, 1\], got nan"),
        (lambda: StreamingLDA(3, dtype=torch.float16), r"dtype must be torch\.float64 or torch\.float32"),
        (lambda: AnalyticHead(3).predict(normal(4, 3)), "partial_fit must be called with data before"),
        (lambda: StreamingLDA(3).predict(normal(4, 3)), "partial_fit must be called with data before"),
        (lambda: StreamingLDA(3)(normal(4, 2)), r"features must be \(\.\.\., 3\), got shape \(4, 2\)"),
    ],
)
def test_names_the_bad_argument(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("batch", [1, 7, 200])
@pytest.mark.parametrize("shrinkage", [0.01, 0.5])
def test_streaming_lda_agrees_with_scikit_learn(batch: int, shrinkage: float) -> None:
    y = torch.arange(200) % 4  # balanced: scikit-learn's priors then cancel
    x = normal(200, 5) @ normal(5, 5, seed=1) + normal(4, 5, seed=2)[y]
    centred = x - torch.stack([x[y == c].mean(0) for c in range(4)])[y]
    x = x / (centred.square().sum() / 1000).sqrt()  # mean variance 1: shrinkage to its identity is shrinkage to ours
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(x.numpy(), y.numpy())
    lda = StreamingLDA(5, shrinkage=shrinkage)
    for rows in torch.randperm(200, generator=seeded()).split(batch):
        lda.partial_fit(x[rows], y[rows])
    order = lda.classes.argsort()
    torch.testing.assert_close(lda.weight[:, order], torch.from_numpy(peer.coef_.T), rtol=1e-10, atol=1e-11)
    expected = torch.from_numpy(peer.decision_function(x.numpy())) - np.log(0.25)
    torch.testing.assert_close(lda(x)[:, order], expected, rtol=1e-10, atol=1e-11)


def test_streaming_lda_has_no_priors() -> None:
    x = torch.tensor([[-1.0], [-1.0], [-1.0], [-1.0], [1.0]], dtype=D64)
    lda = StreamingLDA(1, shrinkage=0.5).partial_fit(x, torch.tensor([0, 0, 0, 0, 1]))
    assert lda(torch.zeros(1, 1, dtype=D64)).diff().abs().max() < 1e-12  # half way, whatever the counts


def test_streaming_lda_names_the_shrinkage_when_the_covariance_is_singular() -> None:
    lda = StreamingLDA(3, shrinkage=1e-12, dtype=torch.float32)
    lda.partial_fit(1e4 * torch.randn(50, 1, generator=seeded()).expand(50, 3), torch.zeros(50, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="shrinkage=1e-12 is too small"):
        lda(torch.ones(1, 3))


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [AnalyticClassifier(48, random_state=0), AnalyticClassifier(None)],
    expected_failed_checks=lambda _: {"check_array_api_input": "runs only where SCIPY_ARRAY_API is set"},
)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("names", [list("zyxwvutsrq"), range(10)])
def test_fit_equals_partial_fit_over_any_partition(names: Any) -> None:
    x, y = DIGITS.numpy()[:500], np.array(names)[LABELS[:500]]
    whole = AnalyticClassifier(80, penalty=0.5, random_state=4).fit(x, y)
    parts = AnalyticClassifier(80, penalty=0.5, random_state=4)
    order = np.argsort(y, kind="stable")[::-1]  # class by class: every batch brings labels never announced
    for rows in np.array_split(order, 17):
        parts.partial_fit(x[rows], y[rows], classes=y[rows])
    assert list(parts.classes_) == sorted(names) == list(whole.classes_)
    np.testing.assert_allclose(parts.decision_function(x), whole.decision_function(x), rtol=1e-8, atol=1e-10)
    assert whole.score(x, y) > 0.9


def test_classifier_is_ridge_regression() -> None:
    x, y = DIGITS.numpy()[:300], LABELS.numpy()[:300]
    ours = AnalyticClassifier(None, penalty=3.0).fit(x, y)
    peer = Ridge(alpha=3.0, fit_intercept=False, solver="svd").fit(x, np.eye(10)[y])
    np.testing.assert_allclose(ours.coef_, peer.coef_, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours.decision_function(x), peer.predict(x), rtol=1e-8, atol=1e-10)


def test_classifier_fits_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = AnalyticClassifier(30, random_state=0).fit(DIGITS.numpy(), LABELS.numpy())
    monkeypatch.setattr("throughline.continual.analytic.classifier.ROWS", 100)
    pieces = AnalyticClassifier(30, random_state=0).fit(DIGITS.numpy(), LABELS.numpy())
    np.testing.assert_allclose(
        pieces.decision_function(DIGITS.numpy()), whole.decision_function(DIGITS.numpy()), rtol=1e-9, atol=1e-12
    )
    assert (pieces.predict(DIGITS.numpy()) == whole.predict(DIGITS.numpy())).all()


def test_classifier_in_a_pipeline_and_before_fit() -> None:
    model = make_pipeline(StandardScaler(), AnalyticClassifier(100, penalty=10.0, random_state=0))
    assert cross_val_score(model, DIGITS.numpy(), LABELS.numpy(), cv=3).mean() > 0.85
    for method in ("predict", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(AnalyticClassifier(), method)(DIGITS.numpy())


def test_classifier_of_one_class_then_two() -> None:
    model = AnalyticClassifier(None).partial_fit([[1.0], [2.0]], ["b", "b"])
    assert model.predict([[1.0]]).tolist() == ["b"]
    model.partial_fit([[-1.0]], ["a"])
    assert model.classes_.tolist() == ["a", "b"]
    assert model.decision_function([[1.0]]).shape == (1,)
    assert model.predict([[1.0], [-1.0]]).tolist() == ["b", "a"]


def test_features_are_selected_by_columns_of_x_or_not_at_all() -> None:
    """Weights of the expansion are not those of columns."""
    x, y = DIGITS.numpy()[:300], LABELS.numpy()[:300]
    plain = SelectFromModel(AnalyticClassifier(None, penalty=3.0)).fit(x, y)
    assert plain.get_support().shape == (64,)
    assert RFE(AnalyticClassifier(None, penalty=3.0), n_features_to_select=60).fit(x, y).get_support().sum() == 60
    expanded = AnalyticClassifier(50, random_state=0).fit(x, y)
    assert not hasattr(expanded, "coef_")
    with pytest.raises(AttributeError, match=r"coef_ is one weight for each column of X: fit with expansion=None"):
        _ = expanded.coef_
    with pytest.raises(ValueError, match="importance_getter"):
        SelectFromModel(expanded).fit(x, y).get_support()
    assert not hasattr(AnalyticClassifier(None), "coef_")  # before fit
    assert expanded.set_params(expansion=None).fit(x, y).coef_.shape == (10, 64)


def test_labels_of_another_kind_are_named_and_change_nothing() -> None:
    for first, then, message in (
        ([1, 2], ["1", "b"], "texts after numbers"),
        ([1, 2], np.array(["1", "b"], dtype=object), "texts after numbers"),
        (["1", "b"], [1, 2], "numbers after texts"),
    ):
        model = AnalyticClassifier(None).fit(np.eye(2), first)
        before = model.predict(np.eye(2))
        with pytest.raises(ValueError, match=f"y must hold labels of one kind in all pieces, got {message}"):
            model.partial_fit(np.eye(2), then)
        assert list(model.predict(np.eye(2))) == list(before)
        model.partial_fit(np.eye(2)[:1], first[:1])


@pytest.mark.parametrize("which", LEARNERS)
def test_labels_are_taken_as_data_sets_have_them(which: int) -> None:
    expected = learners(64)[which].partial_fit(DIGITS[:50], LABELS[:50])
    for labels in (LABELS[:50].tolist(), LABELS[:50].numpy().astype(np.uint8)):
        got = learners(64)[which].partial_fit(DIGITS[:50], labels)
        assert got.predict(DIGITS).equal(expected.predict(DIGITS))
    assert learners(64)[which].partial_fit(DIGITS[:0], []).classes.numel() == 0


@pytest.mark.parametrize("make", [lambda: StreamingLDA(64, dtype=torch.float32), lambda: RandomExpansion(64, 80)])
def test_autocast_leaves_float32_alone(make: Any) -> None:
    torch.manual_seed(0)
    module = make()
    if isinstance(module, StreamingLDA):
        module.partial_fit(DIGITS, LABELS)
    expected = module(DIGITS.float())
    with torch.autocast("cpu", torch.bfloat16):
        got = module(DIGITS.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
