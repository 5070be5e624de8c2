"""AnyLoss's claim: thresholds by brute force, the baseline against scikit-learn, its data, a round at paper scale."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tests.claims.stand_ins import Notes
from torch import Tensor, nn

from throughline.claims.anyloss.claim import MetricAsLoss
from throughline.claims.anyloss.config import Config
from throughline.claims.anyloss.data import Split, Tabular, splits, table_splits, tables
from throughline.claims.anyloss.training import (
    LOSSES,
    SCORES,
    Fitted,
    fit_mlp,
    fit_slp,
    histogram,
    measure,
)
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError

CLAIM = MetricAsLoss()
SMALL = Config(sets=("haberman",), steps=20)


def one(name: str = "haberman", seed: int = 0) -> Split:
    return next(table_splits(tables((name,), "uci", None), 0, seed, torch.float64))


def test_only_the_threshold_arm_moves_the_threshold() -> None:
    split = Split("", torch.zeros(4, 1), torch.tensor([1.0, 1, 0, 0]), torch.zeros(3, 1), torch.tensor([1.0, 0, 0]))
    fitted = Fitted(torch.tensor([-1.0, -2, -3, -4]), torch.tensor([-2.0, -2.7, -5]), [])
    assert measure("bce", fitted, split)[0] == 0  # nothing lies above 0
    assert measure("bce_threshold", fitted, split) == [1.0, 1.0, 1.0, 1.0]  # between -2 and -3


@pytest.mark.parametrize(
    ("arm", "pull"),
    [
        ("bce", lambda y: 0.5 - y),
        ("mse", lambda y: 2 * (0.5 - y) / 4),
        # at zero weights TP = FN = P/2 and FP = N/2, so d(1 - F1)/dz = (73/16) (P (1 - y) - (P + n) y) / D²
        (
            "metric_f1",
            lambda y: len(y) * 73 / 16 * ((1 - y) * y.sum() - y * (y.sum() + len(y))) / (y.sum() + len(y) / 2) ** 2,
        ),
    ],
)
def test_first_step_by_hand(arm: str, pull: Any) -> None:
    split = one()
    x, y = np.column_stack([split.x, np.ones(len(split.x))]), split.y.numpy()
    weight = -0.05 * x.T @ pull(y) / len(y)
    fitted = fit_slp(arm, split, lr=0.05, steps=1)
    np.testing.assert_allclose(fitted.train, x @ weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fitted.test, np.column_stack([split.x_test, np.ones(len(split.x_test))]) @ weight)
    assert len(fitted.losses) == 1


@pytest.mark.parametrize("name", ["haberman", "pima-indians-diabetes", "german"])
def test_cross_entropy_arrives_at_its_optimum(name: str) -> None:
    split, config = one(name), CLAIM.scales["laptop"]
    fitted = fit_slp("bce", split, lr=config.lr, steps=config.steps)
    peer = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(split.x.numpy(), split.y.numpy())
    best = log_loss(split.y, peer.predict_proba(split.x.numpy()))
    assert log_loss(split.y, fitted.train.sigmoid()) == pytest.approx(best, abs=2e-4)


def test_the_metric_loss_trains_for_its_metric() -> None:
    split, config = one(), CLAIM.scales["laptop"]
    found = {
        arm: measure(arm, fit_slp(arm, split, lr=lr, steps=300), split)
        for arm, lr in (("bce", config.lr), ("metric_f1", config.metric_lr), ("soft_f1", config.lr))
    }
    assert min(found["metric_f1"][0], found["soft_f1"][0]) > found["bce"][0] + 0.1


def test_every_arm_has_a_loss() -> None:
    assert {*CLAIM.arms, *CLAIM.context} <= set(LOSSES)
    z, y = torch.linspace(-1, 1, 6), torch.tensor([0.0, 0, 1, 0, 1, 1])
    assert LOSSES["mse"](z, y).item() == pytest.approx(((z.sigmoid() - y) ** 2).mean().item())
    assert LOSSES["soft_f1"](z, y) != LOSSES["metric_f1"](z, y)


SETS = {  # rows, columns, rows of the positive class
    "oil-spill": (937, 48, 41),
    "phoneme": (5404, 5, 1586),
    "haberman": (306, 3, 81),
    "pima-indians-diabetes": (768, 8, 268),
    "german": (1000, 61, 300),
    "ecoli": (336, 7, 35),
    "glass": (214, 9, 29),
    "winequality-red": (1599, 11, 63),
    "abalone": (4177, 10, 364),
    "ionosphere": (351, 34, 126),
    "generated": (10_000, 2, 1047),
}


def test_the_tables_are_those_of_the_specification() -> None:
    found = {t.name: (*t.x.shape, int(t.y.sum())) for t in tables((), "uci", None)}
    assert found == SETS


def test_splits_are_paired_standardised_and_drawn_by_the_seed() -> None:
    first, again, other = one(), one(), one(seed=1)
    assert all((a == b).all() for a, b in zip(first[1:], again[1:], strict=True))
    assert not torch.equal(first.x, other.x)
    assert len(first.y_test) == 92
    assert first.y.mean() == pytest.approx(float(first.y_test.mean()), abs=0.01)
    torch.testing.assert_close(first.x.mean(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(first.x.std(0, correction=0), torch.ones(3, dtype=torch.float64))


def test_folds_test_every_row_once() -> None:
    x = np.arange(40.0)[:, None]
    parts = list(table_splits([Tabular("t", x, (np.arange(40) % 4 == 0).astype(int))], 5, 0, torch.float64))
    assert len(parts) == 5
    assert all(part.y_test.sum() == 2 for part in parts)
    assert sum(len(part.y_test) for part in parts) == 40


@pytest.mark.parametrize("arm", ["bce", "metric_f1", "bce_threshold"])
def test_a_unit_returns_every_score_and_repeats_itself(arm: str) -> None:
    log, again = Notes(), Notes()
    metrics = CLAIM.run(arm, SMALL, 0, log)
    assert metrics == CLAIM.run(arm, SMALL, 0, again)
    assert set(metrics) == {"f1", "balanced_accuracy", "gmean", "accuracy"}
    curve = [values["loss"] for _, values in log.points if values]
    assert len(curve) == 20
    assert curve[-1] < curve[0]
    assert log.arrays["names"].tolist() == ["haberman"]
    assert log.arrays["f1"].tolist() == [metrics["f1"]]
    assert log.arrays["shape"].sum() == pytest.approx(1)


def test_the_number_of_a_seed_is_the_mean_over_sets() -> None:
    both, log = replace(SMALL, sets=("haberman", "glass")), Notes()
    found = CLAIM.run("bce", both, 0, log)["f1"]
    alone = [CLAIM.run("bce", replace(both, sets=(name,)), 0, Notes())["f1"] for name in both.sets]
    assert found == pytest.approx(np.mean(alone))
    np.testing.assert_allclose(log.arrays["f1"], alone)


def test_histogram_is_of_probabilities() -> None:
    shape = histogram(torch.tensor([-50.0, -50.0, 0.01, 50.0]))
    assert (shape[0], shape[20], shape[-1]) == (0.5, 0.25, 0.25)


def table_file(folder: Path, classes: tuple[str, ...] = ("common",)) -> Source:
    draw = np.random.default_rng(0)
    labels = ["rare" if i % 5 == 0 else classes[i % len(classes)] for i in range(60)]
    rows = [f"{draw.normal()},{'red' if i % 3 else 'blue'},{label}" for i, label in enumerate(labels)]
    file = folder / "own.csv"
    file.write_text("\n".join(["size,color,label", *rows]))
    return Source.of(file)


def test_the_users_own_table(tmp_path: Path) -> None:
    config = replace(SMALL, data=table_file(tmp_path))
    CLAIM.prepare(config)
    split = next(splits("slp", config, 0))
    assert (split.name, split.x.shape) == ("own", (42, 3))
    assert split.y.mean() == pytest.approx(0.2, abs=0.02)  # the rarer label is positive
    log = Notes()
    CLAIM.run("metric_f1", config, 0, log)
    assert log.arrays["names"].tolist() == ["own"]


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("sets must be among .*; got haberwoman", {"sets": ("haberwoman",)}),
        ("folds=1 leaves nothing to test on: --set folds=2 or more, or 0", {"folds": 1}),
        ("glass: 30 folds need 30 rows of each class, the rarer one has 29", {"sets": ("glass",), "folds": 30}),
    ],
)
def test_what_cannot_be_run_is_one_clear_line(match: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ThroughlineError, match=match):
        CLAIM.prepare(replace(SMALL, **changes))


def test_a_table_of_three_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 classes \(common, other, rare\)"):
        CLAIM.prepare(replace(SMALL, data=table_file(tmp_path, ("common", "other"))))


# ---- paper scale, with stand-ins for the packages that it loads ----


def fetch_datasets(*, filter_data: tuple[str, ...] | None = None) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    y = np.where(np.arange(60) % 6 == 0, 1, -1)
    return {name: SimpleNamespace(data=draw.normal(size=(60, 4)) + y[:, None], target=y) for name in ("ecoli", "scene")}


class Mnist:
    def __init__(self, root: str, *, train: bool, download: bool) -> None:
        assert (root, download) == ("folder", True)
        rows = 260 if train else 40
        self.data = torch.randint(256, (rows, 28, 28), generator=torch.Generator().manual_seed(rows)).byte()
        self.targets = torch.arange(rows) % 10


class Resnet(nn.Module):
    def __init__(self, *, weights: None, num_classes: int) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(3), nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (3, 28, 28)
        return self.last(self.norm(x).amax((2, 3)))


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("imblearn", "torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name, member in {"imblearn.datasets": fetch_datasets, "torchvision.datasets": Mnist}.items():
        module = ModuleType(name)
        setattr(module, "fetch_datasets" if name.startswith("imblearn") else "MNIST", member)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["torchvision.models"].resnet18 = Resnet  # type: ignore[attr-defined]


PAPER = replace(
    CLAIM.scales["paper"], device="cpu", folds=2, steps=3, epochs=2, resnet_epochs=1, digits=(0, 7), root="folder"
)


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("arm", [*CLAIM.arms, *CLAIM.context])
def test_one_round_at_paper_scale(arm: str) -> None:
    CLAIM.prepare(PAPER)
    log = Notes()
    metrics = CLAIM.run(arm, PAPER, 0, log)
    assert set(metrics) == {prefix + score for prefix in ("", "mlp_", "resnet_") for score in SCORES}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert log.arrays["names"].tolist() == ["ecoli", "scene"]


def test_batches_of_the_mlp_hold_the_papers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(z: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(y))
        return z.sum()

    split = one("pima-indians-diabetes")
    for arm, share in (("metric_f1", 0.05), ("metric_balanced_accuracy", 0.5)):
        sizes.clear()
        monkeypatch.setitem(LOSSES, arm, spy)
        fit_mlp(arm, split, epochs=1)
        assert sizes[0] == round(share * 538)
        assert sum(sizes) == 538
        assert min(sizes) > 1


def test_no_network_and_no_package_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: Any) -> None:
        raise OSError("Name or service not known")

    datasets = ModuleType("imblearn.datasets")
    datasets.fetch_datasets = offline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imblearn", ModuleType("imblearn"))
    monkeypatch.setitem(sys.modules, "imblearn.datasets", datasets)
    with pytest.raises(DataError, match="fetch_datasets: Name or service not known"):
        CLAIM.prepare(PAPER)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # type: ignore[arg-type]
    with pytest.raises(ThroughlineError, match="torchvision is not installed; pip install --no-deps torchvision"):
        CLAIM.prepare(replace(PAPER, models=("resnet",)))
