"""MetricClassifier: scikit-learn's own checks, the metric it is trained on, and what it must refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, fbeta_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from throughline.discrete.confusion import MetricClassifier, fbeta, metric_loss, soft_confusion

X, Y = make_classification(600, 5, weights=[0.9], class_sep=0.6, flip_y=0.05, random_state=0)
X = StandardScaler().fit_transform(X)
QUICK: dict[str, Any] = {"max_iter": 60, "learning_rate_init": 0.05}


@parametrize_with_checks([MetricClassifier(learning_rate_init=0.1, max_iter=60)])
def test_scikit_learn_accepts_it(estimator: Any, check: Any) -> None:
    check(estimator)


def test_it_says_that_it_is_binary() -> None:
    assert MetricClassifier().__sklearn_tags__().classifier_tags.multi_class is False


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("f1", f1_score),
        ("f2", lambda t, p: fbeta_score(t, p, beta=2)),
        ("balanced_accuracy", balanced_accuracy_score),
    ],
)
def test_it_beats_logistic_regression_on_its_metric(metric: str, score: Any) -> None:
    ours = score(Y, MetricClassifier(metric, max_iter=300).fit(X, Y).predict(X))
    assert ours > score(Y, LogisticRegression().fit(X, Y).predict(X)) + 0.05


def test_linear_case_is_adam_on_the_loss_from_zero() -> None:
    fitted = MetricClassifier("gmean", alpha=0.3, **QUICK).fit(X, Y)
    weight, bias = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (5, 1))
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    curve = []
    for _ in range(60):
        loss = metric_loss(torch.as_tensor(X) @ weight + bias, torch.as_tensor(Y), "gmean")
        curve.append(loss.item())
        optimizer.zero_grad()
        (loss + 0.3 / 2 * weight.square().sum() / len(Y)).backward()
        optimizer.step()
    np.testing.assert_allclose(fitted.loss_curve_, curve, rtol=1e-6)
    np.testing.assert_allclose(fitted.coef_[0], weight.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(fitted.intercept_, bias.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(fitted.decision_function(X), X @ fitted.coef_[0] + fitted.intercept_)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 60


def test_probabilities_follow_the_classes() -> None:
    names = np.array(["no", "yes"])
    fitted = MetricClassifier(**QUICK).fit(X, names[Y])
    proba = fitted.predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1)
    assert (names[proba.argmax(1)] == fitted.predict(X)).all()


def test_the_positive_label_decides_what_f1_means() -> None:
    rare, common = (MetricClassifier(pos_label=label, max_iter=300).fit(X, Y) for label in (1, 0))
    assert f1_score(Y, rare.predict(X)) > f1_score(Y, common.predict(X))
    assert f1_score(Y, common.predict(X), pos_label=0) > f1_score(Y, rare.predict(X), pos_label=0)
    flipped = MetricClassifier(max_iter=300).fit(X, 1 - Y)  # classes_[1] is now the common one
    np.testing.assert_allclose(flipped.decision_function(X), -common.decision_function(X))
    np.testing.assert_allclose(flipped.coef_, -common.coef_)


@pytest.mark.parametrize(
    "options", [{}, {"hidden_layer_sizes": (3,)}, {"hidden_layer_sizes": (4, 2), "batch_size": 64}]
)
def test_one_random_state_one_model(options: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    fit = clone(MetricClassifier(random_state=3, **QUICK, **options)).fit
    one, two = fit(X, Y).decision_function(X), fit(X, Y).decision_function(X)
    assert (one == two).all()
    assert (torch.get_rng_state() == before).all()
    other = MetricClassifier(random_state=4, **QUICK, **options).fit(X, Y).decision_function(X)
    assert (one == other).all() == (not options)


def test_a_network_is_the_papers_and_learns_what_no_line_can() -> None:
    ring = np.random.default_rng(0).normal(size=(800, 2))
    inside = (np.hypot(*ring.T) < 0.6).astype(int)
    options = {"learning_rate_init": 0.1, "max_iter": 300, "random_state": 0}
    network = MetricClassifier("balanced_accuracy", hidden_layer_sizes=(8,), **options).fit(ring, inside)
    assert [type(layer).__name__ for layer in network.network_] == ["Linear", "BatchNorm1d", "Sigmoid", "Linear"]
    assert not hasattr(network, "coef_")
    alone = np.concatenate([network.decision_function(ring[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(alone, network.decision_function(ring)[:5])  # batch normalisation has its own moments
    line = MetricClassifier("balanced_accuracy", **options).fit(ring, inside)
    scores = [balanced_accuracy_score(inside, model.predict(ring)) for model in (network, line)]
    assert scores[0] > scores[1] + 0.1


@pytest.mark.parametrize("size", [2, 4, 7, 8, 9, 100])
def test_every_batch_size_works(size: int) -> None:  # 9 rows in batches of 4 would leave one alone
    options = {"hidden_layer_sizes": (2,), "batch_size": size, "max_iter": 2, "random_state": 0}
    assert np.isfinite(MetricClassifier(**options).fit(X[:9], [0, 1, 0, 0, 0, 0, 0, 0, 0]).loss_curve_).all()


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5}])
def test_weights_are_repetitions(options: dict[str, Any]) -> None:
    weight = np.random.default_rng(0).integers(0, 4, len(Y))
    weighted = MetricClassifier(**QUICK, **options).fit(X, Y, sample_weight=weight)
    repeated = MetricClassifier(**QUICK, **options).fit(X.repeat(weight, 0), Y.repeat(weight))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6)


def test_penalty_shrinks() -> None:
    sizes = [np.abs(MetricClassifier(alpha=alpha, **QUICK).fit(X, Y).coef_).sum() for alpha in (0.0, 1e3)]
    assert sizes[1] < sizes[0] / 2


def test_a_score_of_ones_own_and_no_amplification() -> None:
    fitted = MetricClassifier(lambda c: fbeta(c, 3.0), amplification=None, **QUICK).fit(X, Y)
    counts = soft_confusion(torch.as_tensor(fitted.decision_function(X)), torch.as_tensor(Y), amplification=None)
    assert fitted.loss_curve_[0] > fitted.loss_curve_[-1] > 1 - fbeta(counts, 3.0).item()


def test_it_fits_into_the_tools_of_scikit_learn() -> None:
    pipeline = make_pipeline(StandardScaler(), MetricClassifier(**QUICK))
    search = GridSearchCV(pipeline, {"metricclassifier__metric": ["accuracy", "f1"]}, scoring="f1", cv=2).fit(X, Y)
    assert search.best_params_ == {"metricclassifier__metric": "f1"}
    assert cross_val_score(pipeline, X, Y, cv=2).shape == (2,)


def test_it_trains_inside_no_grad_and_on_read_only_memory() -> None:
    frozen = X.copy()
    frozen.flags.writeable = False
    with torch.no_grad():
        fitted = MetricClassifier(**QUICK).fit(frozen, Y)
    assert (fitted.predict(frozen) == MetricClassifier(**QUICK).fit(X, Y).predict(X)).all()


@pytest.mark.parametrize(
    ("match", "options", "y"),
    [
        (r"Only binary .* got 3", {}, np.arange(600) % 3),
        (r"two classes, got one class", {}, np.zeros(600)),
        (r"batch_size must be at least 2, .* got 1", {"batch_size": 1}, Y),
        (r"pos_label must be one of .*\[0, 1\], got 7", {"pos_label": 7}, Y),
        (r"metric must be .* got 'auc'", {"metric": "auc"}, Y),
        (r"amplification must be positive .* got -1", {"amplification": -1}, Y),
        (r"max_iter must be at least 1, got 0", {"max_iter": 0}, Y),
        (r"learning_rate_init must be positive .* got 0", {"learning_rate_init": 0}, Y),
        (r"alpha must be .* got -1", {"alpha": -1}, Y),
        (r"hidden_layer_sizes must .* got \(3, 0\)", {"hidden_layer_sizes": (3, 0)}, Y),
    ],
)
def test_bad_input_is_named(match: str, options: dict[str, Any], y: Any) -> None:
    with pytest.raises(ValueError, match=match):
        MetricClassifier(**options).fit(X, y)


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match="NaN"):
        MetricClassifier().fit(np.where(X > 2, np.nan, X), Y)
    for weight in (np.where(Y == 1, -1.0, 1.0), np.zeros(600)):
        with pytest.raises(ValueError, match=r"(?i)sample.weight"):  # scikit-learn itself refuses some
            MetricClassifier().fit(X, Y, sample_weight=weight)


def test_options_as_tuners_give_them() -> None:
    options = {"max_iter": np.int64(3), "batch_size": np.int64(50), "random_state": 0}
    expected = MetricClassifier(hidden_layer_sizes=(10,), **options).fit(X, Y).decision_function(X)
    for sizes in (10, np.int64(10), [10], np.array([10])):
        assert (MetricClassifier(hidden_layer_sizes=sizes, **options).fit(X, Y).decision_function(X) == expected).all()


@pytest.mark.parametrize(
    ("match", "options"),
    [
        (r"batch_size must be an integer, or None for all rows, got 'auto'", {"batch_size": "auto"}),
        (r"max_iter must be an integer, got 20\.0", {"max_iter": 20.0}),
        (r"hidden_layer_sizes must be an integer, or several, got 10\.0", {"hidden_layer_sizes": 10.0}),
        (r"hidden_layer_sizes must be an integer, or several, got 2\.5", {"hidden_layer_sizes": (3, 2.5)}),
    ],
)
def test_what_is_no_count_is_named(match: str, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=match):
        MetricClassifier(**options).fit(X, Y)
