"""DistributedDataParallel around a part, in two processes with data of their own.

Processes that have computed do not fork well, and each import of torch costs seconds. So one server only imports the
rows that it is asked for, and the two processes of a check are its forks.
"""

import atexit
import copy
import datetime
import functools
import gc
import importlib
import multiprocessing
import tempfile
import traceback
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from tests.contract.part import Part
from tests.contract.tensors import Called, floating, gradients, parameters, same
from tests.forks import FORKS
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = 60.0  # seconds for one part


def check_ddp(part: Part) -> None:
    """Gradients reach every parameter as the mean of both processes, and the replicas stay equal."""
    connection = server()
    connection.send((part.sample.__module__, str(part)))  # a part cannot be pickled: the server finds it in its module
    report = connection.recv()
    assert not report, report


@functools.cache
def server() -> Connection:
    here, there = multiprocessing.Pipe()
    FORKS.Process(target=serve, args=(there,)).start()
    there.close()
    atexit.register(here.close)  # which ends the server
    return here


def serve(connection: Connection) -> None:
    importlib.import_module("torch._dynamo")  # which DistributedDataParallel would import in every fork
    while True:
        try:
            module, name = connection.recv()
        except EOFError:
            return
        part = next(p for p in importlib.import_module(module).PARTS if str(p) == name)
        with tempfile.TemporaryDirectory() as folder:
            connection.send(both(part, folder))


def both(part: Part, folder: str) -> str:
    """The first error of two processes that meet in ``folder``; none is an empty text."""
    gc.freeze()  # the forks need not look through what is there already
    fork = multiprocessing.get_context("fork")
    processes, ends = [], []
    for rank in range(2):
        end, other = fork.Pipe(duplex=False)
        processes.append(fork.Process(target=attempt, args=(part, rank, folder, other)))
        processes[-1].start()
        other.close()
        ends.append(end)
    reports: list[str] = []
    while ends and not any(reports):
        ready = wait(ends, PATIENCE)
        if not ready:
            reports.append(f"no answer within {PATIENCE:g} seconds")
        for end in ready:
            ends.remove(end)
            try:
                reports.append(end.recv())
            except EOFError:
                reports.append("the process ended without a report")
    for process in processes:
        if any(reports):
            process.kill()
        process.join()
    return next(filter(None, reports), "")


def attempt(part: Part, rank: int, folder: str, report: Connection) -> None:
    torch.set_num_threads(1)  # the threads of a parent are not there after a fork
    try:
        limit = datetime.timedelta(seconds=PATIENCE)
        distributed.init_process_group("gloo", f"file://{folder}/meet", limit, world_size=2, rank=rank)
        replicate(part, rank)
        gc.collect()  # a wrapped model that outlives its process group waits for the threads of it
        distributed.destroy_process_group()
    except BaseException:
        report.send(traceback.format_exc())
    else:
        report.send("")


def replicate(part: Part, rank: int) -> None:
    made = part.build()
    alone = copy.deepcopy(made)
    wrapped = DistributedDataParallel(made if part.call is None else Called(part, made))
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    for step in range(2):  # what a first step leaves unfinished, the second reports
        args = part.draw(2 * step + rank)
        optimizer.zero_grad()
        total(wrapped(*args)).backward()
        if step == 0:
            wanted = gradients(floating(part.run(alone, *args)), parameters(alone))
            for name, p in made.named_parameters():
                if p.requires_grad:
                    assert p.grad is not None, f"no gradient reaches {name}"
                    mean = wanted.pop(0)
                    distributed.all_reduce(mean)
                    same(p.grad, mean / 2, rtol=1e-9, atol=1e-9, what=f"gradient of {name}")
        optimizer.step()
    for name, value in (*made.named_parameters(), *made.named_buffers()):
        if value.layout == torch.strided:
            replicas = [torch.empty_like(value) for _ in range(2)]
            distributed.all_gather(replicas, value.detach().contiguous())
            same(replicas[1], replicas[0], what=f"replica of {name}")


def total(result: Any) -> Tensor:
    return torch.stack([leaf.sum() for leaf in floating(result)]).sum()


def trains(part: Part) -> bool:
    """Whether it is a module with parameters to train."""
    return part.is_module and any(p.requires_grad for p in module_of(part).parameters())


def module_of(part: Part) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        made: nn.Module = part.build()
    return made
