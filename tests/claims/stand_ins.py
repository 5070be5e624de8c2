"""What the tests of several claims put in the place of the lab and of a user: a log, a table, a folder of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_wine

from throughline.data import Source

COLOURS = {"green": (60, 180, 60), "red": (180, 60, 60), "blue": (60, 60, 180)}


class Notes:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.places: list[tuple[int, int]] = []  # the steps that said how many there are, and their number
        self.arrays: dict[str, np.ndarray] = {}

    def __call__(self, step: int, *, of: int | None = None, **values: Any) -> None:
        if of is not None:
            assert step <= of  # positions from 0, or how many there are behind it
            self.places.append((step, of))
        self.points.append((step, {name: _plain(value).item() for name, value in values.items()}))

    def keep(self, **arrays: Any) -> None:
        self.arrays |= {name: _plain(array) for name, array in arrays.items()}

    def curve(self, name: str) -> dict[int, float]:
        return {step: values[name] for step, values in self.points if name in values}


def wine_table(folder: Path, name: str = "wine.csv", *, labels: bool = True) -> Source:
    """178 wines, 13 numbers each, and their kind in the last column."""
    x, y = load_wine(return_X_y=True)
    columns = {**{f"c{i}": column for i, column in enumerate(x.T)}, **({"kind": y} if labels else {})}
    file = folder / name
    np.savetxt(file, np.stack(list(columns.values()), 1), delimiter=",", header=",".join(columns), comments="")
    return Source.of(file)


def colour_folder(root: Path, *, classes: int = 2, count: int = 20, side: int = 10) -> Source:
    """Noisy squares of two or three colours, a class each."""
    draw = np.random.default_rng(0)
    for name, colour in list(COLOURS.items())[:classes]:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = (np.array(colour) + draw.integers(-40, 40, (side, side, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return Source.of(root)


def _plain(value: Any) -> np.ndarray:
    return torch.as_tensor(value).detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
