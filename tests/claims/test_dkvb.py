"""The bottleneck's claim: stream, schedule, metrics, the encoder that is kept, the user's data, pretrained encoders."""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.claims.stand_ins import Notes, colour_folder, wine_table
from torch import Tensor, nn

from throughline.claims.dkvb import data, toy
from throughline.claims.dkvb.claim import StreamWithoutForgetting
from throughline.claims.dkvb.config import Config
from throughline.claims.dkvb.data import load
from throughline.claims.dkvb.training import learner, standardized, step, usage
from throughline.claims.shared import omniglot_encoder, pictures
from throughline.continual.streams import class_incremental
from throughline.data import DataError, Images
from throughline.errors import ThroughlineError
from throughline.lab.results import Results, judge
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit

CLAIM = StreamWithoutForgetting()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


def run(arm: str, config: Config = SMOKE, seed: int = 0) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, config, seed, notes), notes


smoke = cache(run)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_metrics_follow_from_the_table_of_tasks() -> None:
    for arm in ("linear_probe", "bottleneck"):
        metrics, notes = smoke(arm)
        table = notes.arrays["tasks"]
        drops = [table[task, task] - table[-1, task] for task in range(4)]  # the last task has had no time to forget
        assert metrics["forgetting"] == pytest.approx(np.mean(drops))
        sizes = np.array([len(t) for t in parts()])
        assert metrics["accuracy"] == pytest.approx(table[-1] @ sizes / sizes.sum())
        assert metrics["accuracy"] == notes.curve("accuracy")[5]
        assert list(notes.curve("accuracy")) == [1, 2, 3, 4, 5]
        if arm == "linear_probe":
            assert (table[np.triu_indices(5, 1)] < 0.5).all()  # nobody knows a class before its task
    assert set(smoke("iid_bottleneck")[0]) == {"accuracy"}


def parts() -> list[Tensor]:
    split = load(SMOKE, 0)
    stream = class_incremental(split.y, 5, generator=seeded())
    return [split.test_y[torch.isin(split.test_y, split.y[rows])] for rows in stream]


def test_the_bottleneck_remembers_already_at_smoke_scale() -> None:
    long = replace(SMOKE, epochs=8)
    remembered, forgot = run("bottleneck", long)[0], run("linear_probe", replace(long, linear_lr=0.1))[0]
    assert remembered["accuracy"] > forgot["accuracy"] + 0.2
    assert remembered["forgetting"] < 0.3 < forgot["forgetting"]


def test_a_step_is_clipped() -> None:
    head = nn.Linear(3, 4)
    before = head.weight.detach().clone(), head.bias.detach().clone()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
    step(head, optimizer, 100 * torch.ones(8, 3), torch.arange(8) % 4, replace(SMOKE, clip=0.01))
    moved = torch.cat([(head.weight - before[0]).flatten(), head.bias - before[1]]).norm()
    assert moved.item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_arms_share_the_stream_and_differ_in_their_keys() -> None:
    split = load(SMOKE, 0)
    heads = {arm: learner(arm, SMOKE, split, seeded(1))[0] for arm in CLAIM.arms if "bottleneck" in arm}
    assert heads["bottleneck"][0].keys.equal(heads["iid_bottleneck"][0].keys)  # type: ignore[index]
    assert not heads["bottleneck"][0].keys.equal(heads["bottleneck_own_keys"][0].keys)  # type: ignore[index]
    assert split.keys.shape == split.x.shape
    assert not split.keys.equal(split.x)
    assert all(a.equal(b) for a, b in zip(split, load(SMOKE, 0), strict=True))
    assert not load(SMOKE, 1).y.equal(split.y)
    assert usage(nn.Linear(2, 2)).shape == (0,)


def test_the_map_of_writers_is_that_of_fetches() -> None:
    split = load(SMOKE, 0)
    wrote = smoke("bottleneck")[1].arrays["wrote"]
    assert wrote.shape == (5, 8, 32)
    stream = class_incremental(split.y, 5, generator=(draw := seeded()))
    head, _ = learner("bottleneck", SMOKE, split, draw)
    for task, rows in enumerate(stream):
        expected = np.zeros((8, 32), bool)
        found = head[0].lookup(split.x[rows]).squeeze(-1)  # type: ignore[index]
        expected[np.arange(8), found.numpy()] = True
        assert np.array_equal(wrote[task], expected)  # an epoch reads every row
    assert smoke("mlp")[1].arrays["wrote"].shape == (5, 0)


def test_standardising_needs_no_label_and_nothing_of_the_stream() -> None:
    split = standardized(load(SMOKE, 0))
    torch.testing.assert_close(split.keys.mean(0), torch.zeros(256), atol=1e-4, rtol=0)
    spread = split.keys.std(0)
    assert ((spread - 1).abs() < 1e-3).logical_or(spread == 0).all()
    assert split.x.mean().abs() > 1e-3


# the encoder that is kept


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache that is empty, and few and small drawings."""
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    images = (torch.rand(60, 1, 28, 28, generator=seeded()) > 0.8).float()
    for module in (omniglot_encoder, data):
        monkeypatch.setattr(module, "characters", lambda: (images, torch.arange(60) % 12))
    return tmp_path / "cache" / "throughline" / "encoders"


def test_nothing_else_depends_on_whether_it_was_kept(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(torch.rand(80, 1, 28, 28, generator=seeded(1)), torch.arange(80) % 10, tuple("0123456789"))
    monkeypatch.setattr(pictures, "mnist", lambda: images)
    config = replace(CLAIM.scales["laptop"], epochs=1, encoder_epochs=1, pairs=16)
    CLAIM.prepare(config)
    for arm in ("mlp", "bottleneck"):
        metrics, notes = run(arm, config)
        again, noted = run(arm, config)
        assert again == metrics
        assert all(np.array_equal(noted.arrays[name], array) for name, array in notes.arrays.items())
    split = load(config, 0)
    assert split.x.shape == (64, 576)
    assert split.keys.shape == (60, 576)
    assert not split.x.requires_grad


# data of one's own


def test_takes_a_table_and_another_without_labels(tmp_path: Path) -> None:
    source = wine_table(tmp_path)
    config = replace(SMOKE, data=source, tasks=3, epochs=30)
    CLAIM.prepare(config)
    split = load(config, 0)
    assert (len(split.x), len(split.test_x), len(split.keys)) == (114, 36, 28)  # a fifth of the training rows aside
    assert run("bottleneck", config)[0]["accuracy"] > 0.8
    config = replace(config, keys=wine_table(tmp_path, "more.csv", labels=False).path)
    CLAIM.prepare(config)
    split = load(config, 0)
    assert (len(split.x), len(split.keys)) == (142, 178)
    wide = replace(config, encoder="torchvision:resnet18")
    with pytest.raises(DataError, match="encoder=torchvision:resnet18 reads images, and the data is a table"):
        CLAIM.prepare(wide)
    with pytest.raises(DataError, match=r"5 tasks need as many classes, got 3; --set tasks=3"):
        CLAIM.prepare(replace(config, tasks=5))


@pytest.mark.parametrize("encoder", ["random", "omniglot"])
def test_takes_images_and_others_without_labels(encoder: str, tmp_path: Path, cache_folder: Path) -> None:
    own = colour_folder(tmp_path / "own", classes=3, count=12, side=12)
    config = replace(SMOKE, data=own, tasks=3, encoder=encoder, encoder_epochs=1)
    CLAIM.prepare(config)
    split = load(config, 0)
    assert (len(split.x), len(split.test_x), len(split.keys)) == (23, 7, 6)
    assert split.x.shape[1] == {"random": 256, "omniglot": 576}[encoder]
    more = colour_folder(tmp_path / "more", classes=3, count=3, side=30)
    Image.new("RGB", (9, 9)).save(tmp_path / "more" / "loose.png")
    config = replace(config, keys=more.path)
    CLAIM.prepare(config)
    assert (len(load(config, 0).x), len(load(config, 0).keys)) == (29, 10)
    assert np.isfinite(run("bottleneck", config)[0]["accuracy"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": "more.csv"}, "keys=more.csv go with data of your own"),
        ({"dataset": "cifar10"}, "dataset=cifar10 needs a pretrained encoder"),
        ({"tasks": 11}, "11 tasks need as many classes, got 10; --set tasks=10"),
    ],
)
def test_names_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ThroughlineError, match=message):
        CLAIM.prepare(replace(SMOKE, **changes))


# pretrained encoders, by stand-ins


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A stand-in for torchvision's data sets: images of ten brightnesses, through the transform."""

    def __init__(self, root: Any, *, train: bool, transform: Any, download: bool) -> None:
        assert download
        self.count, self.transform = (60 if train else 20), transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.new("RGB", (8, 8), (25 * (i % 10),) * 3)), i % 10


class Backbone(nn.Module):
    """A stand-in for a pretrained network: 6 features under a last layer called ``fc``, nothing without eval()."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift, self.drop, self.fc = nn.Linear(3, 6), nn.Dropout(1.0), nn.Linear(6, 1000)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.fc(self.drop(self.lift(10 * x.mean((2, 3))).cos()))
        return hidden


class Vision(nn.Module):
    """A stand-in for a model of transformers: a class token and four patches of two features."""

    def forward(self, pixel_values: Tensor) -> Any:
        tokens = pixel_values.mean((1, 2, 3))[:, None, None] * torch.arange(5.0)[:, None]
        return SimpleNamespace(last_hidden_state=tokens.expand(-1, 5, 2))


class Pair(Vision):
    """The same with a text side, as CLIP has."""

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.mean((2, 3))


def to_tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)


def install(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def module(name: str, **members: Any) -> ModuleType:
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def get_model(name: str, *, weights: str) -> nn.Module:
        asked.append(f"{name} {weights}")
        return Backbone()

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        asked.append(name)
        model = Backbone()
        model.fc = nn.Identity()  # type: ignore[assignment]
        return model

    weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: to_tensor))
    models = module("torchvision.models", get_model=get_model, get_model_weights=lambda name: weights)
    datasets = module("torchvision.datasets", CIFAR10=Pictures, CIFAR100=Pictures)
    module("torchvision", models=models, datasets=datasets)
    data = module("timm.data", resolve_model_data_config=lambda m: {"size": 8}, create_transform=lambda size: to_tensor)
    module("timm", create_model=create_model, data=data)

    def processor(image: Any, *, return_tensors: str) -> Any:
        assert return_tensors == "pt"
        return SimpleNamespace(pixel_values=to_tensor(image)[None])

    def model(name: str) -> nn.Module:
        asked.append(name)
        return Pair() if "clip" in name else Vision()

    module(
        "transformers",
        AutoImageProcessor=SimpleNamespace(from_pretrained=lambda name: processor),
        AutoModel=SimpleNamespace(from_pretrained=model),
    )
    return asked


def test_paper_scale_takes_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = install(monkeypatch)
    config = replace(CLAIM.scales["paper"], device="cpu", epochs=40, codebooks=16, pairs=32, dim_key=3, batch=16)
    CLAIM.prepare(config)
    split = load(config, 0)
    assert split.x.shape == (60, 6)  # features, not the last layer's 1,000 classes
    assert split.test_x.shape == (20, 6)
    assert split.keys.shape == (60, 6)
    assert run("bottleneck", config)[0]["accuracy"] > 0.7
    assert set(asked) == {"resnet50 DEFAULT"}


def test_encoders_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = install(monkeypatch)
    names = {"transformers:org/vit": 2, "transformers:org/clip": 3, "vit_small": 6, "torchvision:resnet18": 6}
    own, more = (colour_folder(tmp_path / name, classes=3, count=count) for name, count in (("own", 8), ("more", 2)))
    for name, width in names.items():
        for keys, sizes in (("", (15, 4, 5)), (more.path, (20, 6, 4))):
            config = replace(SMOKE, data=own, tasks=3, encoder=name, keys=keys)
            CLAIM.prepare(config)
            split = load(config, 0)
            assert split.x.shape[1] == width
            assert not split.x.requires_grad
            assert (len(split.x) + len(split.test_x) + len(split.keys)) == (24 if not keys else 30), sizes
            assert set(split.y.tolist()) == {0, 1, 2}
    assert asked[:2] == ["org/vit", "org/vit"]
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ThroughlineError, match="transformers is not installed; pip install transformers"):
        CLAIM.prepare(replace(SMOKE, data=own, tasks=3, encoder="transformers:org/vit"))


# pictures


def test_the_plane_is_kept_by_the_bottleneck_alone() -> None:
    x, y = toy.blobs(3)
    cell = ((x + toy.REACH) / (2 * toy.REACH) * 63).round().long()
    right, blank = {}, {}
    for arm in toy.ARMS:
        regions = toy.regions(arm, 3)
        assert regions.shape == (4, 64, 64)
        blank[arm] = [float((region == toy.UNDECIDED).double().mean()) for region in regions]
        right[arm] = [float((region[cell[:, 1], cell[:, 0]] == y).double().mean()) for region in regions]
    assert right["bottleneck"][-1] > 0.95
    assert right["bottleneck"] == sorted(right["bottleneck"])
    assert blank["bottleneck"] == sorted(blank["bottleneck"], reverse=True)
    assert blank["bottleneck"][0] > 0.8 > blank["bottleneck"][-1] > 0.5  # it says nothing of what it has not seen
    assert not any(blank["mlp"])
    assert max(right["mlp"][-1], right["linear_probe"][-1]) < 0.7


def test_draws_what_has_finished(tmp_path: Path) -> None:
    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0,), threads=1, command="throughline run dkvb")
    store, _ = open_run(tmp_path, manifest)
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 1  # dots without a dot
    for arm in ("linear_probe", "bottleneck", "iid_bottleneck"):
        metrics, notes = smoke(arm)
        curve = notes.curve("accuracy")
        curves = {"accuracy": {"step": list(curve), "value": list(curve.values())}}
        store.write(Unit(arm, 0), {"metrics": metrics, "measured": {}, "curves": curves}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    assert judge(results).verdict == "incomplete"
    course, dots, tasks, plane, writers = CLAIM.figures(results).values()
    assert len(course.axes[0].lines) == 4  # three arms, and what can be known
    assert len(dots.axes) == 1
    assert [axis.get_title() for axis in tasks.axes[:2]] == ["linear probe", "bottleneck"]
    assert len(plane.axes) == 8
    shares = [bar.get_height() for bar in writers.axes[1].patches]
    assert sum(shares) == pytest.approx(1)
