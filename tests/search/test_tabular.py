"""Tables against plain arithmetic, and that nothing is lost or computed twice when a build is interrupted."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.forks import FORKS

from throughline.search import tabular
from throughline.search.tabular import ArchitectureTable

OPTIONS = {"edge.1_0": ("skip", "conv", "pool"), "edge.2_0": ("skip", "conv")}
EVERY = [dict(zip(OPTIONS, key, strict=True)) for key in itertools.product(*OPTIONS.values())]


def worth(decisions: Mapping[str, str], seeds: tuple[int, ...]) -> list[float]:
    """Different for every architecture and seed."""
    place = list(OPTIONS["edge.1_0"]).index(decisions["edge.1_0"]) + 0.1 * (decisions["edge.2_0"] == "conv")
    return [0.5 + place / 10 + seed / 1000 for seed in seeds]


@given(st.lists(st.lists(st.sampled_from([0.1, 0.2, 0.4, 0.7]), min_size=1, max_size=3), min_size=6, max_size=6))
def test_score_rank_and_regret(scores: list[list[float]]) -> None:
    keys = itertools.product(*OPTIONS.values())
    table = ArchitectureTable(OPTIONS, {key: dict(enumerate(s)) for key, s in zip(keys, scores, strict=True)})
    means = np.array([np.mean(s) for s in scores])
    got = np.array([table.score(d) for d in EVERY])
    np.testing.assert_allclose(got, means)
    ranks = scipy.stats.rankdata(-got, method="min")
    assert [table.rank(d) for d in EVERY] == ranks.tolist()
    np.testing.assert_allclose([table.regret(d) for d in EVERY], means.max() - means, atol=1e-12)
    assert len(table) == 6
    assert table.by_seed(EVERY[3]) == dict(enumerate(scores[3]))


def test_build_computes_each_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    file, asked = tmp_path / "table.csv", []

    class Stopped(Exception):
        pass

    def evaluate(decisions: dict[str, str], seeds: tuple[int, ...]) -> list[float]:
        if len(asked) == 4:
            raise Stopped
        asked.append((tuple(decisions.values()), seeds))
        assert len(ArchitectureTable.load(file) if file.exists() else ()) == len(asked) - 1  # written as soon as known
        return worth(decisions, seeds)

    with pytest.raises(Stopped):
        ArchitectureTable.build(file, OPTIONS, evaluate, (0, 1))
    assert len(ArchitectureTable.load(file)) == 4
    assert os.listdir(tmp_path) == ["table.csv"]
    progress: list[tuple[int, int]] = []
    asked.clear()

    def rest(decisions: dict[str, str], seeds: tuple[int, ...]) -> list[float]:
        asked.append((tuple(decisions.values()), seeds))
        return worth(decisions, seeds)

    table = ArchitectureTable.build(file, OPTIONS, rest, (0, 1), on_row=lambda *n: progress.append(n))
    assert progress == [(5, 6), (6, 6)]
    assert asked == [(("pool", "skip"), (0, 1)), (("pool", "conv"), (0, 1))]
    for d in EVERY:
        assert table.score(d) == pytest.approx(np.mean(worth(d, (0, 1))))
    asked.clear()
    ArchitectureTable.build(file, OPTIONS, rest, (1, 5))  # one seed more
    assert [seeds for _, seeds in asked] == [(5,)] * 6
    loaded = ArchitectureTable.load(file)
    assert loaded.by_seed(EVERY[0]) == dict(zip((0, 1, 5), worth(EVERY[0], (0, 1, 5)), strict=True))
    assert loaded.options == OPTIONS
    assert len(loaded.versions) == 1
    assert "PyTorch" in loaded.versions[0]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "get_context", lambda method: FORKS)  # spares workers the import of torch


@pytest.mark.usefixtures("forked")
def test_workers_build_the_same_file(tmp_path: Path) -> None:
    ArchitectureTable.build(tmp_path / "one.csv", OPTIONS, worth, (3, 1))
    ArchitectureTable.build(tmp_path / "two.csv", OPTIONS, worth, (1, 3), workers=2)
    text = (tmp_path / "one.csv").read_text()
    assert (tmp_path / "two.csv").read_text() == text
    lines = text.splitlines()
    assert lines[:2] == ["# choice edge.1_0 skip conv pool", "# choice edge.2_0 skip conv"]
    assert lines[3:6] == ["architecture,seed,score", "00,1,0.501", "00,3,0.503"]
    assert len(lines) == 4 + 12


def threads(decisions: Mapping[str, str], seeds: tuple[int, ...]) -> list[int]:
    return [torch.get_num_threads()] * len(seeds)


@pytest.mark.usefixtures("forked")
def test_workers_share_the_processors(tmp_path: Path) -> None:
    table = ArchitectureTable.build(tmp_path / "t.csv", {"a": ("x",)}, threads, workers=2)  # type: ignore[arg-type]
    assert table.by_seed({"a": "x"}) == dict.fromkeys((0, 1, 2), max(1, (os.cpu_count() or 1) // 2))


@pytest.mark.usefixtures("forked")
def test_errors_of_workers_come_through_and_lose_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="edge"):
        ArchitectureTable.build(tmp_path / "t.csv", {"a": ("x",)}, worth, (0,), workers=2)  # type: ignore[dict-item]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    many = {"only": tuple(f"o{i}" for i in range(36))}
    table = ArchitectureTable(many, {("o35",): {7: 1 / 3}, ("o10",): {0: -2.0}}, versions=["one", "two words"])
    table.save(tmp_path / "t.csv")
    again = ArchitectureTable.load(tmp_path / "t.csv")
    assert (again.options, again.versions) == (many, ("one", "two words"))
    assert again.by_seed({"only": "o35"}) == {7: pytest.approx(1 / 3, abs=1e-6)}
    assert {"only": "o10"} in again
    assert {"only": "o11"} not in again
    assert again.by_seed({"only": "o11"}) == {}


def test_bad_input(tmp_path: Path) -> None:
    table = ArchitectureTable(OPTIONS, {("skip", "conv"): {0: 0.5}})
    for ask in (table.score, table.rank, table.regret):
        with pytest.raises(ValueError, match=r"architecture in the table, got \{'edge.1_0': 'skip', .*has no row"):
            ask(EVERY[0])
        with pytest.raises(ValueError, match=r"decisions must be for the choices edge.1_0, edge.2_0, got edge.1_0$"):
            ask({"edge.1_0": "skip"})
        with pytest.raises(ValueError, match=r"decisions must be among skip, conv for edge.2_0, got None"):
            ask({"edge.1_0": "skip", "edge.2_0": None})
    with pytest.raises(ValueError, match=r"options must hold at least one choice, got none"):
        ArchitectureTable({}, {})
    for names in ((), ("a", "a"), tuple(map(str, range(37)))):
        with pytest.raises(ValueError, match=r"options must be 1 to 36 different ones for each choice, got e: \("):
            ArchitectureTable({"e": names}, {})
    with pytest.raises(ValueError, match=r"options must have names without spaces, got 'e': \('a b',\)"):
        ArchitectureTable({"e": ("a b",)}, {})
    with pytest.raises(ValueError, match=r"scores must be of 2 options each, got \('skip',\)"):
        ArchitectureTable(OPTIONS, {("skip",): {0: 0.5}})
    file = tmp_path / "t.csv"
    with pytest.raises(FileNotFoundError):
        ArchitectureTable.load(file)
    for found in ([0.5], [0.5, float("nan")], [0.5, float("inf")]):
        with pytest.raises(ValueError, match=r"evaluate must return a finite number for each of 2 seeds, got \[0.5"):
            ArchitectureTable.build(file, OPTIONS, lambda d, s, found=found: found, (0, 1))  # type: ignore[misc]
    assert not file.exists()
    for seeds in ((), (1, 1)):
        with pytest.raises(ValueError, match=r"seeds must be at least one, and none of them twice, got \("):
            ArchitectureTable.build(file, OPTIONS, worth, seeds)
    with pytest.raises(ValueError, match=r"workers must be at least 1, got 0"):
        ArchitectureTable.build(file, OPTIONS, worth, (0,), 0)
    table.save(file)
    with pytest.raises(ValueError, match=r"path must hold a table of the choices \{'edge.1_0': \('skip',\)\}, got"):
        ArchitectureTable.build(file, {"edge.1_0": ("skip",)}, worth)
    good = file.read_text()
    for line in ("09,0,0.5", "0,0,0.5", "00,0,many", "00,0.5", "0?,0,1"):
        file.write_text(f"{good}{line}\n")
        with pytest.raises(ValueError, match=rf"path must be a table .* with '{line.replace('?', '.')}' in line 5"):
            ArchitectureTable.load(file)
    for text in ("", "a,b\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"path must be a table of architectures, got"):
            ArchitectureTable.load(file)
