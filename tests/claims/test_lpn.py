"""The lpn claim: what is known of Laplace samples, equal budgets, own samples and images, the paper's data sets."""

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import integrate, stats
from tests.claims.stand_ins import Notes, wine_table
from tests.physics.proximal.deepinv_alone import deepinv_alone
from torch import Tensor, nn

from throughline.claims.lpn import data, deblurring, images, training
from throughline.claims.lpn.claim import LearnsTheLogPrior
from throughline.claims.shared.checks import WhereKnown
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab.checks import Outcome
from throughline.physics.proximal import LearnedProximalNetwork

CLAIM = LearnsTheLogPrior()
SMOKE = CLAIM.scales["smoke"]
TINY = {"channels": 3, "image_batch": 4, "image_pretrain": 8, "image_matching": 2, "scored": 3, "restored": 2}


def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    config = replace(SMOKE, **changes)
    CLAIM.prepare(config)
    return CLAIM.run(arm, config, seed, notes), notes


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ITERATIONS": 4, "WEIGHTS": (2.0, 25.0), "TOTAL_VARIATION": (0.01,)}.items():
        monkeypatch.setattr(deblurring, name, value)


# ---- what is known ----


@pytest.mark.parametrize("y", [-6.0, -1.3, 0.0, 0.4, 2.5, 30.0])
def test_posterior_mean_is_that_of_an_integral(y: float) -> None:
    low, high = min(0, y) - 12, max(0, y) + 12
    weight, moment = (
        integrate.quad(
            lambda x, power=power: x**power * math.exp(-abs(x) - (x - y) ** 2 / 2 + abs(y)), low, high, points=[0, y]
        )[0]
        for power in (0, 1)
    )
    assert float(data.posterior_mean(torch.tensor(y, dtype=torch.float64))) == pytest.approx(moment / weight, abs=1e-7)


def test_soft_threshold_minimises() -> None:
    x = torch.linspace(-4, 4, 8001)
    for y in (-2.7, -0.9, 0.2, 1.0, 3.1):
        best = x[((x - y) ** 2 / 2 + x.abs()).argmin()]
        assert float(data.soft_threshold(torch.tensor(y))) == pytest.approx(float(best), abs=2e-3)


def test_samples_are_laplacian() -> None:
    x = data.load(SMOKE, 0).draw(torch.Generator().manual_seed(0), 20_000)
    assert x.shape == (20_000, 1)
    assert x.isfinite().all()
    assert stats.kstest(x.flatten().numpy(), "laplace").pvalue > 0.01


class Known(nn.Module):
    """ψ of the soft threshold."""

    def forward(self, y: Tensor) -> Tensor:
        return (y.abs() - 1).clamp(min=0).square().sum(-1) / 2


def test_metrics_of_the_true_prox_are_zero() -> None:
    notes = Notes()
    found = data.load(SMOKE, 0).measure(LearnedProximalNetwork(Known()), "proximal_matching", notes)
    assert found["prior_rmse"] == pytest.approx(0, abs=1e-5)
    assert found["prox_rmse"] == pytest.approx(0, abs=1e-6)
    assert found["prior_defined"] == 1
    assert "mean_rmse" not in found
    y = notes.arrays["inputs"]
    gap = np.sqrt(np.mean((notes.arrays["outputs"] - data.posterior_mean(torch.tensor(y)).numpy()) ** 2))
    assert data.load(SMOKE, 0).measure(LearnedProximalNetwork(Known()), "l2", notes)["mean_rmse"] == pytest.approx(gap)


def test_a_prior_that_is_not_defined_counts_as_zero() -> None:
    class Flat(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return (1 + y.square()).sqrt().sum(-1)  # its slope stays within ±1

    found = data.load(SMOKE, 0).measure(LearnedProximalNetwork(Flat()), "l1", Notes())
    assert 0.45 < found["prior_defined"] < 0.52
    assert 0.5 < found["prior_rmse"] < 1.2


# ---- a fair fight ----


def test_arms_differ_in_the_loss_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[Tensor]] = {}
    loss = training._loss

    def watched(arm: str, output: Tensor, target: Tensor, gamma: float | None) -> Tensor:
        seen.setdefault(arm, []).append(torch.cat([target, output.detach()]))
        return loss(arm, output, target, gamma)

    monkeypatch.setattr(training, "_loss", watched)
    for arm in CLAIM.arms:
        run(arm)
    assert [len(batches) for batches in seen.values()] == [60, 60, 60]
    for l2, l1, ours in zip(*seen.values(), strict=True):
        assert torch.equal(l2[:64], l1[:64])
        assert torch.equal(l1[:64], ours[:64])
    assert all(torch.equal(batches[0], seen["l2"][0]) for batches in seen.values())  # the same weights and noise
    assert not torch.equal(seen["l1"][1], seen["l2"][1])


def test_schedule_at_laptop_scale() -> None:
    phases = data.load(CLAIM.scales["laptop"], 0).phases
    assert phases[:2] == ((2000, 1e-3, None), (2000, 1e-4, None))
    assert [phase.gamma for phase in phases[2:]] == [0.5, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [phase.lr for phase in phases[2:]] == [1e-3, 1e-3, 3e-4, 3e-4, 1e-4, 1e-4]
    ours, plain = (list(training.losses(arm, phases)) for arm in ("proximal_matching", "l1"))
    assert len(ours) == len(plain) == 16_000
    assert [rate for rate, _ in plain] == [1e-3] * 8000 + [1e-4] * 8000
    assert {gamma for _, gamma in plain} == {None}
    assert ours[3999] == (1e-4, None)
    assert ours[4000] == (1e-3, 0.5)


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_units_repeat(arm: str) -> None:
    first, notes = run(arm)
    assert run(arm)[0] == first
    assert run(arm, seed=1)[0] != first
    assert notes.places[-1] == (60, 60)
    assert notes.curve("prox_rmse")[60] == pytest.approx(first["prox_rmse"])


def test_weights_stay_non_negative() -> None:
    task = data.load(SMOKE, 0)
    f = training.train("proximal_matching", task, SMOKE, 0, Notes())
    for layer in list(f.potential.convex)[1:]:  # type: ignore[arg-type]
        assert (layer.weight >= 0).all()


# ---- checks ----


def test_checks_suit_what_is_known() -> None:
    class Measured:
        looks = 0

        def __init__(self, **metrics: float) -> None:
            self.metrics = metrics

        def values(self, metric: str, arm: str) -> dict[int, float]:
            value = self.metrics.get(metric)
            behind = arm != "proximal_matching"
            return {} if value is None else {seed: value + seed / 100 + behind * (1 + seed / 200) for seed in range(3)}

    known = Measured(prior_rmse=0.1, prox_rmse=0.1, mean_rmse=-1.0, prior_defined=0.5)
    own = Measured(matching_loss=0.1, noise_in_order=1.0, prior_defined=1.0)

    def judged(results: Any) -> list[Outcome]:
        return [check.judge(results) for check in CLAIM.checks]

    assert [outcome.verdict for outcome in judged(known)] == ["held"] * 4
    assert [outcome.verdict for outcome in judged(own)] == ["held"] * 4
    assert "prior_rmse" in judged(known)[0].sentence
    assert "matching_loss" in judged(own)[0].sentence
    assert "mean_rmse" in judged(Measured())[3].sentence
    assert all(isinstance(check, WhereKnown) for check in CLAIM.checks)


# ---- own samples ----


@pytest.mark.parametrize("arm", ["l2", "proximal_matching"])
def test_own_samples(tmp_path: Path, arm: str) -> None:
    found, notes = run(arm, data=wine_table(tmp_path))
    assert set(found) == {"matching_loss", "prior_rise_noise", "noise_in_order", "prior_defined"}
    assert found["prior_defined"] == 1  # strongly convex: R is defined everywhere
    assert 0 < found["matching_loss"] <= 1
    assert notes.arrays["prior_noise"].shape == (44, 5)


def test_columns_are_the_coordinates(tmp_path: Path) -> None:
    source = wine_table(tmp_path)
    assert data._samples(source).shape == (178, 14)
    assert data._samples(replace(source, target="kind")).shape == (178, 13)
    task = data.load(replace(SMOKE, data=source), 0)
    drawn = task.draw(torch.Generator().manual_seed(0), 5000)
    torch.testing.assert_close(drawn.std(0), torch.ones(14), atol=0.1, rtol=0)
    assert task.sigma == 0.3
    assert [phase.gamma for phase in task.phases[2:3]] == pytest.approx([4 * 0.3 * math.sqrt(14)])


@pytest.mark.parametrize(
    ("text", "target", "match"),
    [
        ("a,b\n" + "1,2\n" * 150, "c", "no column 'c'; it has a, b"),
        ("a,b\n" + "1,x\n" * 150, None, "column 'b' holds no numbers"),
        ("a,b\n" + "1,2\n" * 150 + "1,\n", None, "column 'b' has no number in row 151"),
        ("a,b\n" + "1,2\n" * 99, None, "99 rows of 2 columns; at least 100 rows and 1 to 64 columns"),
    ],
)
def test_samples_that_will_not_do(tmp_path: Path, text: str, target: str | None, match: str) -> None:
    file = tmp_path / "samples.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=match):
        CLAIM.prepare(replace(SMOKE, data=Source.of(file, target)))


# ---- images ----


@pytest.fixture(scope="module")
def deepinv() -> Iterator[ModuleType]:
    with deepinv_alone() as module:
        yield module


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Bright squares on a dark ground, in colour, without classes."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(40):
        pixels = np.zeros((18, 16, 3), np.uint8)
        top, left = draw.integers(0, 9, 2)
        pixels[top : top + 6, left : left + 6] = draw.integers(100, 255, 3)
        Image.fromarray(pixels).save(root / f"{i}.png")
    return Source.of(root, size=16)


def test_own_images(deepinv: ModuleType, pictures: Source) -> None:
    plain, notes = run("l2", data=pictures, **TINY)
    ours, own = run("proximal_matching", data=pictures, **TINY)
    assert set(plain) - set(ours) == {"deblur_psnr_tv", "deblur_ssim_tv"}
    assert {"matching_loss", "deblur_psnr", "deblur_ssim", "prior_defined", "mixtures_above"} <= set(ours)
    assert {f"{name}_in_order" for name in ("noise", "blur")} <= set(ours)
    assert all(math.isfinite(value) for value in (*plain.values(), *ours.values()))
    assert ours["prior_defined"] == 1
    assert notes.arrays["restored_tv"].shape == own.arrays["restored"].shape == (2, 1, 16, 16)
    assert np.array_equal(notes.arrays["blurred"], own.arrays["blurred"])
    for kind in ("noise", "blur", "mixture"):
        assert own.arrays[f"prior_{kind}"].shape == (3, 5)
        assert np.allclose(own.arrays[f"prior_{kind}"][:, 0], own.arrays["prior_noise"][:, 0])  # the clean ones
    assert np.allclose(own.arrays["prior_mixture"][:, -1], np.roll(own.arrays["prior_mixture"][:, 0], 1))
    truth, made = notes.arrays["truth"], notes.arrays["restored_tv"]
    psnr = np.mean([10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(truth, made, strict=True)])
    assert plain["deblur_psnr_tv"] == pytest.approx(psnr, abs=1e-3)


def test_total_variation_restores(deepinv: ModuleType, pictures: Source) -> None:
    """Deblurring undoes the blur: squares come out nearer the truth than they went in."""
    config = replace(SMOKE, data=pictures, **TINY)
    test = images.folder(pictures, 0).test[:2]
    physics = deblurring.blur(test, 1.0)
    torch.testing.assert_close(physics.A(torch.ones_like(test)), torch.ones_like(test))
    blurred = physics.A(test)
    prox = next(iter(deblurring.others(config, 1)["_tv"]))
    made = deblurring.deblurred(blurred, prox, 25.0, config)
    assert deblurring.quality(test, made)[0] > deblurring.quality(test, blurred)[0] + 2


def test_schedule_of_images_is_the_papers(pictures: Source) -> None:
    phases = data.load(replace(CLAIM.scales["paper"], device="cpu", data=pictures), 0).phases
    assert [phase.steps for phase in phases] == [20_000, *[5_000] * 4]
    assert [phase.lr for phase in phases] == [1e-3, *[1e-4] * 4]
    assert phases[0].gamma is None
    assert [phase.gamma for phase in phases[1:]] == pytest.approx([0.08 * 16 * scale for scale in (8, 4, 2, 1)])


def test_images_that_will_not_do(deepinv: ModuleType, pictures: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a multiple of 4, got --size 18"):
        CLAIM.prepare(replace(SMOKE, data=replace(pictures, size=18)))
    for i in range(3):
        Image.new("L", (8, 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match="3 images; at least 40 are wanted"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(tmp_path)))


def test_a_missing_library_is_named(pictures: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(ThroughlineError, match=r"deepinv is not installed; .*pip install deepinv"):
        CLAIM.prepare(replace(SMOKE, data=pictures))


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("gammas and rates must be as many, got 1 and 6", {"gammas": (0.5,)}),
        ("table_gammas and rates must be as many, got 7 and 6", {"table_gammas": (0.5,) * 7}),
    ],
)
def test_settings_that_will_not_do(match: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ThroughlineError, match=match):
        CLAIM.prepare(replace(SMOKE, **changes))


# ---- the paper's data sets ----


@pytest.fixture
def torchvision(deepinv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)

    class Digits:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert download
            self.data = (torch.rand(24 if train else 12, 28, 28, generator=draw) * 255).byte()

    class Faces:
        def __init__(self, root: str, split: str, download: bool) -> None:
            assert split in ("train", "test")
            self.pixels = np.random.default_rng(0).integers(0, 255, (6, 218, 178, 3)).astype(np.uint8)

        def __len__(self) -> int:
            return len(self.pixels)

        def __getitem__(self, row: int) -> tuple[Image.Image, int]:
            return Image.fromarray(self.pixels[row]), 0

    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=Digits, CelebA=Faces))


@pytest.mark.parametrize("dataset", ["mnist", "celeba"])
def test_paper_scale(dataset: str, torchvision: None, deepinv: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def denoiser(name: str) -> Any:
        def make(**options: Any) -> nn.Module:
            built.append(name)
            assert options["pretrained"] == "download"
            if name == "DnCNN":
                assert options["in_channels"] == (1 if dataset == "mnist" else 3)
            net = nn.Identity()
            net.forward = lambda x, sigma: 0.9 * x  # type: ignore[method-assign,assignment]
            return net

        return make

    for name in ("DnCNN", "GSDRUNet"):
        monkeypatch.setattr(deepinv.models, name, denoiser(name))
    tiny = {**TINY, "channels": 2, "image_batch": 2, "image_pretrain": 2, "image_matching": 1}
    config = replace(CLAIM.scales["paper"], dataset=dataset, device="cpu", **tiny)
    monkeypatch.setattr(images, "NEWTON", 1)
    monkeypatch.setattr(deblurring, "ITERATIONS", 1)
    notes = Notes()
    torch.manual_seed(0)
    CLAIM.prepare(config)
    found = CLAIM.run("l2", config, 0, notes)
    assert built == ["DnCNN", "GSDRUNet"]
    assert {f"deblur_psnr{name}" for name in ("", "_tv", "_dncnn", "_gs_drunet")} <= set(found)
    channels, side = (1, 28) if dataset == "mnist" else (3, 128)
    assert notes.arrays["truth"].shape == (2, channels, side, side)
    network = data.load(config, 0).network()
    assert network.beta == (10.0 if dataset == "mnist" else 100.0)
    assert network.strong_convexity == (0.02 if dataset == "mnist" else 2e-6)
    assert [a // b for a, b in pairwise(network.sides)] == ([2, 1, 2] if dataset == "mnist" else [2, 1, 2, 1, 2])


# ---- pictures ----


class Kept:
    """Results with arrays alone."""

    claim, seeds, arms, metrics, curves = CLAIM, (0, 1), CLAIM.arms, ("matching_loss",), ()

    def __init__(self, kept: dict[str, dict[str, np.ndarray]]) -> None:
        self.arrays = kept

    def kept(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        return self.arrays.get(arm, {}) if seed else {}

    def values(self, metric: str, arm: str) -> dict[int, float]:
        return {1: 0.5}


def test_pictures_of_own_images(deepinv: ModuleType, pictures: Source) -> None:
    kept = {arm: run(arm, data=pictures, **TINY)[1].arrays for arm in ("l2", "proximal_matching")}
    kept["l2"]["prior_noise"] = kept["l2"]["prior_noise"].copy()
    kept["l2"]["prior_noise"][:, 2] = np.nan  # a level that R is not defined at
    drawn = CLAIM.figures(Kept(kept))  # type: ignore[arg-type]
    assert len(drawn) == 3
    violins, strip, _ = drawn.values()
    assert len(violins.axes) == 2 * 3
    assert [axis.get_ylabel() for axis in strip.axes[::2]] == ["blurred", "TV", "l2", "proximal matching", "truth"]
    without = CLAIM.figures(Kept({"proximal_matching": kept["proximal_matching"]}))  # type: ignore[arg-type]
    assert len(without) == 3
    assert len(CLAIM.figures(Kept({}))) == 1  # type: ignore[arg-type]
