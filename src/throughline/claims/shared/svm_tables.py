"""Hyperparameter tables of real data sets: an RBF support vector machine at 256 settings, computed once and cached."""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.data import Table, embedded, read_table, standardize, stratified_split
from throughline.data.cache import kept

__all__ = ["DIGITS", "SETS", "SETTINGS", "SUBSAMPLES", "svc_scores", "svc_settings", "svc_tables"]

SETTINGS, SUBSAMPLES = 256, 2
MOST_ROWS, TRAINING, VALIDATION = 4_000, 160, 240
FEWEST = 8  # rows of a class
ITERATIONS = 20_000
DIGITS = ("digits", "digits_parity", "digits_halves", "digits_38", "digits_179")  # of the same pictures
FILES = {  # of the registry; the label is the last column, or whether that exceeds a threshold
    "sonar": "sonar",
    "ionosphere": "ionosphere",
    "pima": "pima-indians-diabetes",
    "haberman": "haberman",
    "banknote": "banknote_authentication",
    "ecoli": "ecoli",
    "glass": "glass",
    "german": "german",
    "phoneme": "phoneme",
    "mammography": "mammography",
    "oil_spill": "oil-spill",
    "adult": "adult-train",
    "wine_red": "winequality-red",
    "wine_white": "winequality-white",
    "abalone": "abalone",
    "housing": "housing",
}
IDS = {"oil_spill": (0,)}  # columns that only number the rows
THRESHOLDS: dict[str, Callable[[NDArray[Any]], float]] = {
    "wine_red": lambda y: 5.5,
    "wine_white": lambda y: 5.5,
    "abalone": np.median,
    "housing": np.median,
    "diabetes": np.median,
}
SETS = ("iris", "wine", "breast_cancer", "diabetes", *DIGITS, *FILES)


class Rows(NamedTuple):
    """One classification set: features and class numbers."""

    x: NDArray[np.float64]
    y: NDArray[np.int64]


def svc_tables() -> dict[str, Tensor]:
    """Balanced accuracy on validation rows of every set, ``(2, 256)`` each, in the order of `svc_settings`.

    Computed on the first call, a minute or two, and kept in the user's cache.
    """
    data = {name: classification_set(name) for name in SETS}
    return kept("tables", _key(data), lambda: dict(_computed(data)))


def svc_settings() -> Tensor:
    """The 256 settings, points of a Sobol sequence in [0, 1]³: log C, log gamma, and the power of the class weights."""
    engine = torch.quasirandom.SobolEngine(3, scramble=True, seed=0)  # type: ignore[no-untyped-call]
    return engine.draw(SETTINGS)


def svc_scores(rows: Rows, settings: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Balanced accuracy of every setting on one subsample of a set, ``(settings,)``.

    C = 10^(−2 + 5 u₁), gamma = 10^(−4 + 5 u₂), and class c weighs (n / (k n_c))^u₃: none at 0, balanced at 1.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.svm import SVC

    draw = np.random.default_rng(seed)
    order = draw.permutation(len(rows.y))[:MOST_ROWS]
    order = order[_frequent(rows.y[order])]
    x, y = rows.x[order], rows.y[order]
    train, test = stratified_split(y, seed, test=max(0.4, 1 - TRAINING / len(y)))
    test = test[:VALIDATION]
    x_train, x_test = (np.clip(part, -5, 5) for part in standardize(x[train], x[test]))
    classes, counts = np.unique(y[train], return_counts=True)
    balanced = len(train) / (len(classes) * counts)
    scores = np.empty(len(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that is cut off is an outcome, too
        for i, (u1, u2, u3) in enumerate(settings):
            weights = dict(zip(classes.tolist(), (balanced**u3).tolist(), strict=True))
            model = SVC(C=10 ** (-2 + 5 * u1), gamma=10 ** (-4 + 5 * u2), class_weight=weights, max_iter=ITERATIONS)
            scores[i] = balanced_accuracy_score(y[test], model.fit(x_train, y[train]).predict(x_test))
    return scores


def classification_set(name: str) -> Rows:
    """A set by its name in `SETS`; classes of fewer than eight rows are left out."""
    if name in DIGITS:
        rows = _digits(name)
    else:
        table = read_table(f"tabular/{FILES[name]}.csv", drop=IDS.get(name, ())) if name in FILES else embedded(name)  # type: ignore[arg-type]
        rows = Rows(table.x, _labels(name, table))
    frequent = _frequent(rows.y)
    return Rows(rows.x[frequent], rows.y[frequent])


def _labels(name: str, table: Table) -> NDArray[np.int64]:
    if name in THRESHOLDS:
        return (table.y > THRESHOLDS[name](table.y)).astype(np.int64)
    return np.unique(table.y, return_inverse=True)[1].astype(np.int64)


def _digits(name: str) -> Rows:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    if name in ("digits_38", "digits_179"):
        of = [int(digit) for digit in name.removeprefix("digits_")]
        chosen = np.isin(y, of)
        return Rows(x[chosen], np.searchsorted(of, y[chosen]))
    return Rows(x, {"digits": y, "digits_parity": y % 2, "digits_halves": y // 5}[name].astype(np.int64))


def _frequent(y: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.bincount(y)[y] >= FEWEST


def _computed(data: Mapping[str, Rows]) -> Iterator[tuple[str, Tensor]]:
    settings = svc_settings().double().numpy()
    for name, rows in data.items():
        scores = [svc_scores(rows, settings, seed) for seed in range(SUBSAMPLES)]
        yield name, torch.from_numpy(np.stack(scores))


def _key(data: Mapping[str, Rows]) -> dict[str, Any]:
    """All that the scores depend on; the versions are those whose arithmetic they go through."""
    digests = {
        name: hashlib.sha256(np.ascontiguousarray(rows.x).tobytes() + rows.y.tobytes()).hexdigest()
        for name, rows in data.items()
    }
    return {
        "what": "balanced accuracy of RBF-SVC",
        "versions": [sklearn.__version__, np.__version__, torch.__version__],
        "settings": [SETTINGS, SUBSAMPLES, MOST_ROWS, TRAINING, VALIDATION, FEWEST, ITERATIONS],
        "sets": digests,
    }
