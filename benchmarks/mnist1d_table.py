"""Builds the table that the claims about architecture search look their architectures up in: all 729 of `cells_1d`.

``python -m benchmarks.mnist1d_table --workers 2`` trains each of them on MNIST-1D from three seeds, side by side, and
goes on where it was stopped.
"""

import argparse
import csv
import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import mnist1d_rows
from throughline.claims.shared.cells.training import accuracies
from throughline.search.spaces import cells_1d
from throughline.search.supernet import choices

OPTIONS = {name: choice.names for name, choice in choices(cells_1d()).items()}
SEEDS = (0, 1, 2)
Key = tuple[str, ...]  # an option for each choice


def rows_of(decided: Key) -> list[float]:
    """Test accuracy of an architecture from each seed."""
    torch.set_num_threads(1)
    config = CellConfig()
    train, test, classes = mnist1d_rows(config.samples)
    decisions = dict(zip(OPTIONS, decided, strict=True))
    return accuracies(
        partial(cells_1d, config.final_channels, classes, decisions=decisions), train, test, config, SEEDS
    )


def read(file: Path) -> dict[Key, list[float]]:
    found: dict[Key, list[float]] = {}
    if file.exists():
        with file.open(newline="") as stream:
            for *decided, seed, accuracy in itertools.islice(csv.reader(stream), 1, None):
                found.setdefault(tuple(decided), [0.0] * len(SEEDS))[int(seed)] = float(accuracy)
    return found


def write(file: Path, found: dict[Key, list[float]]) -> None:
    partial_file = file.with_name(f"{file.name}.partial")
    with partial_file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*OPTIONS, "seed", "test_accuracy"])
        for decided, scores in found.items():
            writer.writerows([*decided, seed, f"{score:.3f}"] for seed, score in zip(SEEDS, scores, strict=True))
    os.replace(partial_file, file)


def build(file: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Compute what is missing, and say after each architecture how many of how many there are."""
    found, every = read(file), list(itertools.product(*OPTIONS.values()))
    missing = [decided for decided in every if decided not in found]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(rows_of, decided): decided for decided in missing}
        for future in as_completed(running):
            found[running[future]] = future.result()
            write(file, {decided: found[decided] for decided in every if decided in found})
            yield len(found), len(every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", type=Path, default=Path("mnist1d_rows.csv"))
    options = parser.parse_args()
    began = time.monotonic()
    for done, every in build(options.file, options.workers):
        print(f"{done} of {every} architectures, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
