"""GroCo's claim: a baseline by brute force, views, the smoke scale, and a step of the paper's training."""

import dataclasses
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.claims.stand_ins import Notes
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.groco import paper as imagenet
from throughline.claims.groco.claim import GroupOrdering
from throughline.claims.groco.data import load
from throughline.claims.groco.models import encoder_of, projection
from throughline.claims.groco.training import infonce_hardest, objective, train
from throughline.claims.shared.augmentation import affine_view, photo_view
from throughline.claims.shared.contrastive import nt_xent
from throughline.data import DataError, Source
from throughline.discrete.ordering import GroupOrderingLoss
from throughline.errors import ThroughlineError

CLAIM = GroupOrdering()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_infonce_of_the_hardest_is_the_formula_and_moves_anchors_only() -> None:
    z, temperature = noise(2, 6, 4).double().requires_grad_(), 0.3
    losses = []
    for v, i in np.ndindex(2, 6):
        fixed = z.detach()
        score = F.cosine_similarity(z[v, i], fixed[v], dim=-1) / temperature
        hardest = torch.stack([score[j] for j in range(6) if j != i]).sort().values[-3:]
        positive = F.cosine_similarity(z[v, i], fixed[1 - v, i], dim=-1) / temperature
        losses.append(-torch.log_softmax(torch.cat([positive[None], hardest]), 0)[0])
    expected, ours = torch.stack(losses).mean(), infonce_hardest(z, temperature, 3)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (ours, expected)))


def test_views_are_random_of_the_right_range_and_reproducible() -> None:
    x = torch.zeros(64, 1, 28, 28)
    x[:, :, 12:16, 12:16] = 1
    first, again = (affine_view(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])
    mass = first.sum((1, 2, 3)) / 16  # a view magnifies by 1 / determinant, and that is 1 / scale²
    assert 1 / 1.3**2 * 0.85 < mass.min() < mass.max() < 1 / 0.7**2 * 1.15
    photo = photo_view(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.Generator())
    assert photo.shape == (64, 3, 32, 32)
    assert photo.min() >= 0
    assert photo.max() <= 1
    grey = (photo.std(1).amax((1, 2)) < 1e-6).double().mean()
    assert 0.05 < grey < 0.4


def test_photo_view_of_a_white_image_stays_white() -> None:
    view = photo_view(torch.ones(50, 3, 16, 16), torch.Generator().manual_seed(0))  # no crop leaves the image
    flat = view.amax((2, 3), keepdim=True).expand_as(view)
    torch.testing.assert_close(view, flat)


def test_projector_ends_normalised_without_parameters() -> None:
    z = projection(8, 16, 4)(noise(64, 8))
    torch.testing.assert_close(z.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(4), atol=1e-2, rtol=0)


@pytest.mark.parametrize("arm", ["infonce", "groco", "infonce_top10"])
def test_smoke_scale_runs_and_repeats(arm: str) -> None:
    config, results = CLAIM.scales["smoke"], []
    for _ in range(2 if arm == "groco" else 1):
        torch.manual_seed(0)
        log = Notes()
        results.append(CLAIM.run(arm, config, 0, log))
    assert results[0] == results[-1]
    assert results[0]["knn_accuracy"] > 0.5  # ten classes
    assert log.arrays["shown"].shape == (5, 6, 1, 8, 8)
    assert log.arrays["late"].shape == (11, 11)
    np.testing.assert_allclose(log.arrays["early"].sum(0), 1, atol=1e-5)
    assert {name for _, values in log.points for name in values} == {"loss", "k-NN accuracy"}


def test_every_arm_has_its_own_rate_and_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    plain = torch.optim.lr_scheduler.OneCycleLR

    def watched(optimizer: Any, lr: float, *args: Any, **options: Any) -> Any:
        rates.append(lr)
        return plain(optimizer, lr, *args, **options)

    monkeypatch.setattr(torch.optim.lr_scheduler, "OneCycleLR", watched)
    rate_of = {"infonce_lr": 1e-3, "groco_lr": 2e-3, "top10_lr": 3e-3}
    config = dataclasses.replace(
        CLAIM.scales["smoke"], epochs=1, infonce_temperature=0.2, top10_temperature=0.7, **rate_of
    )
    whole, z = load(config, 0), noise(2, 12, 4)
    split = whole._replace(bank=whole.bank[:24], bank_labels=whole.bank_labels[:24])
    expected = {
        "infonce": nt_xent(z, 0.2),
        "groco": GroupOrderingLoss(10)(z),
        "infonce_top10": infonce_hardest(z, 0.7, 10),
    }
    monkeypatch.setattr(imagenet, "require", lambda *_, **options: SimpleNamespace(NTXentLoss=ContrastStandIn))
    for arm, value in expected.items():
        train(encoder_of(1), projection(128, 8, 8), arm, config, split, 0, Notes())
        torch.testing.assert_close(objective(arm, config)[0](z), value)
        torch.testing.assert_close(imagenet._objective(arm, config)(z), value)
    assert rates == list(rate_of.values())


def test_smoke_split_keeps_every_image_once() -> None:
    split = load(CLAIM.scales["smoke"], 0)
    assert len(split.bank) + len(split.queries) == 1797
    assert split.scaled(split.bank).std().item() == pytest.approx(1, abs=1e-3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, hue in (("red", 0), ("green", 1)):
        (tmp_path / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8)
            pixels[..., hue] += 120
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_own_image_folder(folder: Path) -> None:
    config = dataclasses.replace(CLAIM.scales["smoke"], data=Source(str(folder), size=16))
    CLAIM.prepare(config)
    metrics = CLAIM.run("groco", config, 0, Notes())
    assert set(metrics) == {"knn_accuracy", "linear_accuracy"}
    for file in [*folder.glob("*/[3-9].png"), *folder.glob("*/1?.png")]:
        file.unlink()
    with pytest.raises(DataError, match="more than 10 training images, got 4"):
        CLAIM.prepare(config)


def test_imagenet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CLAIM.scales["paper"]
    with pytest.raises(ThroughlineError, match=r"--set root=FOLDER with train/ and val/ in it, got ''"):
        CLAIM.prepare(config)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    with pytest.raises(
        ThroughlineError, match=r"batch=40 on gpus=4: 10 negatives need more .*; --set batch=44 or more"
    ):
        CLAIM.prepare(dataclasses.replace(config, root=str(tmp_path), batch=40, gpus=4))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ThroughlineError, match="torchvision is not installed; pip install --no-deps torchvision"):
        CLAIM.prepare(dataclasses.replace(config, root=str(tmp_path)))


class FolderStandIn(torch.utils.data.Dataset[tuple[Any, int]]):
    """Sixteen small images of two classes, in place of torchvision's ImageFolder."""

    def __init__(self, root: str, transform: Any) -> None:
        assert Path(root).name in ("train", "val")
        self.transform = transform

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(noise(3, 8, 8, seed=i) + i % 2), i % 2


class NetworkStandIn(nn.Module):
    def __init__(self, *, zero_init_residual: bool) -> None:
        super().__init__()
        assert zero_init_residual
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(16, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


class ContrastStandIn(nn.Module):
    def __init__(self, temperature: float, gather_distributed: bool) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return nt_xent(torch.stack([one, other]), self.temperature)


@pytest.mark.parametrize("arm", ["infonce", "groco", "infonce_top10"])
def test_one_epoch_at_paper_scale(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(name: str, **content: Any) -> None:
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)

    def same(*_: Any) -> Any:
        return lambda x: x

    stand_in("torchvision")
    stand_in("torchvision.datasets", ImageFolder=FolderStandIn)
    stand_in("torchvision.models", resnet50=NetworkStandIn)
    stand_in(
        "torchvision.transforms",
        Resize=same, CenterCrop=same, ToTensor=same, Normalize=same,
        Compose=lambda steps: lambda x: steps[-1](x),
    )  # fmt: skip
    stand_in("lightly")
    stand_in("lightly.transforms", DINOTransform=lambda **options: lambda x: [x + 0.1, x - 0.1])
    stand_in("lightly.loss", NTXentLoss=ContrastStandIn)
    monkeypatch.setattr(imagenet, "EPOCHS_OF_PROBE", 2)
    config = dataclasses.replace(
        CLAIM.scales["paper"], root="anywhere", epochs=1, batch=16, k=3, size=8, device="cpu", workers=0
    )
    log = Notes()
    metrics = CLAIM.run(arm, config, 0, log)
    assert set(metrics) == {"knn_accuracy", "linear_accuracy"}
    assert metrics["knn_accuracy"] == 1.0  # the queries are in the bank, and the classes lie apart
    assert math.isfinite(log.points[0][1]["loss"])


def test_the_papers_learning_rates() -> None:
    assert imagenet.recipe("groco", 1024) == (24.0, 1, 2048)
    assert imagenet.recipe("infonce", 1024) == (pytest.approx(2.4), 10, 128)
