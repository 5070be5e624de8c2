"""Memory that a call takes at its highest point."""

import tracemalloc
from typing import Any

import torch


def peak(call: Any) -> int:
    """Bytes of NumPy and of torch at the highest point of a call: tracemalloc sees the one, a profile the other."""
    with torch.profiler.profile(profile_memory=True) as profile:
        tracemalloc.start()
        call()
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    height = highest = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            height += event.nbytes()
            highest = max(highest, height)
    return python + highest
