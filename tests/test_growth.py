"""Every mechanism's promise of memory, at a small size: bytes are counted, nothing is timed."""

import math

import pytest
from benchmarks.growth import SLACK, Growth, growths
from benchmarks.harness import papers
from tests.allocation import allocated

ALL = [pytest.param(growth, id=f"{slug}: {growth.name}") for slug in papers() for growth in growths(slug)]


@pytest.mark.parametrize("growth", ALL)
def test_memory_grows_no_faster_than_promised(growth: Growth) -> None:
    growth.setup(growth.start)()  # what is loaded and cached once is not counted
    small, large = (allocated(growth.setup(size)) for size in (growth.start, growth.start * growth.step))
    assert small > 0
    assert math.log(large / small, growth.step) < growth.memory + SLACK, (small, large)
