"""What holds for the whole suite: property tests draw the same examples every time, no clock fails them, and units of
the lab start as forks, which spares each the seconds of importing torch (`test_units_are_spawned` does without).
"""

from collections.abc import Iterator

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
