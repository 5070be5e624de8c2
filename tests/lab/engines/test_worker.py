"""A unit on a worker, without a cluster around it: what it says on the way, and what comes back."""

import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tests.lab.runs import run, start
from tests.lab.toys import Config, Toy

from throughline.lab import find_claim
from throughline.lab.engines import worker
from throughline.lab.engines.worker import Sealed, answer, keep
from throughline.lab.finding import own_sources
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit
from throughline.lab.unit import Failed, Finished, Progress, Started

CLAIM = pickle.dumps(Toy())


def test_the_points_of_a_second_are_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(worker, "INTERVAL", 600.0)
    folder, _ = start(tmp_path / "runs", Config())
    unit = Unit("plain", 0)
    said: list[Started | Progress] = []
    found = answer(CLAIM, folder.manifest, unit, said.append, None, {})
    assert isinstance(found.event, Finished)
    assert said[0] == Started(unit)
    assert [[step for step, _ in event.points] for event in said[1:] if isinstance(event, Progress)] == [[0, 1, 2]]
    assert not list(tmp_path.glob("throughline-*"))
    monkeypatch.setattr(worker, "INTERVAL", 0.0)
    answer(CLAIM, folder.manifest, unit, said.append, None, {})
    assert len(said) > 2 + 2


def test_it_is_kept_as_if_it_were_computed_here(tmp_path: Path) -> None:
    here, _ = run(tmp_path / "here", Config(), seeds=(0,))
    there, _ = start(tmp_path / "there", Config(), seeds=(0,))
    for unit in there.units:
        there.file(unit, "txt").write_text("of an earlier attempt")
        keep(there, answer(CLAIM, there.manifest, unit, lambda _: None, None, {}))
        record, other = there.record(unit), here.run.record(unit)
        assert record is not None
        assert other is not None
        assert list(record) == list(other)
        assert record["metrics"] == other["metrics"]
        np.testing.assert_array_equal(there.arrays(unit)["x"], here.run.arrays(unit)["x"])
        assert there.file(unit, "log").read_bytes() == here.run.file(unit, "log").read_bytes() != b""
        assert not there.file(unit, "txt").exists()


def test_a_failure_is_kept_with_its_traceback(tmp_path: Path) -> None:
    folder, _ = start(tmp_path, Config(note="raise"))
    unit = Unit("plain", 1)
    event = keep(folder, answer(CLAIM, folder.manifest, unit, lambda _: None, None, {}))
    assert event == Failed(unit, "ValueError: no luck on two lines", folder.file(unit, "txt"))
    assert "raise ValueError" in event.file.read_text()
    assert folder.record(unit) is None


def test_the_sources_of_a_claim_of_ones_own_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine_of_a_driver.py").write_text(
        "from tests.lab.toys import Toy\n\nclass Mine(Toy):\n    paper = 'mine'\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    claim = find_claim(str(home / "mine_of_a_driver.py"))
    manifest = plan(claim, "laptop", Config(), ("plain",), (0,), threads=1, command="")
    folder, _ = open_run(tmp_path / "runs", manifest)
    pickled, (root, files) = pickle.dumps(claim), own_sources(claim)
    code = {path.relative_to(root).as_posix(): path.read_bytes() for path in files}
    sys.path.remove(str(home))
    shutil.rmtree(home)
    before = list(sys.path)
    found = keep(folder, answer(pickled, manifest, Unit("plain", 0), lambda _: None, None, code))
    assert isinstance(found, Finished), found
    assert sys.path == before
    changed = {name: source + b"# another" for name, source in code.items()}
    found = keep(folder, answer(pickled, manifest, Unit("plain", 0), lambda _: None, None, changed))
    assert isinstance(found, Failed)
    assert "the code changed under the run (claim)" in found.reason
    del sys.modules["mine_of_a_driver"]


def test_a_sealed_claim_is_the_claim_for_whoever_opens_it() -> None:
    assert isinstance(pickle.loads(pickle.dumps(Sealed(CLAIM))), Toy)
