"""The benchmark harness on toys with a clock of our own, and the set-up of every real case; nothing here is timed."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.growth import Grown
from benchmarks.harness import Case, Result, cases, compare, measure, papers
from benchmarks.machine import Meter, peak_bytes
from benchmarks.report import First, Run, duration, geometric_mean, page, put, size, write
from benchmarks.spread import finish, units
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from throughline import catalog


def ours() -> int:
    return 1


def peer() -> int:
    return 2


def agree() -> None:
    pass


def toy(**changes: Any) -> Case:
    return Case(
        **{
            "name": "toy",
            "setup": lambda: {"ours": ours, "peer": peer, "agree": agree},
            "bar": 0.5,
            "peer": "them 1.0",
            **changes,
        }
    )


def clock(seconds: dict[Callable[[], Any], list[float]]) -> Callable[[Callable[[], Any], int], float]:
    """Reports the given seconds in turn, after two calls that warm up and choose the number of repeats."""
    calls: dict[Callable[[], Any], int] = dict.fromkeys(seconds, -2)

    def read(call: Callable[[], Any], number: int) -> float:
        calls[call] += 1
        return seconds[call][max(calls[call] - 1, 0)]

    return read


def measured(case: Case, ours_s: list[float], peer_s: list[float], floor: float | None = None) -> Result:
    return compare(case, paper="p", rounds=len(ours_s), clock=clock({ours: ours_s, peer: peer_s}), floor=floor)


def test_the_ratio_is_the_median_over_the_rounds() -> None:
    slow, fast = [2.0, 4.0, 30.0], [4.0, 10.0, 40.0]  # round by round 0.5, 0.4, 0.75; of the medians it would be 0.4
    result = measured(toy(), slow, fast, floor=1.0)
    assert result.ratio is not None
    assert result.ratio.median == 0.5
    assert result.ratio[1:] == pytest.approx(tuple(np.quantile([0.5, 0.4, 0.75], [0.1, 0.9])))
    assert (result.ours.median, result.share) == (4.0, 0.25)
    assert result.held


def test_a_bar_on_memory() -> None:
    def peaks(*found: int | None) -> bool:
        case = toy(bar=None, bar_memory=0.5)
        return compare(case, paper="p", rounds=1, clock=clock({ours: [1.0], peer: [1.0]}), peaks=found).held  # type: ignore[arg-type]

    assert peaks(50, 100)
    assert not peaks(51, 100)
    assert peaks(None, None)
    with pytest.raises(ValueError, match="bar and peer go together"):
        toy(bar=None, bar_seconds=1.0)
    with pytest.raises(ValueError, match="needs a bar"):
        toy(bar=None, peer=None)


def test_a_missed_bar_is_not_held() -> None:
    assert not measured(toy(bar=0.49), [1.0] * 3, [2.0] * 3).held
    assert measured(toy(bar=0.51), [1.0] * 3, [2.0] * 3).held


def test_a_bar_in_seconds_needs_no_peer() -> None:
    alone = toy(bar=None, peer=None, bar_seconds=2.0, setup=lambda: {"ours": ours, "agree": agree})
    assert measured(alone, [1.9] * 3, []).held
    assert not measured(alone, [2.1] * 3, []).held
    assert measured(alone, [1.0] * 3, []).ratio is None


def test_peers_that_disagree_are_not_timed() -> None:
    def differ() -> None:
        raise AssertionError("1 != 2")

    with pytest.raises(AssertionError, match="1 != 2"):
        measured(toy(setup=lambda: {"ours": ours, "peer": peer, "agree": differ}), [], [])


@pytest.mark.parametrize("wrong", [{"bar": None, "peer": None}, {"peer": None}, {"bar": None, "bar_seconds": 1.0}])
def test_a_case_needs_a_bar_that_fits(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"toy: .*bar"):
        toy(**wrong)


def test_blocks_alternate_who_comes_first() -> None:
    order: list[str] = []

    def watch(call: Callable[[], Any], number: int) -> float:
        order.append(call.__name__)
        return 1.0

    compare(toy(), paper="p", rounds=4, clock=watch)
    blocks = order[4:]  # behind the warm-up
    assert [blocks[i : i + 2] for i in range(0, 8, 2)] == [["peer", "ours"], ["ours", "peer"]] * 2


@pytest.mark.parametrize(("seconds", "rounds"), [(0.5, 15), (1.0, 11), (3.0, 5), (60.0, 5)])
def test_calls_of_seconds_take_fewer_rounds(seconds: float, rounds: int) -> None:
    result = compare(toy(), paper="p", rounds=15, clock=lambda call, number: seconds)
    assert (len(result.ours_seconds), len(result.peer_seconds)) == (rounds, rounds)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")
def test_the_peak_counts_what_is_freed_again() -> None:
    peak = peak_bytes(lambda: torch.ones(2**24).sum())
    assert peak is not None
    assert 0.9 * 2**26 < peak < 1.3 * 2**26  # the system counts pages in lots


def test_what_the_reference_is() -> None:
    assert toy().kind == "same work"
    assert toy(work="less").kind == "less work"
    assert toy(bar=None, peer=None, bar_seconds=1.0, flops=2.0).kind == "floor"
    assert toy(bar=None, peer=None, bar_seconds=1.0).kind == "time"


def a_run(*results: Result, first: dict[str, First] | None = None) -> Run:
    growth = Grown("groco", "sort", "values n", 1, 1, (10, 100, 1000), (1e-3, 1e-2, 0.1), (2**21, 2**23, 2**27), "time")
    return Run.of_today({"processor": "abacus"}, list(results), [growth], first or {})


def test_the_page_tells_all_of_a_run_and_is_made_of_its_numbers(tmp_path: Path) -> None:
    case = {"paper": "groco", "name": "toy"}
    same = replace(measured(toy(), [1e-3] * 3, [4e-3] * 3, floor=2.5e-4), **case, others=0.0)
    less = replace(measured(toy(work="less", bar=2.0), [3.0] * 3, [1.0] * 3), paper="anyloss", name="dear", others=0.5)
    write(a_run(same, less, first={"groco: toy": First("2020-01-02", 0.5, None)}), tmp_path)
    written = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert (
        "| toy | same work | 1 ms | 4 ms (them 1.0) | 0.25 (0.25–0.25) | 0.5 | 0.5 × | n/a / n/a | 25% | yes |"
        in written
    )
    assert "| dear † | less work |" in written
    assert "| **all** | 2 | 1 | 0.25 (0.25–0.25) | 0.25: groco, toy | 1 of 2 |" in written
    assert "| processor | abacus |" in written
    assert "| groco: sort | values n | 10, 100, 1,000 | 1.00 (1) | 0.90 (1) | 100 ms, 128 MiB | time | yes |" in written
    again = Run.read(tmp_path / "benchmarks.json")
    assert page(again) == written
    assert again.results == [same, less]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".svg"}
    assert [duration(s) for s in (2.0, 0.0123456, 4.56e-6, 5e-9)] == ["2 s", "12.3 ms", "4.56 µs", "5 ns"]
    assert size(3 * 2**19) == "1.5 MiB"


def test_the_mean_is_of_those_that_do_the_same_work() -> None:
    random = np.random.default_rng(0)
    ours_s, peer_s = np.exp(random.normal(size=(2, 41)) / 10) / 1000
    pair = [measured(toy(), list(ours_s), list(peer_s * by)) for by in (1.0, 4.0)]
    mean = geometric_mean([*pair, measured(toy(work="less"), [9.0], [1.0])])
    assert mean is not None
    assert mean.median == pytest.approx(0.5 * np.median(ours_s / peer_s), rel=1e-12)
    # the deviation of a median of n normal draws is sqrt(pi / 2n); here of two independent ones, halved
    deviation = np.sqrt(np.pi / 2 / 41) * np.hypot(0.1, 0.1) / np.sqrt(2)
    assert np.log(mean.high / mean.low) == pytest.approx(2 * 1.645 * deviation, rel=0.4)
    assert geometric_mean([measured(toy(work="less"), [9.0], [1.0])]) is None


def test_exponents_and_their_promise() -> None:
    sizes = (1, 10, 100, 1000)
    assert Grown("p", "g", "n", 2, 0, sizes, tuple(1e-3 * n**2 for n in sizes), (7,) * 4, "time").held
    square = Grown("p", "g", "n", 1, 1, sizes, (1.0,) * 4, tuple(2**20 * n**2 for n in sizes), "memory")
    assert (square.time, square.memory) == (pytest.approx(0, abs=1e-9), pytest.approx(2))
    assert not square.held


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells what others do")
def test_the_meter_leaves_out_its_own_process() -> None:
    start = time.monotonic()
    with Meter() as meter:
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
    wall = time.monotonic() - start
    assert meter.others is not None
    assert meter.others <= (os.cpu_count() or 1) - 0.5 / wall + 0.1


def test_the_exit_status_tells_of_a_missed_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import __main__ as command

    for bar, status in ((0.6, 0), (0.4, 1)):
        result = replace(measured(toy(bar=bar), [1.0] * 3, [2.0] * 3), paper="groco", others=0.0)
        monkeypatch.setattr(command, "papers", lambda: ["groco"])
        monkeypatch.setattr(command, "cases", lambda slug: [toy()])
        monkeypatch.setattr(command, "growths", lambda slug: [])
        monkeypatch.setattr(command, "measure", lambda slug, index, rounds, result=result: result)
        monkeypatch.setattr(command, "machine", lambda: {"processor": "abacus"})
        ran = CliRunner().invoke(command.main, ["--write", str(tmp_path)])
        assert ran.exit_code == status, ran.output
        assert "toy" in (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
        assert json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))["results"][0]["bar"] == bar


def test_what_was_measured_beside_other_work_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import __main__ as command

    loads = iter([0.7, 0.6, 0.05])
    monkeypatch.setattr(command, "papers", lambda: ["groco"])
    monkeypatch.setattr(command, "cases", lambda slug: [toy()])
    monkeypatch.setattr(command, "growths", lambda slug: [])
    result = measured(toy(), [1.0] * 3, [2.0] * 3)
    monkeypatch.setattr(command, "measure", lambda slug, index, rounds: replace(result, others=next(loads)))
    ran = CliRunner().invoke(command.main)
    assert ran.output.count("once more") == 2
    assert "measured beside other work" not in ran.output


def test_a_case_is_measured_in_processes_of_its_own() -> None:
    found = measure("anyloss", 0, rounds=2)
    assert (found.paper, found.name, len(found.peer_seconds)) == ("anyloss", cases("anyloss")[0].name, 2)
    assert found.floor is not None
    if Path("/proc/self/clear_refs").exists():
        assert found.ours_peak is not None
        assert found.peer_peak is not None
        assert min(found.ours_peak, found.peer_peak) > 2**20  # a million logits have gradients


def test_every_paper_with_parts_is_benchmarked() -> None:
    with_parts = {entry.slug for entry in catalog.papers() if entry.has_parts}
    assert with_parts <= set(papers())  # a paper whose parts in core came first is measured before it has its own


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 3))
def test_longest_first_is_near_the_best_there_is(seconds: list[int], cores: int) -> None:
    loads = (
        [sum(s for s, c in zip(seconds, to, strict=True) if c == k) for k in range(cores)]
        for to in (product(range(cores), repeat=len(seconds)))
    )
    best = min(map(max, loads))
    assert (
        best <= finish(sorted(seconds, reverse=True), cores) <= (4 / 3 - 1 / (3 * cores)) * best + 1e-9
    )  # Graham 1969
    assert finish(seconds, cores) <= (2 - 1 / cores) * best + 1e-9  # Graham 1966, in any order
    assert finish(seconds, 1) == sum(seconds)


def test_what_was_not_measured_repeats_what_was() -> None:
    times = {"a": {"x": [1.0, 2.0], "y": [3.0]}, "b": {"z": [5.0]}}
    found = [round(second - 2.0) for second in units(times)]
    assert len(found) == 55 * 10 * 3
    assert found[:30] == [1, 2] * 5 + [3] * 10 + [1, 2] * 5
    assert found[30:60] == [5] * 30
    assert found[60:90] == found[:30]


def test_a_table_is_put_where_the_page_wants_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- one -->\nold\n<!-- /one -->\nb\n", encoding="utf-8")
    for _ in range(2):
        put("one", ["| x |", "|---|"], page)
        assert page.read_text(encoding="utf-8") == "# A\n<!-- one -->\n| x |\n|---|\n<!-- /one -->\nb\n"


def test_no_two_cases_share_a_name() -> None:
    for slug in papers():
        names = [case.name for case in cases(slug)]
        assert len(set(names)) == len(names), slug


ALL = [pytest.param(case, id=f"{slug}: {case.name}") for slug in papers() for case in cases(slug)]


@pytest.mark.parametrize("case", ALL)
def test_the_two_sides_agree(case: Case) -> None:
    calls = case.setup()
    assert set(calls) == {"ours", "agree"} | ({"peer"} if case.peer is not None else set())
    calls["agree"]()
