"""The Ray engine on a real cluster of two nodes: the local numbers, and nothing lost with a node or with the driver."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.lab.runs import metrics, run, start
from tests.lab.toys import Config, OnDevice, Seeing, Toy

from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab.engines import ray as ray_engine
from throughline.lab.engines.ray import Cluster, connect
from throughline.lab.runner import Event, execute
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Failed, Finished, Lost, Progress, Started

ray: Any = pytest.importorskip("ray", reason="the extra cluster is not installed")
cluster_utils: Any = pytest.importorskip("ray.cluster_utils")


SENT = rb'"\S+/tests/lab/toys.py"'  # the toy's sources are sent along with it, and lie elsewhere


@dataclass
class Nodes:
    """A cluster of two nodes with a core each, whose caches are not the driver's."""

    cluster: Any
    second: Any
    cache: Path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"include_dashboard": False, "num_gpus": 1}
        )
        second = cluster.add_node()
        patch.delenv("XDG_CACHE_HOME")
        yield Nodes(cluster, second, cache)
        cluster.shutdown()


@pytest.fixture(scope="module")
def engine(nodes: Nodes) -> Iterator[Cluster]:
    said: list[str] = []
    with connect(nodes.cluster.address, say=said.append) as found:
        assert said == ["on a Ray cluster of 2 nodes with 2 cores"]
        yield found


def stored(folder: Run, unit: Unit) -> dict[str, Any]:
    """A stored result, but for what no two runs share."""
    record = json.loads(folder.file(unit, "json").read_bytes())
    return {name: value for name, value in record.items() if name not in ("started", "measured", "commit", "digest")}


def test_the_results_are_those_of_this_machine(engine: Cluster, tmp_path: Path) -> None:
    """Byte for byte, times excepted; and a unit that raises is told in the same words."""
    config = Config(note="raise")
    there, events = run(tmp_path / "there", config, engine=engine, arms=("plain",))
    here, _ = run(tmp_path / "here", config, arms=("plain",))
    assert len(there.records) == 1
    for unit in there.records:
        assert list(there.run.record(unit) or ()) == list(here.run.record(unit) or ())
        assert stored(there.run, unit) == stored(here.run, unit)
    for unit in there.run.units:
        for suffix in ("npz", "txt", "log"):
            files = [results.run.file(unit, suffix) for results in (there, here)]
            found = [
                file.exists() and re.sub(rb'"\S+/tests/lab/toys.py"', b"toys.py", file.read_bytes()) for file in files
            ]
            assert found[0] == found[1]  # the toy's sources were sent along, and lie elsewhere
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.file == there.run.file(Unit("plain", 1), "txt")
    assert failure.reason == "ValueError: no luck on two lines"
    assert "raise ValueError" in failure.file.read_text()
    assert Counter(type(event) for event in events if not isinstance(event, Progress)) == {
        Started: 2,
        Finished: 1,
        Failed: 1,
    }
    points = [point for event in events if isinstance(event, Progress) for point in event.points]
    assert len(points) >= 3  # every curve point of a unit that ends well reaches the driver, for the sinks


def test_your_own_data_reaches_workers_without_a_shared_disk(engine: Cluster, nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b,label\n" + "".join(f"{i},{i % 7},{i % 2}\n" for i in range(40)))
    source = Source.of(path, "label")
    folder, _ = start(tmp_path / "runs", Config(data=source), seeds=(0,), arms=("shifted",))
    events: list[Event] = []
    engine.room(Config(data=source), 1)  # as a session does, before a unit starts; the file is sent as it then was
    path.rename(tmp_path / "elsewhere.csv")
    execute(Toy(), folder, engine, on_event=events.append)
    assert [type(event) for event in events if isinstance(event, Finished | Failed)] == [Finished]
    for unit in folder.units:
        record = folder.record(unit)
        assert record is not None
        assert record["config"]["data"]["path"] == str(path)
        np.testing.assert_array_equal(folder.arrays(unit)["rows"], [[i, i % 7] for i in range(40)])
    (shipped,) = nodes.cache.glob(f"throughline/shipped/{source.digest}/*")
    assert shipped.name == "mine.csv"
    assert shipped.read_bytes() == (tmp_path / "elsewhere.csv").read_bytes()


def test_too_much_data_is_refused_at_once(engine: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,label\n1,0\n2,1\n")
    monkeypatch.setattr("throughline.data.shipping.MOST_BYTES", 10)
    with pytest.raises(DataError, match="GB that are sent to the workers of a cluster; use --engine local"):
        engine.room(Config(data=Source.of(path)), 1)


def test_another_version_is_refused(engine: Cluster, tmp_path: Path) -> None:
    folder, _ = start(tmp_path, Config())
    ours = folder.manifest["versions"]
    folder.manifest["versions"] = {**ours, "torch": "1.13.1", "source": "0123456789abcdef"}
    with pytest.raises(ThroughlineError, match=r"^worker \S+ has source ") as caught:
        execute(Toy(), folder, engine)
    assert f"source {ours['source']} instead of 0123456789abcdef" in str(caught.value)
    assert f"torch {ours['torch']} instead of 1.13.1; give it the versions of this machine" in str(caught.value)
    assert folder.unfinished() == folder.units


def test_a_gpu_of_its_own(engine: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine, "say", said.append)
    assert engine.room(OnDevice(device="cpu"), 1) == 2
    assert engine.room(OnDevice(), 1) == 1
    assert engine.room(Config(), 64) == 1
    assert said == ["no node of the cluster has 64 CPU: units wait until one joins"]
    with pytest.raises(ThroughlineError, match="device=cuda:1: on a cluster a unit sees its own GPU alone"):
        engine.room(OnDevice(device="cuda:1"), 1)
    letters = ray_engine._mailbox(ray)
    ray.get(letters.put.remote(pickle.dumps((0, Progress(Unit("plain", 0), [], 0.5)))))  # of an attempt given up
    monkeypatch.setattr(ray_engine, "_mailbox", lambda _: letters)
    folder, _ = start(tmp_path, OnDevice(), seeds=(0,), arms=("plain",))
    events: list[Event] = []
    execute(Seeing(), folder, engine, on_event=events.append)
    assert isinstance(events[0], Started)
    assert (folder.record(Unit("plain", 0)) or {})["metrics"] == {"gpu": 0.0}


def test_what_fails_around_a_unit_fails_the_unit(engine: Cluster, nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,label\n1,0\n2,1\n")
    source = Source.of(path)
    cache = nodes.cache / "throughline" / "shipped"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / source.digest).touch()  # where a folder is wanted
    folder, _ = start(tmp_path / "runs", Config(data=source), seeds=(0,), arms=("plain",))
    events: list[Event] = []
    execute(Toy(), folder, engine, on_event=events.append)
    (failure,) = events
    assert isinstance(failure, Failed)
    assert failure.reason.startswith("FileExistsError: ")
    assert "place" in failure.file.read_text()
    assert "\x1b" not in failure.file.read_text()


def test_a_cluster_that_goes_away_is_said(engine: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []

    def away(refs: list[Any], **_: Any) -> None:
        handed.append(len(refs))
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(ray, "wait", away)
    folder, _ = start(tmp_path, Config(), seeds=(0,))
    folder.manifest["versions"] = {}  # what was handed over is not computed
    for jobs in (None, 1):
        monkeypatch.setattr(engine, "jobs", jobs)
        with pytest.raises(
            ThroughlineError, match=r"the cluster is gone \(reset by peer\); the same command"
        ) as caught:
            execute(Toy(), folder, engine)
        assert caught.value.exit_code == 3
    assert handed == [2, 1]
    assert engine.room(Config(), 1) == 1


def test_an_interrupt_cancels_what_runs(engine: Cluster, tmp_path: Path) -> None:
    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    folder, _ = start(tmp_path, Config(note="gate", marks=str(tmp_path)), seeds=(1,))
    with pytest.raises(KeyboardInterrupt):
        execute(Toy(), folder, engine, on_event=interrupted)
    assert until(lambda: ray.available_resources().get("CPU") == 2)


def test_a_killed_driver_loses_no_finished_unit(nodes: Nodes, tmp_path: Path) -> None:
    """kill -9 in the middle: what was stored stays, the workers stop, and the local engine goes on."""
    config = Config(note="gate", marks=str(tmp_path))
    script = tmp_path / "go.py"
    script.write_text(
        "from pathlib import Path; from tests.lab.runs import run; from tests.lab.toys import Config\n"
        "from throughline.lab.engines.ray import connect\n"
        f"with connect({nodes.cluster.address!r}, say=print) as engine:\n"
        f"    run(Path({str(tmp_path)!r}), {config!r}, engine=engine, arms=('plain',))\n"
    )
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, str(script)], env=here)
    ready = until(lambda: len(list(tmp_path.glob("groco/*/units/*.json"))) == 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert ready
    before = {path: path.read_bytes() for path in tmp_path.glob("groco/*/units/*.json")}
    (tmp_path / "open").touch()
    results, events = run(tmp_path, config, arms=("plain",))
    assert len(results.records) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert [event.unit.seed for event in events if isinstance(event, Started)] == [1]


def test_a_lost_node_loses_no_unit(
    engine: Cluster, nodes: Nodes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of the module, for it leaves one node."""
    config = Config(note="gate", marks=str(tmp_path))
    folder, _ = start(tmp_path, config, seeds=(1,))
    events: list[Event] = []

    def follow(event: Event) -> None:
        events.append(event)
        if [type(each) for each in events] == [Started, Started]:
            nodes.cluster.remove_node(nodes.second, allow_graceful=False)
        if isinstance(event, Lost):
            (tmp_path / "open").touch()

    execute(Toy(), folder, engine, on_event=follow)
    lost = [event for event in events if isinstance(event, Lost)]
    assert re.fullmatch(r"lost with its worker \(\w+\); it is run again, 1 of at most 3 times", lost[0].reason)
    assert len({event.unit for event in lost}) == 1
    assert folder.unfinished() == ()
    assert capsys.readouterr().out == ""  # which may be JSON's; Ray has words of its own for a node that dies
    local, _ = run(tmp_path / "local", config, seeds=(1,))
    assert metrics(local) == {unit: record["metrics"] for unit in folder.units if (record := folder.record(unit))}


def test_a_unit_that_is_lost_again_and_again_fails(
    engine: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_engine, "AGAIN", 1)
    monkeypatch.setattr(ray_engine, "REST", 0.5)
    folder, _ = start(tmp_path, Config(note="orphan"), seeds=(0,), arms=("plain",))
    events: list[Event] = []
    execute(Toy(), folder, engine, on_event=events.append)
    kinds = [type(event) for event in events if not isinstance(event, Progress)]
    assert kinds == [Started, Lost, Started, Failed]
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.reason == "lost with its worker (WorkerCrashedError) 2 times"
    assert failure.file.exists()


def until(condition: Any) -> bool:
    deadline = time.monotonic() + 90
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())
