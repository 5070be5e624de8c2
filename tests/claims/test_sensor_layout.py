"""The sensor-layout claim: its parts, a smoke run of every arm, and one step of the paper's scale through stand-ins."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.claims.stand_ins import Notes
from torch import Tensor, nn

from throughline.claims.sensor_layout import data as tasks
from throughline.claims.sensor_layout import paper
from throughline.claims.sensor_layout.claim import LearnedLayout
from throughline.claims.sensor_layout.config import Config
from throughline.claims.sensor_layout.training import fit
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.sensing.layout import SensorLayout

CLAIM = LearnedLayout()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


class Stored:
    """What the figures ask of `Results`."""

    def __init__(self, units: dict[tuple[str, int], tuple[dict[str, float], Notes]], arms: tuple[str, ...]) -> None:
        self.claim, self.units, self.arms = CLAIM, units, arms
        self.seeds = tuple(sorted({seed for _, seed in units})) or (0,)

    def values(self, metric: str, arm: str) -> dict[int, float]:
        return {s: self.units[arm, s][0][metric] for s in self.seeds if (arm, s) in self.units}

    def paired(self, metric: str, arm: str, other: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
        ours, theirs = self.values(metric, arm), self.values(metric, other)
        both = tuple(s for s in self.seeds if s in ours and s in theirs)
        return both, np.array([ours[s] for s in both]), np.array([theirs[s] for s in both])

    def curve(self, name: str, arm: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        found = {s: self.units[arm, s][1].points for s in self.seeds if (arm, s) in self.units}
        return {s: (np.array([p for p, _ in c]), np.array([v[name] for _, v in c])) for s, c in found.items()}

    def kept(self, arm: str, seed: int) -> dict[str, np.ndarray]:
        return self.units[arm, seed][1].arrays if (arm, seed) in self.units else {}


@pytest.fixture(scope="module")
def smoke() -> dict[tuple[str, int], tuple[dict[str, float], Notes]]:
    units = {}
    for arm in ARMS:
        for seed in (0, 1) if arm in ("uniform", "curvilinear") else (0,):
            log = Notes()
            units[arm, seed] = CLAIM.run(arm, SMOKE, seed, log), log
    return units


def test_smoke_run_of_every_arm(smoke: Any) -> None:
    CLAIM.prepare(SMOKE)
    for (arm, seed), (metrics, log) in smoke.items():
        assert set(metrics) == {"accuracy", "curvature_x", "curvature_y"}
        assert 0.1 < metrics["accuracy"] <= 1, (arm, seed)
        assert log.places[-1][1] == (40 if arm == "refrozen" else 20)
        assert log.places[-1][0] == log.places[-1][1] - 1
        assert log.arrays["readings"].shape == (10, 3, 3, 1)
        assert sum(a.nbytes for a in log.arrays.values()) < 1_000_000
    assert smoke["uniform", 0][0]["curvature_x"] == 0
    assert smoke["fixed_center", 0][0]["curvature_x"] == pytest.approx(0.45)
    assert smoke["rectangular", 0][0]["curvature_y"] != 0
    learned, frozen = (smoke[arm, 0][0] for arm in ("rectangular", "refrozen"))
    assert (learned["curvature_x"], learned["curvature_y"]) == (frozen["curvature_x"], frozen["curvature_y"])


def test_same_seed_same_numbers(smoke: Any) -> None:
    torch.rand(3)  # whatever was drawn before
    assert CLAIM.run("curvilinear", SMOKE, 1, Notes()) == smoke["curvilinear", 1][0]


def test_arms_share_network_and_batches() -> None:
    task = tasks.load(SMOKE, 0)
    targets = []
    for layout in (SensorLayout(3).requires_grad_(False), SensorLayout(3, shape="curvilinear")):
        targets.append(torch.cat([y for _, y in task.batches(layout)]))
    torch.testing.assert_close(*targets)
    networks = [fit(task, SensorLayout(3), 0.0, SMOKE, 0, Notes(), 0, 20) for _ in range(2)]
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_fixed_sensors_read_ahead_what_they_would_have_read() -> None:
    task = tasks.load(SMOKE, 0)
    layout = SensorLayout(3, curvature=(0.3, -0.1))
    ahead = [x for x, _ in task.batches(layout.requires_grad_(False))]
    live = [x.detach() for x, _ in task.batches(layout.requires_grad_(True))]
    torch.testing.assert_close(ahead, live)


def test_layout_has_its_own_learning_rate() -> None:
    task, still = tasks.load(SMOKE, 0), dataclasses.replace(SMOKE, layout_lr=0.0)
    layout = SensorLayout(3)
    fit(task, layout, 0.01, still, 0, Notes(), 0, 20)
    assert layout.curvature.abs().max() == 0


def test_every_arm_trains_at_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, ...]] = []
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *_, **__: rates.append(tuple(g["lr"] for g in self.param_groups))
    )
    wanted = {f"{arm}_lr": 10.0**-n for n, arm in enumerate(ARMS)}
    config = dataclasses.replace(SMOKE, **wanted)
    for arm in ARMS:
        rates.clear()
        CLAIM.run(arm, config, 0, Notes())
        first = "rectangular" if arm == "refrozen" else arm  # whose layout it learns
        assert rates[0] == (wanted[f"{first}_lr"], SMOKE.layout_lr)
        assert rates[-20] == (wanted[f"{arm}_lr"], SMOKE.layout_lr)


def test_rates_decay_after_every_epoch() -> None:
    ends = []
    for epochs in (1, 2):  # with a decay to 0 the second epoch changes nothing
        config = dataclasses.replace(SMOKE, epochs=epochs, decay=0.0)
        layout = SensorLayout(3)
        fit(tasks.load(config, 0), layout, 0.01, config, 0, Notes(), 0, 20 * epochs)
        ends.append(layout.curvature.detach())
    assert ends[0].abs().max() > 0
    torch.testing.assert_close(*ends)


def test_figures(smoke: Any) -> None:
    figures = CLAIM.figures(Stored(smoke, ARMS))  # type: ignore[arg-type]
    assert len(figures) == 5
    for figure in figures.values():
        figure.canvas.draw()
    grid = next(figure for caption, figure in figures.items() if caption.startswith("Where"))
    assert [axis.get_title() for axis in grid.axes] == [arm.replace("_", " ") for arm in ARMS]
    line = np.asarray(grid.axes[3].lines[1].get_xydata())  # the first inner horizontal line of fixed_center
    assert np.unique(line[:, 1].round(6)).size == 1
    assert line[0, 1] == pytest.approx(-1 / 3 * (1 - 0.3) / (1 + 0.3 - 2 * 0.3 / 3), abs=1e-6)


@pytest.mark.parametrize("arms", [("uniform",), ("rectangular", "refrozen"), ARMS])
def test_figures_of_an_unfinished_run(smoke: Any, arms: tuple[str, ...]) -> None:
    some = {key: unit for key, unit in smoke.items() if key == ("rectangular", 0)}
    for units in (some, {}):
        figures = CLAIM.figures(Stored(units, arms))  # type: ignore[arg-type]
        assert figures
        for figure in figures.values():
            figure.canvas.draw()


def pictures(root: Path, sizes: tuple[tuple[int, int], ...] = ((24, 18), (20, 30))) -> Path:
    draw = np.random.default_rng(0)
    for name in ("dark", "light"):
        (root / name).mkdir()
        for i in range(8):
            width, height = sizes[i % len(sizes)]
            pixels = draw.integers(0, 120, (height, width, 3), np.uint8) + (120 if name == "light" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def test_own_images(tmp_path: Path) -> None:
    source = Source.of(pictures(tmp_path))
    config = dataclasses.replace(CLAIM.scales["laptop"], epochs=2, batch=4, held_out=0.5, data=source)
    CLAIM.prepare(config)
    log = Notes()
    metrics = CLAIM.run("curvilinear", config, 0, log)
    assert log.arrays["readings"].shape == (8, 8, 8, 3)
    assert log.arrays["scenes"].shape == (8, 18, 18, 3)  # the common square, not enlarged
    assert 0 <= metrics["accuracy"] <= 1
    for figure in CLAIM.figures(Stored({("curvilinear", 0): (metrics, log)}, CLAIM.arms)).values():  # type: ignore[arg-type]
        figure.canvas.draw()
    assert tasks.sensor_size(dataclasses.replace(config, data=Source.of(tmp_path, size=5))) == (5, 5)
    assert tasks.sensor_size(dataclasses.replace(config, sensor=(4, 6))) == (4, 6)
    assert tasks._in_memory(dataclasses.replace(config, scene=10), 0)[0].images.shape[2:] == (10, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": Source("anywhere", size=1)}, r"a sensor of one pixel has no layout to learn; --size 2 or more"),
        ({"dataset": "digits", "sensor": (4, 9)}, r"a 4 × 9 sensor is finer than the 8 × 8 scenes"),
    ],
)
def test_says_what_cannot_be_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ThroughlineError, match=message):
        CLAIM.prepare(dataclasses.replace(Config(), **changes))


# Stand-ins for torchvision: the calls that the paper's scale makes, on a few small pictures.


class Pictures:
    def __init__(self, root: str, **options: Any) -> None:
        if root == "empty":
            raise RuntimeError("Dataset not found or corrupted")
        self.root, self.options = root, options

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        if i >= len(self):
            raise IndexError
        picture = Image.fromarray(np.random.default_rng(i).integers(0, 256, (16, 24, 3), np.uint8))
        return self.options["transform"](picture), self.target(i)

    def target(self, i: int) -> Tensor:
        return torch.arange(40) % 2


class CelebA(Pictures):
    attr_names = [f"attribute {i}" for i in range(40)]


class Cityscapes(Pictures):
    classes = [
        SimpleNamespace(id=0, train_id=255),
        *(SimpleNamespace(id=i + 7, train_id=i) for i in range(19)),
        SimpleNamespace(id=-1, train_id=-1),
    ]

    def target(self, i: int) -> Tensor:
        ids = np.full((16, 24), 7 + i, np.uint8)
        ids[:2] = 0  # not evaluated
        return self.options["target_transform"](Image.fromarray(ids))


class MNIST(Pictures):
    def __init__(self, root: str, *, train: bool, download: bool) -> None:
        super().__init__(root)
        n = 40 if train else 20
        self.data = torch.randint(256, (n, 28, 28), generator=torch.Generator().manual_seed(n)).byte()
        self.targets = torch.arange(n) % 10


class DeepLab(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, num_classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"out": self.layer(image)}


def planes(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.atleast_3d(np.array(picture)).transpose(2, 0, 1).copy())


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    contents: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.datasets": {"MNIST": MNIST, "CelebA": CelebA, "Cityscapes": Cityscapes},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {
            "pil_to_tensor": lambda picture: torch.from_numpy(
                np.atleast_3d(np.array(picture)).transpose(2, 0, 1).copy()
            )
        },
        "torchvision.models": {},
        "torchvision.models.segmentation": {"deeplabv3_resnet50": DeepLab},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return


PAPER = dataclasses.replace(CLAIM.scales["paper"], root="data", device="cpu", epochs=1, batch=2, workers=0)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(("dataset", "sensor"), [("mnist-full", None), ("celeba", None), ("cityscapes", (8, 12))])
@pytest.mark.parametrize("arm", ["uniform", "curvilinear"])
def test_a_step_of_the_papers_scale(dataset: str, sensor: tuple[int, int] | None, arm: str) -> None:
    config = dataclasses.replace(PAPER, dataset=dataset, sensor=sensor)
    CLAIM.prepare(config)
    log = Notes()
    metrics = CLAIM.run(arm, config, 0, log)
    assert 0 <= metrics["accuracy"] <= 1
    assert (metrics["curvature_x"] != 0) == (arm == "curvilinear")
    assert ("miou" in metrics) == (dataset == "cityscapes")
    figures = CLAIM.figures(Stored({(arm, 0): (metrics, log)}, (arm,)))  # type: ignore[arg-type]
    assert len(figures) == 5


@pytest.mark.usefixtures("torchvision")
def test_segmentation_is_measured_on_the_regular_grid() -> None:
    config = dataclasses.replace(PAPER, dataset="cityscapes", sensor=(8, 12))
    task = paper.load(config, 0)
    layout = SensorLayout((8, 12), curvature=(0.4, 0.1))

    class Oracle(nn.Module):
        """Names class 0 everywhere: right on one picture of four, and only where pixels are evaluated."""

        def forward(self, reading: Tensor) -> Tensor:
            scores = torch.zeros(len(reading), 19, *reading.shape[-2:])
            scores[:, 0] = 1
            return scores

    measured = task.measure(layout, Oracle())
    assert measured == {"accuracy": pytest.approx(0.25), "miou": pytest.approx(0.25 / 4)}
    (reading, target), *_ = task.batches(layout)
    assert reading.shape == (2, 3, 8, 12)
    assert set(target[:, :2].unique().tolist()) == {255}
    assert target[:, 2:].max() < 4


@pytest.mark.usefixtures("torchvision")
def test_segmentation_is_rectified(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(self: Pictures, i: int) -> Tensor:
        ids = np.full((16, 24), 7, np.uint8)
        ids[:, 16:] = 8  # right of φ(1/2) = 0.3, which is column 15.6
        return self.options["target_transform"](Image.fromarray(ids))

    class RightQuarter(nn.Module):
        """Class 1 in the last three of the sensor's twelve columns."""

        def forward(self, reading: Tensor) -> Tensor:
            scores = torch.zeros(len(reading), 19, *reading.shape[-2:])
            scores[:, 0, :, :9] = scores[:, 1, :, 9:] = 1
            return scores

    monkeypatch.setattr(Cityscapes, "target", target)
    task = paper.load(dataclasses.replace(PAPER, dataset="cityscapes", sensor=(8, 12)), 0)
    measured = task.measure(SensorLayout((8, 12), curvature=(0.4, 0.1)), RightQuarter())
    assert measured == {"accuracy": 1.0, "miou": 1.0}


@pytest.mark.usefixtures("torchvision")
def test_data_of_the_papers_scale_missing() -> None:
    with pytest.raises(ThroughlineError, match=r"dataset=mnist-full needs --set root=FOLDER"):
        CLAIM.prepare(dataclasses.replace(PAPER, root=""))
    with pytest.raises(DataError, match=r"Cityscapes could not be read below empty: Dataset not found"):
        CLAIM.prepare(dataclasses.replace(PAPER, dataset="cityscapes", root="empty"))


def test_says_how_to_install_what_the_papers_scale_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ThroughlineError, match="torchvision is not installed; pip install --no-deps torchvision"):
        CLAIM.prepare(PAPER)
