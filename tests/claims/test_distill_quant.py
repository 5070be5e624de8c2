"""The distill-quant claim: what its arms share and where they differ, the user's data, and the paper's networks."""

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

from throughline.claims.distill_quant import data, paper, training
from throughline.claims.distill_quant.claim import LowBitStudent
from throughline.claims.shared.augmentation import shifted_and_mirrored
from throughline.claims.shared.convnets import convnet
from throughline.claims.shared.wide_resnet import WideResNet
from throughline.data import DataError, Source
from throughline.discrete.quantization import uniform_quantize
from throughline.errors import ThroughlineError

CLAIM = LowBitStudent()
SMOKE = CLAIM.scales["smoke"]


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `Trainer.fit` was given: initial weights, and the rows of every batch."""
    seen: list[dict[str, Any]] = []
    plain_fit, plain_batches = training.Trainer.fit, training.batches

    def fit(self: Any, model: nn.Module, objective: Any, **options: Any) -> nn.Module:
        start = {name: value.detach().clone() for name, value in model.state_dict().items()}
        seen.append({"start": start, "rows": [], **options})
        result = plain_fit(self, model, objective, **options)
        seen[-1]["end"] = {name: value.detach().clone() for name, value in model.named_parameters()}
        return result

    def batches(*args: Any) -> Any:
        for x, rows in plain_batches(*args):
            seen[-1]["rows"].append(rows)
            yield x, rows

    monkeypatch.setattr(training.Trainer, "fit", fit)
    monkeypatch.setattr(training, "batches", batches)
    return seen


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_arms_share_teacher_student_and_batches(fits: list[dict[str, Any]]) -> None:
    """A fair fight: every student starts alike and meets the same rows in the same order, whatever came before."""
    starts: dict[str, list[dict[str, Any]]] = {}
    for arm in CLAIM.arms:
        fits.clear()
        torch.manual_seed(hash(arm) % 1000)  # no arm may depend on what happened before it
        CLAIM.run(arm, SMOKE, 3, Notes())
        starts[arm] = list(fits)
    teachers = [starts[arm][0] for arm in CLAIM.arms if arm != "no_teacher"]
    students = [fit for arm in CLAIM.arms for fit in starts[arm] if fit["start"]["1.weight"].shape == (8, 64)]
    students = [fit for fit in students if "points" not in fit]
    assert len(teachers) == 4
    assert len(students) == 3 + 2 * 2  # two of few bits for each of quantized distillation and no teacher
    for group in (teachers, students):
        for fit in group[1:]:
            assert equal(fit["start"], group[0]["start"])
    every = [*teachers, *students]
    assert all(len(fit["rows"]) == 23 for fit in every)
    assert all(map(torch.equal, every[0]["rows"], fit["rows"]) for fit in every)
    assert sorted(torch.cat(every[0]["rows"]).tolist()) == list(range(1438))  # every training digit once an epoch


def test_points_start_from_the_student_of_the_baseline_and_leave_it_alone(fits: list[dict[str, Any]]) -> None:
    CLAIM.run("post_training", SMOKE, 0, Notes())
    baseline = fits[-1]["end"]
    fits.clear()
    CLAIM.run("differentiable", SMOKE, 0, Notes())
    assert [fit.get("points") is not None for fit in fits] == [False, False, True, True]
    for fit in fits[2:]:
        assert equal(fit["end"], baseline)


def test_other_seeds_are_other_experiments(fits: list[dict[str, Any]]) -> None:
    for seed in (0, 1):
        CLAIM.run("no_teacher", SMOKE, seed, Notes())
    assert not equal(fits[0]["start"], fits[2]["start"])
    assert not torch.equal(fits[0]["rows"][0], fits[2]["rows"][0])


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_units_repeat_and_count_their_steps(arm: str) -> None:
    found, notes = run(arm)
    again = CLAIM.run(arm, SMOKE, 0, Notes())
    assert again == found
    assert notes.places == [(step, len(notes.places)) for step in range(len(notes.places))]  # as many as was promised
    assert all(0 <= found[f"accuracy_{bits}bit"] <= 1 for bits in SMOKE.bits)
    assert (sum(len(values) for _, values in notes.points) > 10) == (arm != "post_training")


LEARNING = ("post_training", "quantized_distillation", "full_precision")


def test_smoke_arms_learn_with_more_epochs() -> None:
    found = {arm: run(arm, epochs=8, lr=0.05, teacher_lr=0.05)[0] for arm in LEARNING}
    assert found["full_precision"]["accuracy_2bit"] > 0.85
    assert found["quantized_distillation"]["accuracy_4bit"] > 0.85
    assert found["quantized_distillation"]["accuracy_2bit"] > found["post_training"]["accuracy_2bit"]
    assert found["full_precision"]["teacher_accuracy"] > 0.9


def test_sizes_are_counted_for_the_student() -> None:
    parameters = 64 * 8 + 8 + 8 * 10 + 10
    for arm in CLAIM.arms[:-1]:
        metrics, _ = run(arm)
        assert metrics["size_ratio_2bit"] == pytest.approx(4 * parameters / (1000 * metrics["kilobytes_2bit"]))
        assert 4 < metrics["size_ratio_4bit"] < metrics["size_ratio_2bit"] < 16
    assert run("full_precision")[0]["kilobytes_2bit"] == 4 * parameters / 1000


def test_the_baseline_is_the_rounded_student(fits: list[dict[str, Any]]) -> None:
    metrics = CLAIM.run("post_training", SMOKE, 0, Notes())
    task = data.load(SMOKE, 0)
    student = task.student()
    with torch.no_grad():
        for name, p in student.named_parameters():
            p.copy_(uniform_quantize(fits[-1]["end"][name], 4) if p.ndim == 2 else fits[-1]["end"][name])
        right = student(task.test_x).argmax(1) == task.test_y
    assert metrics["accuracy_2bit"] == right.double().mean().item()


def test_levels_are_kept_for_the_pictures() -> None:
    _, notes = run("differentiable")
    assert notes.arrays["histogram"].sum() == 64 * 8
    assert notes.arrays["start"].shape == notes.arrays["points"].shape == (4,)
    assert not np.array_equal(notes.arrays["start"], notes.arrays["points"])


def test_batch_norm_of_the_baseline_is_measured_again(
    fits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHUNK", 10_000)  # all at once, as below
    config = replace(SMOKE, student=(3, 8), lr=0.1)
    found = CLAIM.run("post_training", config, 0, Notes())
    task = data.load(config, 0)
    student, weights = task.student(), fits[-1]["end"]
    for bits in SMOKE.bits:
        with torch.no_grad():
            for name, p in student.named_parameters():
                p.copy_(uniform_quantize(weights[name], 2**bits) if p.ndim >= 2 else weights[name])
            for module in student.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 1.0  # what comes is all that counts
            student.train()(task.x)
            right = student.eval()(task.test_x).argmax(1) == task.test_y
        assert found[f"accuracy_{bits}bit"] == right.double().mean().item()
    assert found["accuracy_2bit_plain"] != found["accuracy_2bit"]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_of_the_points_follows_its_schedule(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    plain = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return plain(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    CLAIM.run("differentiable", replace(SMOKE, bits=(2,), point_schedule=schedule), 0, Notes())
    turns = np.arange(len(rates)) / len(rates) if schedule == "cosine" else np.zeros(len(rates))
    np.testing.assert_allclose(rates, SMOKE.point_lr * (1 + np.cos(np.pi * turns)) / 2, rtol=1e-6)


def test_teacher_and_students_have_rates_of_their_own(fits: list[dict[str, Any]]) -> None:
    for rates in ({}, {"teacher_lr": 0.01}, {"lr": 0.01}):
        CLAIM.run("full_precision", replace(SMOKE, **rates), 0, Notes())
    (teacher, student), (slow_teacher, _), (same_teacher, slow_student) = (fits[i : i + 2] for i in (0, 2, 4))
    assert equal(teacher["end"], same_teacher["end"])
    assert not equal(teacher["end"], slow_teacher["end"])
    assert not equal(student["end"], slow_student["end"])


# ---- networks and data ----


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_networks_have_the_sizes_that_are_claimed() -> None:
    laptop = CLAIM.scales["laptop"]
    assert size(convnet((1, 28, 28), laptop.teacher, 10)) == pytest.approx(207_000, rel=0.01)
    assert size(convnet((1, 28, 28), laptop.student, 10)) == pytest.approx(13_000, rel=0.03)
    with torch.device("meta"):
        assert size(paper.deep_convnet(*paper.TEACHER)) == pytest.approx(5.3e6, rel=0.02)
        for millions, shape in paper.STUDENTS.items():
            assert size(paper.deep_convnet(*shape)) == pytest.approx(float(millions) * 1e6, rel=0.12)
        assert size(WideResNet(*paper.WIDE["teacher"], 100)) == pytest.approx(36.5e6, rel=0.01)
        assert size(WideResNet(*paper.WIDE["student"], 100)) == pytest.approx(17.2e6, rel=0.01)
    x = torch.zeros(2, 3, 32, 32)
    assert paper.deep_convnet(*paper.STUDENTS["0.1"])(x).shape == (2, 10)


def test_augmented_images_are_shifted_and_mirrored_ones() -> None:
    x = torch.rand(40, 2, 6, 5)
    shifted = shifted_and_mirrored(x, torch.Generator().manual_seed(0))
    assert shifted.shape == x.shape
    padded = nn.functional.pad(x, (4, 4, 4, 4))
    kinds = set()
    for one, wide in zip(shifted, padded, strict=True):
        crops = {
            (i, j, m): wide[:, i : i + 6, j : j + 5].flip(-1) if m else wide[:, i : i + 6, j : j + 5]
            for i in range(9)
            for j in range(9)
            for m in (False, True)
        }
        found = [key for key, crop in crops.items() if torch.equal(crop, one)]
        assert found
        kinds.add(found[0])
    assert len(kinds) > 20


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_takes_a_table(arm: str, tmp_path: Path) -> None:
    config = replace(CLAIM.scales["laptop"], data=wine_table(tmp_path), bits=(2, 4), epochs=8, batch=16)
    CLAIM.prepare(config)
    metrics = CLAIM.run(arm, config, 0, Notes())
    assert metrics["accuracy_4bit"] > 0.85
    assert size(data.load(config, 0).teacher()) == 13 * 128 + 128 + 128 * 3 + 3


@pytest.mark.parametrize("arm", ["post_training", "differentiable"])
def test_takes_an_image_folder(arm: str, tmp_path: Path) -> None:
    source = colour_folder(tmp_path / "pictures", classes=3, side=12)
    config = replace(CLAIM.scales["laptop"], data=source, bits=(2, 4), epochs=8, batch=8)
    CLAIM.prepare(config)
    assert data.load(config, 0).x.shape == (48, 3, 32, 32)
    small = replace(config, data=replace(source, size=12))
    assert CLAIM.run(arm, small, 0, Notes())["accuracy_4bit"] == 1


def test_bad_data_and_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ThroughlineError, match=r"bits=\[2, 3\]: the checks want 2 and 4 among them; --set bits=\[2,4\]"
    ):
        CLAIM.prepare(replace(SMOKE, bits=(2, 3)))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ThroughlineError, match="torchvision is not installed; pip install --no-deps torchvision"):
        CLAIM.prepare(replace(CLAIM.scales["paper"], device="cpu"))
    (tmp_path / "one.csv").write_text("a,b\n1,x\n2,x\n")
    with pytest.raises(DataError, match="one class only"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(tmp_path / "one.csv")))


# ---- paper scale ----


class Cifar:
    """A stand-in for torchvision's CIFAR: a few images of one colour for each class."""

    asked: list[tuple[str, bool]] = []

    def __init__(self, root: Any, train: bool, download: bool, classes: int = 10) -> None:
        assert download
        self.asked.append((str(root), train))
        draw, count = np.random.default_rng(train), 12 if train else 4
        self.targets = [i % classes for i in range(count)]
        colours = np.random.default_rng(0).integers(0, 256, (classes, 3))
        noise = draw.integers(-5, 5, (count, 32, 32, 3))
        self.data = (colours[self.targets][:, None, None] + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_paper_scale_runs_through_torchvision(
    dataset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fits: list[dict[str, Any]]
) -> None:
    module = ModuleType("torchvision.datasets")
    module.CIFAR10, module.CIFAR100 = Cifar, lambda root, **options: Cifar(root, classes=100, **options)  # type: ignore[attr-defined]
    package = ModuleType("torchvision")
    package.datasets = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setattr(paper, "TEACHER", (((4, 4), (4,), (4,)), (8, 8), 3))
    monkeypatch.setattr(paper, "WIDE", {"teacher": (10, 1), "student": (10, 1)})
    monkeypatch.setattr(paper, "STUDENTS", {"1.0": (((3,), (3,), (2,)), (6,), 5)})
    small = {"epochs": 1, "point_epochs": 1, "batch": 6, "device": "cpu", "root": str(tmp_path)}
    config = replace(CLAIM.scales["paper"], dataset=dataset, **small)
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        metrics = CLAIM.run(arm, config, 0, Notes())
        assert 0 <= metrics["accuracy_4bit"] <= 1
    assert (str(tmp_path), False) in Cifar.asked
    kernels = [next(iter(fit["start"].values())).shape[-1] for fit in fits[:2]]
    assert kernels == ([3, 5] if dataset == "cifar10" else [3, 3])  # teacher and student


def test_with_augmentation_the_teacher_sees_what_the_student_sees() -> None:
    torch.manual_seed(0)
    task = data.Task(
        torch.rand(8, 3, 4, 4), torch.arange(8) % 2, *[torch.zeros(0)] * 2, None, None, shifted_and_mirrored
    )  # type: ignore[arg-type]
    trainer = training.Trainer(task, SMOKE, 0, Notes(), 1)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    objective = trainer.taught_by(teacher)
    x, rows = next(training.batches(task, SMOKE, 0, 1))
    assert not torch.equal(x, task.x[rows])
    own = teacher(x).detach()
    at_teacher = objective(own, x, rows)
    labels = nn.functional.cross_entropy(own, task.y[rows])
    torch.testing.assert_close(at_teacher, (1 - SMOKE.weight) * labels)  # no divergence from itself is left
    assert not teacher.training
