"""What a seed's setting holds: halves, spaces and orders; data of the user's own, and the papers' sets on stand-ins."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import colour_folder
from torch import nn

from throughline.claims.shared.cells import loading, paper
from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.laptop import mnist1d_rows
from throughline.claims.shared.cells.setting import Batches
from throughline.data import DataError, Source, mnist1d
from throughline.errors import ThroughlineError
from throughline.search.supernet import choices

pytest.importorskip("mnist1d.data")
SMALL = CellConfig(samples=100, channels=4, final_channels=4)
CIFAR = CellConfig("cifar10", "s2", 20, 4, 3, 8, final_channels=4, final_layers=3, final_batch=8, final_epochs=1)


def signals(folder: Path, *, count: int = 60, shape: tuple[int, ...] = (2, 12), classes: int = 3) -> Source:
    draw = np.random.default_rng(0)
    y = np.arange(count) % classes
    x = draw.standard_normal((count, *shape)) * 7 + 100 * y.reshape(-1, *[1] * len(shape))
    np.savez(folder / "mine.npz", x=x, y=y)
    return Source.of(folder / "mine.npz")


def stand_in(monkeypatch: pytest.MonkeyPatch, side: int = 32) -> None:
    """torchvision's CIFAR-10 and SVHN with twenty images."""

    def images(train: bool) -> Any:
        return np.random.default_rng(int(train)).integers(0, 256, (20, side, side, 3), dtype=np.uint8)

    datasets, labels = ModuleType("torchvision.datasets"), np.arange(20) % 10
    vars(datasets)["CIFAR10"] = lambda root, *, train, download: SimpleNamespace(data=images(train), targets=labels)
    vars(datasets)["SVHN"] = lambda root, *, split, download: SimpleNamespace(
        data=images(split == "train").transpose(0, 3, 1, 2), labels=labels
    )
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a if isinstance(a[n], torch.Tensor))


def test_halves_are_of_the_first_rows_and_follow_the_seed() -> None:
    setting, other = loading.load(SMALL, 3), loading.load(SMALL, 4)
    x, y = setting.whole()
    wanted, test = mnist1d()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(3))
    assert torch.equal(x, wanted.signals[:100][order])
    assert torch.equal(y, wanted.labels[:100][order])
    assert len(setting.train[0]) == len(setting.valid[0]) == 50
    assert torch.equal(setting.test[0], test.signals)
    assert not torch.equal(setting.train[0], other.train[0])


def test_what_is_drawn_anew_is_drawn_alike() -> None:
    setting, other = loading.load(SMALL, 3), loading.load(SMALL, 4)
    assert same(setting.supernet(), setting.supernet())
    assert not same(setting.supernet(), other.supernet())
    first, again = ([y.tolist() for _, y in b] for b in (setting.batches()[0], setting.batches()[0]))
    assert first == again
    train, valid = setting.batches()
    assert [y.tolist() for _, y in train] != [y.tolist() for _, y in train]  # each epoch in an order of its own
    assert len(list(valid)) == len(valid)
    assert next(iter(train))[0].shape == (50, 1, 40)  # a half has no whole batch of 64


def test_batches_drop_what_is_left_and_augment() -> None:
    x = torch.arange(10.0)[:, None]
    draw = torch.Generator().manual_seed(0)
    seen = torch.cat([part for part, _ in Batches(x, x, 4, draw)])
    assert len(seen.unique()) == len(seen) == 8
    for part, label in Batches(x, x, 4, draw, lambda part, draw: part + 100):
        assert torch.equal(part, label + 100)


def test_signals_of_the_users_own(tmp_path: Path) -> None:
    config = replace(SMALL, data=signals(tmp_path), samples=4_000)
    loading.check(config)
    setting = loading.load(config, 0)
    assert [len(y) for _, y in (setting.train, setting.valid, setting.test)] == [21, 21, 18]
    assert setting.train[0].mean((0, 2)).abs().max() < 1e-5  # standardised by the rows that train
    assert setting.valid[0].mean((0, 2)).abs().max() > 1e-5
    net = setting.supernet()
    assert net(setting.test[0]).shape == (18, 3)
    assert dict(loading.option_names(config)) == {name: c.names for name, c in choices(net).items()}


def test_images_of_the_users_own(tmp_path: Path) -> None:
    config = replace(SMALL, data=colour_folder(tmp_path / "pictures"))
    loading.check(config)
    setting = loading.load(config, 0)
    net = setting.supernet()
    assert net(setting.test[0]).shape == (12, 2)
    assert dict(loading.option_names(config)) == {name: c.names for name, c in choices(net).items()}
    assert "nor_conv_3x3" in choices(net)["edge.1_0"].names


def test_settings_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for config, message in (
        (replace(SMALL, samples=4_001), r"samples=4001: MNIST-1D has 4000"),
        (replace(SMALL, space="darts"), r"space=darts is for dataset=cifar10, .* --set space=cells"),
        (replace(SMALL, benchmark="file.pth"), r"benchmark is of NAS-Bench-201: --set space=cells --set dataset=cif"),
        (replace(SMALL, data=signals(tmp_path), space="s2"), r"space=s2 is for dataset=cifar10"),
    ):
        with pytest.raises(ThroughlineError, match=message):
            loading.check(config)
    with pytest.raises(DataError, match=r"4 values or pixels along each side are wanted, got 3"):
        loading.check(replace(SMALL, data=signals(tmp_path, shape=(2, 3))))
    with pytest.raises(DataError, match=r"mine\.npz: class 0 has 2 of 6 rows"):
        loading.check(replace(SMALL, data=signals(tmp_path, count=6)))
    for module, config, cure in (
        ("mnist1d", SMALL, r'pip install "throughline\[signals\]"'),
        ("torchvision.datasets", CIFAR, "pip install --no-deps torchvision"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ThroughlineError, match=cure):
            loading.check(config)


def test_mnist1d_rows_are_the_first() -> None:
    (x, y), (test, _), classes = mnist1d_rows(7)
    assert (len(x), len(y), len(test), classes) == (7, 7, 1000, 10)


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_the_papers_sets(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    setting = loading.load(replace(CIFAR, dataset=dataset), 1)
    x, y = setting.whole()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    assert sorted(y.tolist()) == sorted((np.arange(20) % 10).tolist())
    assert len(setting.train[0]) == len(setting.valid[0]) == 10
    batch, _ = next(iter(setting.batches()[0]))
    assert batch.shape == (8, 3, 32, 32)
    assert not any(torch.equal(batch[0], image) or torch.equal(batch[0], image.flip(2)) for image in setting.train[0])


@pytest.mark.parametrize("space", ["darts", "s2", "s3", "s4"])
def test_the_spaces_of_darts(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    config = replace(CIFAR, space=space)
    names = loading.option_names(config)
    assert set(names.values()) == {paper.PRIMITIVES[space]}
    assert len(names) == 28
    net = loading.load(config, 0).supernet()
    assert dict(names) == {name: choice.names for name, choice in choices(net).items()}


def test_what_was_found_is_trained_as_the_paper_does(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    setting = loading.load(replace(CIFAR, final_epochs=2, final_batch=10, retrainings=1), 0)
    rates: list[float] = []
    decisions: dict[str, str | None] = {
        name: None if name.endswith(("3_2", "4_2", "4_3", "5_2", "5_3", "5_4")) else "skip_connect"
        for name in loading.option_names(setting.config)
    }
    decisions["normal.2_0"] = "sep_conv_3x3"
    build, clip = setting.final, nn.utils.clip_grad_norm_

    def final(**options: Any) -> nn.Module:
        net = build(**options)
        net.register_forward_pre_hook(lambda module, _: rates.append(module.drop_path) if module.training else None)
        return net

    clipped: list[float] = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda p, most: clipped.append(most) or clip(p, most))
    assert 0 <= paper.trained(setting._replace(final=final), decisions) <= 1
    assert rates == [0.0, 0.0, 0.1, 0.1]  # two epochs of two batches
    assert set(clipped) == {5.0}


def test_retrainings_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    setting = loading.load(replace(CIFAR, retrainings=3), 0)
    monkeypatch.setattr(paper, "_trained", lambda setting, decisions, seed: [0.5, 0.7, 0.9][seed])
    assert paper.trained(setting, {}) == pytest.approx(0.7)


def test_nas_bench_201_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Api:
        def __init__(self, file: str, verbose: bool) -> None:
            asked.append(file)

        def query_index_by_arch(self, text: str) -> int:
            asked.append(text)
            return 5

        def get_more_info(
            self, place: int, dataset: str, iepoch: None, *, hp: str, is_random: bool
        ) -> dict[str, float]:
            asked.append((place, dataset, hp, is_random))
            return {"test-accuracy": 91.5}

    config = replace(CIFAR, space="cells", benchmark="file.pth")
    decisions = dict(zip(loading.option_names(config), ["none", "a", "b", "c", "d", "e"], strict=True))
    paper._api.cache_clear()
    monkeypatch.setitem(sys.modules, "nas_201_api", None)
    with pytest.raises(ThroughlineError, match=r"nas_201_api, which reads .* pip install nas-bench-201"):
        paper.looked_up(config, decisions)
    monkeypatch.setitem(sys.modules, "nas_201_api", SimpleNamespace(NASBench201API=Api))
    assert paper.looked_up(config, decisions) == pytest.approx(0.915)
    assert asked == ["file.pth", "|none~0|+|a~0|b~1|+|c~0|d~1|e~2|", (5, "cifar10", "200", False)]
    paper._api.cache_clear()
