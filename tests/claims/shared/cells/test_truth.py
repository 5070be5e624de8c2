"""What an architecture is worth: the table where it holds, training where it does not, and that both agree."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from throughline.claims.shared.cells import loading, searching, truth
from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.laptop import mnist1d_rows
from throughline.claims.shared.cells.training import accuracies
from throughline.search.darts import DartsSearcher
from throughline.search.spaces import cells_1d
from throughline.search.supernet import MixedOp, choices
from throughline.search.tabular import ArchitectureTable

pytest.importorskip("mnist1d.data")
LAPTOP = CellConfig()
NAMES = loading.option_names(LAPTOP)
POOLS, SKIPS, CONVS = (dict.fromkeys(NAMES, o) for o in ("avg_pool_3", "skip_connect", "nor_conv_3"))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two architectures of three seeds."""
    scores = {
        tuple(POOLS.values()): {0: 0.5, 1: 0.6, 2: 0.7},
        tuple(CONVS.values()): {0: 0.9, 1: 0.9, 2: 0.96},
    }
    ArchitectureTable(NAMES, scores).save(tmp_path / "table.csv")
    monkeypatch.setattr(truth, "TABLE", tmp_path / "table.csv")
    truth._table.cache_clear()
    yield
    truth._table.cache_clear()


@pytest.mark.usefixtures("table")
def test_what_the_table_holds_is_looked_up_and_the_rest_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = loading.load(LAPTOP, 0)
    monkeypatch.setattr(truth, "trained", lambda setting, decisions: 0.8)
    found = truth.worth(setting, POOLS)
    assert found == pytest.approx({"convolutions": 0, "test_accuracy": 0.6, "rank": 2, "regret": 0.32})
    found = truth.worth(setting, CONVS)
    assert found == pytest.approx({"convolutions": 6, "test_accuracy": 0.92, "rank": 1, "regret": 0})
    found = truth.worth(setting, {**SKIPS, "edge.2_1": "nor_conv_3"})
    assert found == pytest.approx({"convolutions": 1, "test_accuracy": 0.8, "rank": 2, "regret": 0.12})


@pytest.mark.usefixtures("table")
def test_the_table_holds_for_one_setting_alone() -> None:
    assert truth.table_for(LAPTOP) is not None
    for changes in ({"lr": 0.1}, {"epochs": 3}, {"channels": 8}, {"arch_lr": 0.1}, {"batch": 32}):
        assert truth.table_for(replace(LAPTOP, **changes)) is not None  # of the search: what is found is worth the same
    for changes in (
        *({"samples": 900}, {"final_epochs": 39}, {"final_lr": 0.1}, {"final_decay": 0.0}, {"final_batch": 32}),
        *({"final_channels": 8}, {"retrainings": 2}, {"dataset": "cifar10"}, {"space": "s2"}, {"benchmark": "b"}),
    ):
        assert truth.table_for(replace(LAPTOP, **changes)) is None


def test_without_a_table_the_mean_of_the_retrainings_is_taken() -> None:
    config = replace(LAPTOP, samples=64, final_epochs=1, retrainings=2, final_batch=16)
    setting = loading.load(config, 1)
    build = partial(setting.final, decisions=SKIPS)
    each = [accuracies(build, setting.whole(), setting.test, config, [seed])[0] for seed in (0, 1)]
    assert truth.worth(setting, SKIPS) == {"convolutions": 0, "test_accuracy": pytest.approx(math.fsum(each) / 2)}


@pytest.mark.skipif(not truth.TABLE.exists(), reason="the table is not built yet")
def test_two_rows_of_the_table_are_what_training_gives() -> None:
    table = ArchitectureTable.load(truth.TABLE)
    assert len(table) == 729
    assert truth.TABLE.stat().st_size < 60_000
    assert dict(table.options) == dict(NAMES)
    train, test, classes = mnist1d_rows(LAPTOP.samples)
    decisions = {**SKIPS, "edge.3_2": "nor_conv_3"}
    build = partial(cells_1d, LAPTOP.final_channels, classes, decisions=decisions)
    found = accuracies(build, train, test, LAPTOP, [0, 1])
    for seed, accuracy in enumerate(found):
        assert accuracy == pytest.approx(table.by_seed(decisions)[seed], abs=0.03)


# ---- the search ----


def test_a_search_is_that_of_darts() -> None:
    config = replace(LAPTOP, samples=128, epochs=3, batch=16, channels=4)
    setting = loading.load(config, 0)
    searcher = searching.darts_searcher(setting.supernet(), config)
    assert isinstance(searcher, DartsSearcher)
    weights, arch = searcher.weight_optimizer.param_groups[0], searcher.arch_optimizer.param_groups[0]
    assert (weights["lr"], weights["momentum"], weights["weight_decay"]) == (0.025, 0.9, 3e-4)
    assert (arch["lr"], arch["betas"], arch["weight_decay"]) == (3e-3, (0.5, 0.999), 1e-3)
    assert searcher.grad_clip == 5.0
    points, rates = [], []
    searching.run_search(
        searcher,
        setting.batches(),
        config,
        lambda step, of, **values: points.append((step, of, set(values))),
        of=9,
        on_epoch=lambda epoch: rates.append(weights["lr"]),
    )
    assert points == [(epoch, 9, {"train_loss", "valid_loss"}) for epoch in range(3)]
    assert rates == pytest.approx([0.001 + 0.024 * (1 + math.cos(math.pi * t / 3)) / 2 for t in (1, 2, 3)])


def test_a_search_with_alpha_fixed_leaves_it() -> None:
    config = replace(LAPTOP, samples=128, epochs=1, batch=16, channels=4)
    setting = loading.load(config, 0)
    net = setting.supernet()
    before, weight = searching.shares(net), net.classifier.weight.clone()
    searching.run_search(
        searching.darts_searcher(net, config), setting.batches(), config, lambda *a, **k: None, of=1, fixed=True
    )
    assert torch.equal(searching.shares(net), before)
    assert not torch.equal(net.classifier.weight, weight)


def test_accuracy_is_by_batches_and_leaves_no_trace() -> None:
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    x, y = torch.randn(1200, 2) + 100, torch.randint(2, (1200,))
    wanted = 0
    for rows in (slice(0, 500), slice(500, 1000), slice(1000, 1200)):
        part = x[rows]
        normed = (part - part.mean(0)) / (part.var(0, unbiased=False) + 1e-5).sqrt()
        wanted += int((net[1](normed).argmax(1) == y[rows]).sum())
    assert searching.accuracy(net, (x, y)) == pytest.approx(wanted / 1200, abs=2e-3)
    assert torch.equal(net[0].running_mean, torch.zeros(2))


def test_shares_of_unlike_choices() -> None:
    ops = lambda *names: MixedOp({name: nn.Identity() for name in names})  # noqa: E731
    net = nn.Sequential(ops("a", "b", "c"), ops("a", "b"))
    found = searching.shares(net)
    assert found.shape == (2, 3)
    for row, choice in zip(found, choices(net).values(), strict=True):
        torch.testing.assert_close(row[: len(choice.names)], choice.alpha.detach().softmax(0))
    assert found[1, 2].isnan()
