"""What holds for the whole suite: property tests draw the same examples every time, no clock fails them, and units of
the lab start as forks, which spares each the seconds of importing torch (`test_units_are_spawned` does without).
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.forks import FORKS

from throughline.lab.engines import local

settings.register_profile("throughline", deadline=None, derandomize=True)
settings.load_profile("throughline")


@pytest.fixture(scope="session", autouse=True)
def units_are_forks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "get_context", lambda method: FORKS)
        yield


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's to work in; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
