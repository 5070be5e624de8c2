"""The bytes that a call holds at its highest point, counted and not measured."""

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["allocated"]


def allocated(call: Callable[[], Any]) -> int:
    """Bytes of NumPy and of torch at the highest point of a call: tracemalloc sees the one, a profile the other."""
    with torch.profiler.profile(profile_memory=True):
        pass  # loads its modules, which would take four times as long while they are traced
    gc.collect()  # what earlier work left in cycles would be freed during the call, and taken off its bytes
    tracemalloc.start()
    try:
        with torch.profiler.profile(profile_memory=True) as profile:
            call()
        python = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    highest = live = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    return python + highest
