"""Training on several processes of one machine: starting the others, and the group that they form."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist

__all__ = ["followers", "process_group"]


@contextmanager
def followers(program: str, job: dict[str, Any], processes: int) -> Iterator[str]:
    """All but the first of ``processes``, which end with the block; gives the address at which they want to meet.

    Args:
        program: Python, whose argument is ``job`` with "address" and "rank", as JSON.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    others = [
        subprocess.Popen([sys.executable, "-c", program, json.dumps({**job, "address": address, "rank": rank})])
        for rank in range(1, processes)
    ]
    try:
        yield address
    finally:
        for other in others:
            other.kill()
            other.wait()


@contextmanager
def process_group(address: str, rank: int, processes: int) -> Iterator[None]:
    """torch's process group, by NCCL where there is CUDA, a GPU for each; none for one process alone."""
    if processes == 1:
        yield
        return
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, address, rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()
