"""The local engine: spawned processes in an environment of their own."""

import os
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from tests.lab.runs import metrics, run
from tests.lab.toys import Config

from throughline.lab.engines import local
from throughline.lab.unit import Failed


def test_units_are_spawned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are for a user: from nothing, and with the same numbers."""
    forked, _ = run(tmp_path / "forked", Config(), seeds=(0,))
    asked = []

    def spawned(method: str) -> BaseContext:
        asked.append(method)
        return get_context(method)

    monkeypatch.setattr(local, "get_context", spawned)
    other, _ = run(tmp_path / "spawned", Config(), seeds=(0,))
    assert asked == ["spawn"]
    assert len(metrics(other)) == 2
    assert metrics(other) == metrics(forked)


def test_a_unit_that_is_killed_is_reported_too(tmp_path: Path) -> None:
    results, events = run(tmp_path, Config(note="die"))
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert "exit code -9" in failure.reason
    assert len(results.records) == 3


def test_variables_are_set_for_the_units_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    before = dict(os.environ)
    with local._environment(3):
        assert {os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}
        assert os.environ["PYTHONHASHSEED"] == "0"
    assert dict(os.environ) == before
