"""The runner with toy claims: paired, seeded, resumable, and robust to units that raise or die."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.lab.toys import Config, Toy

from throughline.errors import ThroughlineError
from throughline.lab import judge
from throughline.lab.results import Results, summary
from throughline.lab.runner import Event, SetAside, execute, open_run, pending, plan
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Failed, Finished, Progress

ARMS = ("plain", "shifted")


def start(
    root: Path, config: Config, *, seeds: tuple[int, ...] = (0, 1), arms: tuple[str, ...] = ARMS, **options: Any
) -> tuple[Run, bool]:
    command = f"throughline run groco --seeds {','.join(map(str, seeds))}"
    manifest = plan(Toy(), "laptop", config, arms, seeds, threads=1, command=command)
    return open_run(root, manifest, **options)


def run(root: Path, config: Config, *, jobs: int = 2, **options: Any) -> tuple[Results, list[Event]]:
    events: list[Event] = []
    folder, _ = start(root, config, **options)
    execute(Toy(), folder, jobs=jobs, on_event=events.append)
    return Results(Toy(), folder, config), events


def metrics(results: Results) -> dict[Unit, dict[str, float]]:
    return {unit: record["metrics"] for unit, record in results.records.items()}


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
    _, shifted, plain = results.paired("mean", "shifted", "plain")
    np.testing.assert_allclose(shifted - plain, 0.5, rtol=1e-6)  # the same draw in both arms
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


def test_a_unit_that_is_killed_is_reported_too(tmp_path: Path) -> None:
    results, events = run(tmp_path, Config(note="die"))
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert "exit code -9" in failure.reason
    assert len(results.records) == 3


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


def test_a_finished_run_is_not_resumed_unless_asked(tmp_path: Path) -> None:
    first = stored(tmp_path, Config(), seeds=(0,))
    assert start(tmp_path, Config(), seeds=(0,))[0].folder != first.folder
    again, resumed = start(tmp_path, Config(), seeds=(0, 3), resume=True)
    assert resumed
    assert again.manifest["seeds"] == [0, 3]
    assert again.manifest["command"] == "throughline run groco --seeds 0,3"


def test_the_command_of_a_widened_run_repeats_all_of_it(tmp_path: Path) -> None:
    start(tmp_path, Config(), seeds=(0, 1))
    narrower, _ = start(tmp_path, Config(), seeds=(1,))
    assert narrower.manifest["command"] == "throughline run groco --seeds 0,1"
    other, _ = start(tmp_path, Config(), seeds=(5,))
    assert other.manifest["seeds"] == [0, 1, 5]
    assert other.manifest["command"] == f"throughline run --like {other.folder}/run.json"


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
        "from pathlib import Path; from tests.lab.test_runner import run, Config\n"
        f"if __name__ == '__main__': run(Path({str(tmp_path)!r}), Config(note='slow'), jobs=2)"
    )
    (tmp_path / "go.py").write_text(script)
    here = {**os.environ, "PYTHONPATH": os.getcwd()}
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
            execute(Toy(), folder, jobs=1)


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
