"""The G-ACIL claim: its arms through the runner, the stream they share, the user's data, and the paper's backbones."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import Notes, colour_folder, wine_table
from torch import Tensor, nn

from throughline.claims.g_acil import data as _g_acil_data
from throughline.claims.g_acil.claim import AnalyticStream
from throughline.claims.g_acil.training import batches, histogram
from throughline.data import DataError
from throughline.errors import ThroughlineError
from throughline.lab.engines.local import Local
from throughline.lab.results import Results, judge
from throughline.lab.runner import execute, open_run, plan
from throughline.lab.store import Run, Unit

CLAIM = AnalyticStream()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


@pytest.mark.parametrize("form", ["information", "covariance"])
def test_streamed_weights_are_those_of_joint_training(form: str) -> None:
    metrics, notes = run("gacil", form=form)
    assert metrics["weight_error"] < 1e-10
    errors = notes.curve("weight_error")
    assert list(errors)[:5] == [1, 2, 4, 8, 16]
    assert max(errors.values()) < 1e-10


def test_without_the_label_gain_they_are_not() -> None:
    whole, _ = run("gacil")
    ablated, notes = run("gacil_without_eclg")
    assert ablated["weight_error"] > 0.1
    assert ablated["last_accuracy"] < whole["last_accuracy"] - 0.1
    assert notes.curve("weight_error")[1] < 1e-10  # inside the first task nothing is lost


def test_without_returning_classes_the_label_gain_is_nothing() -> None:
    for arm in ("gacil", "gacil_without_eclg"):
        metrics, _ = run(arm, disjoint=1.0)
        assert metrics["weight_error"] < 1e-10


def test_arms_meet_the_same_stream_and_seeds_another() -> None:
    kept = [run(arm)[1].arrays for arm in ARMS]
    for other in kept[1:]:
        assert all(np.array_equal(kept[0][name], other[name]) for name in ("stream", "ends"))
    assert kept[0]["stream"].sum() == 1438  # every training digit, once
    assert not np.array_equal(kept[0]["stream"], run("slda", seed=1)[1].arrays["stream"])


@pytest.mark.parametrize("arm", ARMS)
def test_metrics_are_means_of_the_logged_accuracy(arm: str) -> None:
    metrics, notes = run(arm)
    accuracy = notes.curve("accuracy")
    assert metrics["last_accuracy"] == accuracy[1438]
    assert metrics["average_accuracy"] == pytest.approx(np.mean([accuracy[end] for end in notes.arrays["ends"]]))
    steps = [*range(1438 // 8, 1438, 1438 // 8), 1438]
    assert metrics["accuracy_auc"] == pytest.approx(np.mean([accuracy[step] for step in steps]))
    assert metrics == run.__wrapped__(arm)[0]


def test_every_smoke_arm_learns() -> None:
    found = {arm: run(arm)[0]["last_accuracy"] for arm in ARMS}
    assert min(found["slda"], found["gacil"], found["slda_expanded"]) > 0.9


def test_empty_tasks_and_single_samples() -> None:
    metrics, notes = run("gacil", tasks=12, batch=1_000_000, disjoint=1.0)
    assert 0 in np.diff([0, *notes.arrays["ends"]])
    assert metrics["weight_error"] < 1e-10


def test_batches_cover_the_stream_and_stop_where_asked() -> None:
    parts = list(batches(100, 30, {50, 100}))
    assert parts == [(0, 30), (30, 50), (50, 80), (80, 100)]


def test_histogram_counts_every_sample() -> None:
    counts = histogram(torch.tensor([5] * 100 + [2] * 60))
    assert counts.shape == (2, 80)
    assert counts.sum(1).tolist() == [60, 100]
    assert counts[1, :50].tolist() == [2] * 50


@pytest.mark.parametrize("arm", ARMS)
def test_takes_a_table(arm: str, tmp_path: Path) -> None:
    source = wine_table(tmp_path)
    CLAIM.prepare(replace(SMOKE, data=source))
    metrics, notes = run(arm, data=source)
    assert notes.arrays["stream"].shape == (3, 80)
    assert arm == "gacil_without_eclg" or metrics["last_accuracy"] > 0.85


def test_takes_an_image_folder(tmp_path: Path) -> None:
    source = colour_folder(tmp_path / "pictures")
    CLAIM.prepare(replace(SMOKE, data=source))
    assert run("gacil", data=source)[0]["last_accuracy"] == 1


def test_raw_features_have_a_limit(tmp_path: Path) -> None:
    source = colour_folder(tmp_path / "pictures", side=42)
    with pytest.raises(DataError, match=r"5292 features a row, and the most is 5000; give --size 32, or a backbone"):
        CLAIM.prepare(replace(SMOKE, data=source))


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A stand-in for torchvision's data sets: ``count`` images of four brightnesses, through the transform."""

    def __init__(self, root: Any, transform: Any, train: bool = True, download: bool = False) -> None:
        self.transform, self.count, self.root, self.download = transform, 60 if train else 20, root, download

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if i >= self.count:
            raise IndexError(i)
        return self.transform(torch.full((3, 4, 4), i % 4 / 3)), i % 4


class Backbone(nn.Module):
    """A stand-in for a pretrained network: 6 features under a last layer called ``fc``, nothing without eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.lift = nn.Linear(3, 6)
        self.drop = nn.Dropout(1.0)
        self.fc = nn.Linear(6, 1000)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.fc(self.drop(self.lift(self.mean(x).flatten(1)).cos()))
        return hidden


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        assert pretrained
        assert num_classes == 0
        asked.append(name)
        torch.manual_seed(0)
        model = Backbone()
        model.fc = nn.Identity()  # type: ignore[assignment]
        return model

    def get_model(name: str, *, weights: str) -> nn.Module:
        asked.append(f"{name} {weights}")
        torch.manual_seed(0)
        return Backbone()

    def module(name: str, **members: Any) -> ModuleType:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    transforms = module(
        "torchvision.transforms",
        Compose=lambda steps: lambda x: [x := step(x) for step in steps][-1],
        Resize=lambda size: lambda x: asked.append(f"resize {size}") or x,
        CenterCrop=lambda size: lambda x: x,
        ToTensor=lambda: lambda x: x if isinstance(x, Tensor) else torch.from_numpy(np.array(x)).movedim(-1, 0) / 255,
        Normalize=lambda mean, std: (
            lambda x: (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        ),
    )
    datasets = module("torchvision.datasets", CIFAR100=Pictures)
    models = module("torchvision.models", get_model=get_model)
    module("torchvision", datasets=datasets, transforms=transforms, models=models)
    module("timm", create_model=create_model)
    return asked


def test_paper_scale_takes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install(monkeypatch)
    config = replace(CLAIM.scales["paper"], expansion=20, penalty=0.01, device="cpu", tasks=2)
    CLAIM.prepare(config)
    for arm in ARMS:
        notes = Notes()
        metrics = CLAIM.run(arm, config, 0, notes)
        assert notes.arrays["stream"].sum() == 60  # CIFAR-100 has a test part of its own
        assert arm == "gacil_without_eclg" or metrics["last_accuracy"] == 1
    assert "deit_small_patch16_224" in asked
    assert "resize 224" in asked


def test_a_folder_through_a_backbone_of_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = install(monkeypatch)
    config = replace(
        SMOKE, data=colour_folder(tmp_path / "pictures", side=42), backbone="torchvision:resnet18", pixels=96
    )
    CLAIM.prepare(config)
    split = _g_acil_data.load(config, 0)
    assert split.x.shape == (32, 6)  # features, not the last layer's 1,000 classes
    assert split.test_x.shape == (8, 6)
    assert not split.x.requires_grad
    assert "resnet18 DEFAULT" in asked
    assert "resize 96" in asked
    with pytest.raises(DataError, match=r"a backbone .* reads images, and this is a table"):
        CLAIM.prepare(replace(config, data=wine_table(tmp_path)))
    with pytest.raises(ThroughlineError, match="goes with dataset=cifar100 or --data, not digits"):
        CLAIM.prepare(replace(config, data=None))


def test_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = replace(CLAIM.scales["paper"], device="cpu")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ThroughlineError, match=r"timm is not installed; .*pip install timm"):
        CLAIM.prepare(paper)
    with pytest.raises(ThroughlineError, match="dataset=cifar100 needs a backbone"):
        CLAIM.prepare(replace(paper, backbone=""))


def stored(folder: Path, arms: tuple[str, ...], seeds: tuple[int, ...]) -> Run:
    manifest = plan(CLAIM, "smoke", SMOKE, arms, seeds, threads=1, command="throughline run g-acil")
    return open_run(folder, manifest)[0]


def test_runs_through_the_lab_with_the_numbers_of_a_plain_call(tmp_path: Path) -> None:
    execute(CLAIM, store := stored(tmp_path, ("gacil",), (0,)), Local(1))
    results = Results(CLAIM, store, SMOKE)
    assert not results.missing
    metrics, notes = run("gacil")
    assert {name: results.values(name, "gacil")[0] for name in results.metrics} == pytest.approx(metrics, abs=1e-12)
    assert dict(zip(*results.curve("accuracy", "gacil")[0], strict=True)) == pytest.approx(notes.curve("accuracy"))


def test_draws_what_has_finished(tmp_path: Path) -> None:
    store = stored(tmp_path, ARMS, (0, 1))
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 2  # nothing yet
    for seed, arms in enumerate((ARMS, ARMS[:1])):
        for arm in arms:
            metrics, notes = run(arm, seed)
            curves = {
                name: {"step": list(notes.curve(name)), "value": list(notes.curve(name).values())}
                for name in ("accuracy", "weight_error")
                if notes.curve(name)
            }
            store.write(Unit(arm, seed), {"metrics": metrics, "measured": {}, "curves": curves}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    assert len(results.missing) == 3
    course, errors, ends = CLAIM.figures(results).values()
    assert [line.get_label() for line in course.axes[0].lines[:4]] == [arm.replace("_", " ") for arm in results.arms]
    assert course.axes[1].images[0].get_array().sum() == 1438
    assert errors.axes[0].get_yscale() == "log"
    assert len(ends.axes) == 1
    outcomes = {outcome.sentence: outcome for outcome in judge(results).outcomes}
    assert outcomes["weight_error of gacil is at most 1e-08 on every seed"].high <= 1e-8
