"""What the time of a unit is measured by."""

import time
from collections.abc import Callable

__all__ = ["clock_of"]


def clock_of(device: str) -> Callable[[], float]:
    """Processor time of this process; on a GPU, where it mostly waits, the time that passes."""
    return time.perf_counter if device.startswith("cuda") else time.process_time
