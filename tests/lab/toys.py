"""Claims of the tests' own: tiny, and able to fail in every way that a real one might."""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from throughline.data import Source
from throughline.errors import ThroughlineError
from throughline.lab import Arm, Beats, Claim, Log, Quote, Results, Within

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Config:
    steps: int = 3
    shift: float = 0.5
    widths: tuple[int, ...] = (4, 2)
    note: str | None = None
    marks: str = ""  # a folder in which every executed unit leaves a file
    data: Source | None = None


@dataclass(frozen=True)
class OnDevice(Config):
    device: str = "cuda"


class Toy(Claim):
    """A shifted mean is larger than a plain one."""

    paper = "groco"  # any paper of the catalogue will do: reports want its title
    arms = (Arm("plain", "Draws its mean as it is."), "shifted")
    context = ("wild",)
    checks = (Beats("mean", "shifted", over="plain"), Within("spread", "plain", at_most=10.0))
    scales = {"smoke": Config(1), "laptop": Config(), "paper": Config(5)}
    accepts = ("table",)
    quotes = (Quote("mean", "0.7", "table 1"),)
    notes = "A toy."

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        if config.marks:
            Path(config.marks, f"{arm}-{seed}-{time.monotonic_ns()}").touch()
        if config.note == "raise" and (arm, seed) == ("plain", 1):
            raise ValueError("no luck\non two lines")
        if config.note == "die" and (arm, seed) == ("plain", 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if config.note == "orphan":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if config.note == "away":
            os.chdir("/")
        if config.note == "stray":
            raise ThroughlineError("caf\udce9.png: cannot be read")
        if config.note == "slow" and seed > 0:
            time.sleep(60)
        while config.note == "gate" and seed > 0 and not Path(config.marks, "open").exists():
            time.sleep(0.05)
        print("a unit may print", file=sys.stderr)  # noqa: T201 - what a unit prints must not reach the terminal
        x = torch.randn(50)
        for step in range(config.steps):
            log(step, of=config.steps, loss=x.std() / (step + 1), accuracy=step / config.steps)
        log.keep(x=x, grid=np.eye(2))
        drawn = random.random() + np.random.rand()  # noqa: NPY002 - the seeding of the global generators is what is tested
        shift = config.shift + 0.01 * torch.randn(()).item() if arm == "shifted" else 0.0
        if config.data is not None:
            log.keep(rows=config.data.table().x)
        return {
            "mean": x.mean().item() + shift,
            "spread": x.std().item(),
            "drawn": drawn,
            "threads": float(torch.get_num_threads()),
            "deterministic": float(torch.are_deterministic_algorithms_enabled()),
        }

    def figures(self, results: Results) -> "dict[str, Figure]":
        from throughline.lab.plots import paired_dots  # here, so that units start without matplotlib

        return {"The means": paired_dots(results, "mean")}


class Seeing(Toy):
    """A unit tells which GPUs it may see."""

    scales = {"laptop": OnDevice()}

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        return {"gpu": float(os.environ.get("CUDA_VISIBLE_DEVICES") or "nan")}
