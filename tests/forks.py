"""Processes that start at once: forks of a server that has imported, and not yet computed, what most of them need."""

import multiprocessing
from multiprocessing.context import ForkServerContext

__all__ = ["FORKS"]

FORKS: ForkServerContext = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["matplotlib.pyplot", "sklearn.datasets", "tests.docs.gallery", "throughline.lab.unit", "torch._dynamo"]
)
