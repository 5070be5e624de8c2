"""Instances for each arm of the pointer network claim: drawn as in the paper, or the user's file."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from throughline.claims.pointer_net.config import Config, task_of
from throughline.claims.shared.planar_batches import are_tours, epochs, fresh, in_unit_square, on_one_line, resampled
from throughline.data import DataError, Source
from throughline.data.planar import PlanarBatch, label_planar, make_planar
from throughline.errors import ThroughlineError

__all__ = ["Split", "check", "load"]

TEST = 0.25  # of the user's instances
FEWEST = 8  # instances of the user's


class Split(NamedTuple):
    """What an arm trains on and is tested on."""

    batches: Iterator[PlanarBatch]  # without end
    tests: list[PlanarBatch]  # one for each size
    seen: tuple[int, int]  # the sizes of training instances


def check(config: Config, arms: tuple[str, ...]) -> None:
    """Read the user's file for every arm, so that a fault is one line before anything runs."""
    for name in ("lengths", "cities"):
        low, high = getattr(config, name)
        if low > high:
            raise ThroughlineError(
                f"{name} must be the least and the most, got {low} and {high}; --set {name}=[{high},{low}]"
            )
    if 0 < config.pairs < config.batch:
        raise ThroughlineError(
            f"pairs={config.pairs} do not fill a batch of {config.batch}; --set batch={config.pairs}"
        )
    if config.data is not None:
        for arm in arms:
            if task_of(arm) != "tsp":  # no tour is impossible, and the exact ones take their time
                _own_parts(arm, config.data, 0)


def load(arm: str, config: Config, seed: int) -> Split:
    """The instances of an arm: the same for all arms of one problem and size."""
    if config.data is not None:
        return _own(arm, config, config.data, seed)
    draw = torch.Generator(config.device).manual_seed(seed)
    task = task_of(arm)
    sizes: tuple[int, ...]
    sizes, seen = {
        "pointer_lengths": (config.tested_lengths, config.lengths),
        "pointer_tour": (config.tested_cities, config.cities),
        "pointer_triangles": ((config.triangulated,), (config.triangulated,) * 2),
    }.get(arm, ((config.points,), (config.points,) * 2))
    tests = [make_planar(task, config.test, n, generator=draw) for n in sizes]
    if config.pairs:
        pool = make_planar(task, config.pairs, seen, generator=draw)
        batches = epochs(pool, config.batch, seed)
    else:
        batches = fresh(task, seen, config.batch, draw)
    return Split(batches, tests, seen)


def _own(arm: str, config: Config, source: Source, seed: int) -> Split:
    train, *tests = (PlanarBatch(*(x.to(config.device) for x in part)) for part in _own_parts(arm, source, seed))
    seen = int(train.lengths.min()), int(train.lengths.max())
    return Split(resampled(train, config.batch, seed), tests, seen)


def _own_parts(arm: str, source: Source, seed: int) -> list[PlanarBatch]:
    """Training instances from the user's file, and test instances by size; a quarter of the file is held out.

    Every instance is moved and scaled into the unit square. Arms of one size take the most frequent one.
    pointer_lengths takes the largest quarter, trains on the first points of each, at most half of them, and is tested
    on up to all. The file's labels count for tours, if all of them are tours; everything else is solved.
    """
    mine, task = source.planar(), task_of(arm)
    lengths = mine.lengths
    quarter = lengths.sort(descending=True).values[: max(FEWEST, len(lengths) // 4)]
    width = int({"pointer_lengths": quarter[-1], "pointer_tour": lengths.max()}.get(arm, lengths.mode().values))
    kept = {"pointer_lengths": lengths >= width, "pointer_tour": lengths >= 2}.get(arm, lengths == width)
    least = {"pointer_lengths": 6, "pointer_tour": 2}.get(arm, 3)
    if int(kept.sum()) < FEWEST or width < least:
        alike = "" if arm in ("pointer_lengths", "pointer_tour") else "of one size, "
        found = f"{int(kept.sum())} of {width}" if width >= least else f"none of more than {width}"
        raise DataError(
            f"{source.path}: {arm} needs {FEWEST} instances {alike}of at least {least} points, there are {found}; "
            "add some, or leave points out"
        )
    lengths = lengths[kept].clamp_max(width)
    points, labels = in_unit_square(mine.points[kept][:, :width], lengths), mine.targets[kept]
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    held_out = max(1, round(TEST * len(order)))
    test, train = order[:held_out], order[held_out:]
    if task == "tsp" and are_tours(labels, lengths):
        return [PlanarBatch(points[rows], labels[rows], lengths[rows]) for rows in (train, test)]
    sizes, tested = lengths[train], [width]
    shortest = max(3, width // 4) if arm == "pointer_lengths" else width
    flat = on_one_line(points[:, :shortest])
    if task != "tsp" and bool(flat.any()):
        number = int(kept.nonzero()[flat][0]) + 1
        raise DataError(
            f"{source.path}: the first {shortest} points of instance {number} lie on one line, or at one place, and "
            f"{arm} needs a {task} of them; mend or remove the instance"
        )
    if arm == "pointer_lengths":
        draw = torch.Generator().manual_seed(seed)
        sizes = torch.randint(shortest, width // 2 + 1, (len(train),), generator=draw)
        tested = [width // 2, 3 * width // 4, width]
    try:
        first = label_planar(task, points[train], sizes)
        return [first, *(label_planar(task, points[test][:, :n], lengths[test].clamp_max(n)) for n in tested)]
    except ValueError as error:
        raise DataError(f"{source.path}: {arm}: {error}") from None
