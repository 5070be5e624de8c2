"""The runner with toy claims: paired, seeded, resumable, and robust to units that raise or die."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections import Counter
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.lab.runs import ARMS, metrics, run, start
from tests.lab.toys import Config, Toy

from throughline.data import Source
from throughline.errors import ThroughlineError
from throughline.lab import Log, judge, runner
from throughline.lab import unit as unit_module
from throughline.lab.engines.local import Local
from throughline.lab.results import Results, summary
from throughline.lab.runner import Event, SetAside, execute, pending, plan
from throughline.lab.store import Run, Unit, age, code_version, find_run, unit_key, write_atomically
from throughline.lab.unit import Failed, Finished, Progress, run_unit


def unit_here(monkeypatch: pytest.MonkeyPatch, folder: Run, unit: Unit) -> list[Progress | Finished | Failed]:
    """Run one unit in this process, and return what it says to its parent."""
    monkeypatch.setattr("throughline.lab.unit._speak_into", lambda path: None)
    monkeypatch.setattr("throughline.lab.unit._seed", lambda seed, threads: None)
    ours, theirs = Pipe(duplex=False)
    run_unit(Toy(), folder.folder, unit, 1, theirs)
    theirs.close()
    said = []
    with contextlib.suppress(EOFError):
        while True:
            said.append(ours.recv())
    return said


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Event]]:
    return run(tmp_path_factory.mktemp("finished"), Config())


def test_a_run_gives_metrics_curves_arrays_and_measurements(finished: tuple[Results, list[Event]]) -> None:
    results, events = finished
    assert set(results.records) == {Unit(arm, seed) for arm in ARMS for seed in (0, 1)}
    assert results.metrics == ("mean", "spread", "drawn", "threads", "deterministic")
    steps, values = results.curve("loss", "plain")[0]
    assert steps.tolist() == [0, 1, 2]
    assert values[0] == pytest.approx(2 * values[1])
    assert results.kept("plain", 1)["x"].shape == (50,)
    assert all(seconds > 0 for seconds in results.values("seconds", "plain").values())
    assert all(peak > 50 for peak in results.values("peak_mb", "plain").values())
    assert Counter(type(event) for event in events)[Finished] == 4
    points = [point for event in events if isinstance(event, Progress) for point in event.points]
    assert len(points) == 4 * 3  # every curve point reaches the parent, for the sinks


def test_arms_are_paired_and_the_process_is_seeded(finished: tuple[Results, list[Event]]) -> None:
    results, _ = finished
    _, shifted, plain = results.paired("spread", "shifted", "plain")
    np.testing.assert_array_equal(shifted, plain)  # the same draw in both arms
    assert results.values("drawn", "plain") == results.values("drawn", "shifted")
    assert len(set(results.values("drawn", "plain").values())) == 2
    assert set(results.values("threads", "plain").values()) == {1.0}
    assert set(results.values("deterministic", "plain").values()) == {1.0}


def test_jobs_and_order_do_not_change_the_numbers(finished: tuple[Results, list[Event]], tmp_path: Path) -> None:
    other, _ = run(tmp_path, Config(), jobs=1, seeds=(1, 0), arms=("shifted", "plain"))
    assert metrics(other) == metrics(finished[0])
    assert other.run.manifest["key"] == finished[0].run.manifest["key"]


def test_a_unit_that_raises_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    results, events = run(tmp_path, Config(note="raise"))
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.reason == "ValueError: no luck on two lines"
    assert "raise ValueError" in failure.file.read_text()
    assert len(results.records) == 3
    judgement = judge(results)
    assert (judgement.verdict, judgement.exit_code) == ("incomplete", 3)
    assert "plain-1" in judgement.why


def stored(root: Path, config: Config, **options: Any) -> Run:
    """A run whose units have results, without computing any."""
    folder, _ = start(root, config, **options)
    for unit in folder.units:
        record = {"metrics": {"mean": float(unit.seed)}, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}
        folder.write(unit, record, {"x": np.arange(3)})
    return folder


def test_resuming_computes_only_what_is_missing(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    config = Config(marks=str(marks))
    first = stored(tmp_path / "runs", config)
    first.file(Unit("shifted", 0), "json").unlink()
    second, _ = run(tmp_path / "runs", config)
    assert second.run.folder == first.folder
    assert [path.name.rsplit("-", 1)[0] for path in marks.iterdir()] == ["shifted-0"]
    assert second.values("mean", "plain") == {0: 0.0, 1: 1.0}  # what was stored, not what the toy would compute


def asked(folder: Run) -> list[str]:
    return [unit.name for unit in folder.units]


def test_a_finished_run_is_not_resumed_unless_asked(tmp_path: Path) -> None:
    first = stored(tmp_path, Config(), seeds=(0,))
    first.seen("held")
    second = stored(tmp_path, Config(), seeds=(0,))
    assert second.folder != first.folder
    again, resumed = start(tmp_path, Config(), seeds=(0, 3), resume=True)
    assert resumed
    assert again.folder == second.folder  # the newest
    assert again.manifest["seeds"] == [0, 3]
    assert again.manifest["command"] == "throughline run groco --seeds 0,3"


def test_a_request_is_for_what_it_says_and_no_more(tmp_path: Path) -> None:
    """Fewer or other seeds or arms of a run that broke off: just these are computed and judged, and nothing is lost."""
    first, _ = start(tmp_path, Config(), seeds=(0, 1))
    for seeds, arms in (((1,), ARMS), ((5, 1), ARMS), ((0,), ("plain",))):
        other, resumed = start(tmp_path, Config(), seeds=seeds, arms=arms)
        assert (other.folder, resumed) == (first.folder, True)
        assert asked(other) == [f"{arm}-{seed}" for seed in seeds for arm in arms]
        assert other.manifest["command"] == f"throughline run groco --seeds {','.join(map(str, seeds))}"
        assert Results(Toy(), other, Config()).seeds == tuple(sorted(seeds))
    for unit in other.units:  # the last request is finished and reported; of the others something is left
        other.write(unit, {"metrics": {"mean": 1.0}, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})
    other.seen("incomplete")
    back, resumed = start(tmp_path, Config(), seeds=(0, 1))
    assert (back.folder, resumed) == (first.folder, True)
    assert [unit.name for unit in back.unfinished()] == ["shifted-0", "plain-1", "shifted-1"]


def test_a_unit_that_failed_once_spoils_no_request_without_it(tmp_path: Path) -> None:
    run(tmp_path, Config(note="raise"), seeds=(0, 1))  # plain-1 fails
    results, _ = run(tmp_path, Config(note="raise"), seeds=(0, 2, 3), resume=True)
    assert results.missing == results.failed == ()
    assert judge(results).verdict == "held"
    whole, _ = run(tmp_path, Config(note="raise"), seeds=(0, 1), resume=True)
    assert judge(whole).why == "one unit has no result (plain-1)"


def test_a_run_without_its_report_only_writes_that(tmp_path: Path) -> None:
    folder = stored(tmp_path, Config())
    again, resumed = start(tmp_path, Config())
    assert (again.folder, resumed, again.unfinished()) == (folder.folder, True, ())
    again.seen("held")
    assert start(tmp_path, Config())[0].folder != folder.folder


def test_the_next_command_goes_on_from_a_fresh_run(tmp_path: Path) -> None:
    older, _ = start(tmp_path, Config())  # left unfinished
    fresh, _ = start(tmp_path, Config(), resume=False)
    assert start(tmp_path, Config())[0].folder == fresh.folder
    for unit in fresh.units:
        fresh.write(unit, {"metrics": {"mean": 1.0}, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})
    fresh.seen("held")
    assert start(tmp_path, Config())[0].folder not in (older.folder, fresh.folder)


def test_runs_of_one_second_are_ordered_by_their_count(tmp_path: Path) -> None:
    names = [
        "20260301-101500-3fa2c1",
        *(f"20260301-101500-3fa2c1-{k}" for k in (1, 2, 9, 10)),
        "20260301-101501-0000aa",
    ]
    assert sorted((tmp_path / name for name in reversed(names)), key=age) == [tmp_path / name for name in names]


def test_looks_at_some_of_the_seeds_count(tmp_path: Path) -> None:
    """What was seen of other seeds, or of just these, is no look; nor is a report without a verdict."""
    folder = stored(tmp_path, Config(), seeds=(0, 1, 2))
    folder.seen("not shown")
    folder.seen("not shown")
    assert Results(Toy(), folder, Config()).looks == 0
    for seeds, looks in (((0, 1, 2, 3), 1), ((0, 1), 1), ((5, 6), 0), ((2, 7), 1)):
        wider, _ = start(tmp_path, Config(), seeds=seeds, resume=True)
        assert Results(Toy(), wider, Config()).looks == looks
    wider.seen("incomplete")
    both, _ = start(tmp_path, Config(), seeds=(0, 1, 2, 3, 7), resume=True)
    assert Results(Toy(), both, Config()).looks == 1
    both.seen("held")
    again, _ = start(tmp_path, Config(), seeds=(0, 1, 2, 3, 7, 8), resume=True)
    assert Results(Toy(), again, Config()).looks == 2
    for unit in again.unfinished():
        values = {"mean": unit.seed + (unit.arm == "shifted") * (1 + unit.seed % 2 / 64), "spread": 1.0}
        again.write(unit, {"metrics": values, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})
    assert "its seeds were chosen after a look at some of them, so 99.75% takes the place of 95%" in (
        judge(Results(Toy(), again, Config())).why
    )


def test_a_run_goes_on_where_its_data_lies_now(tmp_path: Path) -> None:
    def config(path: Path) -> Config:
        return Config(data=Source.of(path, "label"))

    (tmp_path / "d.csv").write_text("a,b,label\n1,2,0\n2,3,1\n")
    first, _ = start(tmp_path, config(tmp_path / "d.csv"))
    moved = (tmp_path / "d.csv").rename(tmp_path / "e.csv")
    again, resumed = start(tmp_path, config(moved))
    assert (again.folder, resumed) == (first.folder, True)
    assert Run(again.folder).manifest["config"]["data"]["path"] == str(moved)


def test_data_that_changes_during_a_run_fails_its_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, during or after: no result of one content is stored under the digest of another."""
    path = tmp_path / "d.csv"
    path.write_text("a,b,label\n1,2,0\n2,3,1\n")
    folder, _ = start(tmp_path, Config(data=Source.of(path, "label")))
    assert isinstance(unit_here(monkeypatch, folder, folder.units[0])[-1], Finished)
    compute = Toy.run

    def overwriting(self: Toy, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        path.write_text("a,b,label\n9,9,0\n2,3,1\n")
        return compute(self, arm, config, seed, log)

    monkeypatch.setattr(Toy, "run", overwriting)
    said = [unit_here(monkeypatch, folder, unit)[-1] for unit in folder.units[1:3]]
    path.unlink()
    said.append(unit_here(monkeypatch, folder, folder.units[3])[-1])
    for word, wanted in zip(said, ["its content is not what", "its content is not what", "no such file"], strict=True):
        assert isinstance(word, Failed)
        assert wanted in word.reason
    assert [unit.name for unit in folder.units if folder.record(unit)] == ["plain-0"]


def test_another_configuration_is_another_run(tmp_path: Path) -> None:
    folder, _ = start(tmp_path, Config())
    assert start(tmp_path, Config())[0].folder == folder.folder  # unfinished, the same key
    assert start(tmp_path, Config(shift=0.25))[0].folder != folder.folder
    assert start(tmp_path, Config(), resume=False)[0].folder != folder.folder
    with pytest.raises(ThroughlineError, match="nothing to resume"):
        start(tmp_path, Config(shift=0.125), resume=True)


@pytest.mark.parametrize("damage", ["truncated", "altered", "arrays", "empty", "not an object"])
def test_a_corrupted_result_is_set_aside_and_computed_again(tmp_path: Path, damage: str) -> None:
    folder = stored(tmp_path, Config(), seeds=(0,))
    path = folder.file(Unit("plain", 0), "json")
    good = path.read_text()
    if damage == "arrays":
        folder.file(Unit("plain", 0), "npz").write_bytes(b"PK")
    else:
        broken = {"truncated": good[:40], "altered": good.replace('"mean": 0', '"mean": 1'), "empty": ""}
        path.write_text(broken.get(damage, "[1, 2]"))
    events: list[Event] = []
    assert list(pending(folder, events.append)) == [Unit("plain", 0)]
    aside, finished = events
    assert isinstance(aside, SetAside)
    assert aside.file.exists()
    assert isinstance(finished, Finished)
    assert list(pending(folder, events.append)) == [Unit("plain", 0)]  # it stays to be computed


def test_killing_the_parent_loses_no_finished_unit(tmp_path: Path) -> None:
    """kill -9 in the middle: what was stored stays, the children end, and the rest is computed later."""
    script = (
        "from pathlib import Path; from tests.lab.runs import run; from tests.lab.toys import Config\n"
        f"if __name__ == '__main__': run(Path({str(tmp_path)!r}), Config(note='slow'), jobs=2)"
    )
    (tmp_path / "go.py").write_text(script)
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, str(tmp_path / "go.py")], env=here, start_new_session=True)
    deadline = time.monotonic() + 90
    while len(list(tmp_path.glob("groco/*/units/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (folder,) = tmp_path.glob("groco/*")
    assert sorted(path.name for path in folder.glob("units/*.json")) == ["plain-0.json", "shifted-0.json"]
    again = Run(folder)
    assert [unit.name for unit in again.unfinished()] == ["plain-1", "shifted-1"]
    assert all(again.record(unit) for unit in again.units[:2])
    for _ in range(100):  # the orphans notice that their parent is gone
        with subprocess.Popen(["pgrep", "-g", str(process.pid)], stdout=subprocess.PIPE) as group:
            left = group.communicate()[0]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def test_two_processes_do_not_compute_one_run(tmp_path: Path) -> None:
    from filelock import FileLock

    folder, _ = start(tmp_path, Config())
    with FileLock(folder.folder / ".lock"):
        assert start(tmp_path, Config())[0].folder != folder.folder
        with pytest.raises(ThroughlineError, match="is being computed by another process"):
            execute(Toy(), folder, Local(1))


def test_the_summary_is_plain_json(finished: tuple[Results, list[Event]]) -> None:
    results, _ = finished
    text = json.dumps(summary(results, judge(results)), allow_nan=False)
    assert json.loads(text)["metrics"]["mean"]["plain"] == list(results.values("mean", "plain").values())


def test_the_key_ignores_where_the_data_lies() -> None:
    from throughline.data import Source

    def key(path: str, digest: str) -> str:
        config = Config(data=Source(path, "label", None, digest))
        return str(plan(Toy(), "laptop", config, ARMS, (0,), threads=1, command="")["key"])

    assert key("a.csv", "1") == key("elsewhere/a.csv", "1")
    assert key("a.csv", "1") != key("a.csv", "2")


def test_the_key_holds_threads_scale_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(scale: str = "laptop", threads: int = 1, command: str = "", seeds: tuple[int, ...] = (0,)) -> str:
        return str(plan(Toy(), scale, Config(), ARMS, seeds, threads=threads, command=command)["key"])

    same = key()
    assert key(command="throughline run", seeds=(0, 1)) == same  # a run may be widened
    another = type("Another", (Toy,), {"paper": "anyloss"})
    other = plan(another(), "laptop", Config(), ARMS, (0,), threads=1, command="")["key"]
    assert len({same, other, key(threads=2), key(scale="smoke")}) == 4
    monkeypatch.setattr(runner, "code_version", lambda: {"source": "another"})
    assert key() != same


def test_a_result_counts_for_its_own_arm_and_seed_alone(tmp_path: Path) -> None:
    folder = stored(tmp_path, Config())
    keys = {unit_key(folder.manifest, unit) for unit in folder.units}
    assert len(keys) == len(folder.units)
    for other in (Unit("plain", 0), Unit("shifted", 1)):
        for suffix in ("json", "npz"):
            folder.file(Unit("plain", 1), suffix).write_bytes(folder.file(other, suffix).read_bytes())
        with pytest.raises(ValueError, match="was altered"):
            folder.record(Unit("plain", 1))


def test_the_newest_run_goes_on(tmp_path: Path) -> None:
    older, _ = start(tmp_path, Config())
    newer, _ = start(tmp_path, Config(), resume=False)
    assert newer.folder != older.folder
    assert start(tmp_path, Config())[0].folder == newer.folder
    assert find_run(tmp_path, "groco").folder == newer.folder
    assert find_run(tmp_path, older.id).folder == newer.folder  # the beginning of both
    assert find_run(tmp_path, str(older.folder)).folder == older.folder


def test_a_run_that_cannot_be_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = start(tmp_path, Config())

    def refused(path: Path, text: str) -> None:
        if first.folder in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        write_atomically(path, text)

    monkeypatch.setattr("throughline.lab.store.write_atomically", refused)
    warned: list[str] = []
    assert start(tmp_path, Config(), warn=warned.append)[0].folder != first.folder
    assert warned == [f"cannot go on in {first.folder}: Permission denied; ignored"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": None}, "arms: field required"),
        ({"paper": 3}, "paper: input should be a valid string"),
        ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0"),
        ({"seeds": [2**32]}, "seeds.0: input should be less than or equal to 4294967295"),
        ({"seeds": []}, "seeds: list should have at least 1 item"),
        ({"threads": 0}, "threads: input should be greater than 0"),
        ({"config": [1]}, "config: input should be a valid dictionary"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    folder, _ = start(tmp_path, Config())
    manifest = {**folder.manifest, **change}
    path = folder.folder / "run.json"
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    with pytest.raises(ThroughlineError, match="is not a stored result") as caught:
        Run(folder.folder)
    assert f"run.json is not a stored result ({says}" in str(caught.value)
    assert "\n" not in str(caught.value)
    warned: list[str] = []
    assert start(tmp_path, Config(), warn=warned.append)[0].folder != folder.folder
    assert warned == [f"{caught.value}; ignored"]


def test_a_claim_may_change_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, _ = start(Path("runs"), Config(note="away"))
    said = unit_here(monkeypatch, folder, Unit("plain", 0))
    assert isinstance(said[-1], Finished)
    assert Path.cwd() == Path("/")
    assert (tmp_path / "runs" / "groco" / folder.id / "units" / "plain-0.json").is_file()
    assert folder.record(Unit("plain", 0)) is not None
    assert Run(folder.folder).folder.is_absolute()


def test_a_name_that_is_not_utf_8_reaches_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = start(tmp_path, Config(note="stray"))
    (failure,) = unit_here(monkeypatch, folder, Unit("plain", 0))
    assert isinstance(failure, Failed)
    assert failure.reason == "caf\udce9.png: cannot be read"
    assert "caf\\udce9.png: cannot be read" in failure.file.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_fails_the_unit_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = start(tmp_path, Config())
    (folder.folder / "units").rmdir()
    (folder.folder / "units").touch()
    ours, theirs = Pipe(duplex=False)
    run_unit(Toy(), folder.folder, Unit("plain", 0), 1, theirs)
    failure = ours.recv()
    assert isinstance(failure, Failed)
    assert failure.reason.startswith("NotADirectoryError: ")
    assert failure.reason.endswith("(and its traceback could not be written: Not a directory)")


def test_logs_of_units_are_not_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[int] = []
    monkeypatch.setattr("throughline.lab.unit.os.dup2", lambda stream, standard: turned.append(standard))
    monkeypatch.setattr("throughline.lab.unit.faulthandler.enable", lambda: None)
    unit_module._speak_into(tmp_path / "plain-0.log")
    assert turned == [1, 2]
    assert not (tmp_path / "plain-0.log").stat().st_mode & 0o111


def test_units_need_no_module_that_windows_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert "run_unit" in runpy.run_path(str(unit_module.__file__))


def test_the_version_of_the_code_is_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source() -> str:
        return str(code_version.__wrapped__()["source"])

    monkeypatch.setattr("throughline.__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "a.py").write_text("1")
    found = [source()]
    (tmp_path / "a.py").write_text("2")
    found.append(source())
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    found.append(source())
    assert len(set(found)) == 3
    (tmp_path / "notes.txt").write_text("not code")
    assert source() == found[-1]
    assert code_version.__wrapped__()["torch"] == torch.__version__


def test_a_unit_that_succeeds_at_last_has_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = start(tmp_path, Config())
    one = Unit("plain", 0)
    folder.file(one, "txt").write_text("Traceback of an earlier attempt")
    assert Results(Toy(), folder, Config()).failed == (one,)
    *progress, finished = unit_here(monkeypatch, folder, one)
    assert not folder.file(one, "txt").exists()
    assert isinstance(finished, Finished)
    record = folder.record(one)
    assert record is not None
    assert record["metrics"] == finished.metrics
    assert record["measured"]["seconds"] == finished.seconds > 0
    assert (record["arm"], record["seed"], record["threads"]) == ("plain", 0, 1)
    assert isinstance(progress[0], Progress)
    assert progress[0].done == pytest.approx(1 / 3)  # the first of three steps is done
    assert isinstance(progress[-1], Progress)
    assert progress[-1].done == 1.0


def judged(folder: Run) -> tuple[str, int]:
    judgement = judge(Results(Toy(), folder, Config()))
    return judgement.verdict, judgement.exit_code


@pytest.mark.parametrize(
    ("gains", "spread", "verdict"),
    [
        ((1.0, 1.1, 0.9), 1.0, ("held", 0)),
        ((1.0, 1.1, 0.9), 11.0, ("refuted", 1)),
        ((1.0, -1.0, 0.5), 1.0, ("not shown", 1)),
        ((1.0, -1.0, 0.5), 11.0, ("refuted", 1)),  # which outranks what is not shown
    ],
)
def test_the_verdict_is_that_of_the_weakest_check(
    tmp_path: Path, gains: tuple[float, ...], spread: float, verdict: tuple[str, int]
) -> None:
    folder, _ = start(tmp_path, Config(), seeds=(0, 1, 2))
    for unit in folder.units:
        values = {"mean": gains[unit.seed] * (unit.arm == "shifted"), "spread": spread}
        folder.write(unit, {"metrics": values, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})
    assert judged(folder) == verdict
    folder.file(Unit("plain", 0), "json").unlink()
    assert judged(folder) == ("incomplete", 3)


def test_a_context_arm_that_fails_is_said_beside_the_verdict(tmp_path: Path) -> None:
    folder, _ = start(tmp_path, Config(), seeds=(0, 1, 2), arms=(*ARMS, "wild"))
    for unit in folder.units:
        if unit != Unit("wild", 1):
            values = {"mean": (unit.arm == "shifted") * (1 + unit.seed / 8), "spread": 1.0}
            folder.write(unit, {"metrics": values, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": {}}, {})
    judgement = judge(Results(Toy(), folder, Config()))
    assert (judgement.verdict, judgement.exit_code) == ("held", 0)
    assert judgement.why == "every one of 2 checks held; beside it, no result of wild-1"


def test_what_the_lab_measures_is_kept_apart(tmp_path: Path) -> None:
    folder, _ = start(tmp_path, Config(), seeds=(3, 1))
    for unit in folder.units:
        measured = {"seconds": 2.0 + unit.seed, "peak_mb": 3.0}
        folder.write(unit, {"metrics": {"seconds": 9.0, "mean": 1.0}, "measured": measured, "curves": {}}, {})
    results = Results(Toy(), folder, Config())
    assert results.values("seconds", "plain") == {1: 3.0, 3: 5.0}
    assert list(results.values("mean", "plain")) == [1, 3]
    seeds, _, _ = results.paired("mean", "plain", "shifted")
    assert seeds == (1, 3)
