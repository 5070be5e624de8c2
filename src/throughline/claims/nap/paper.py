"""The paper's tables as their authors publish them, read from a folder: HPO-B, and XGBoost on 48 data sets."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.claims.nap.config import Config
from throughline.claims.nap.problems import Problem, Task
from throughline.data import DataError

__all__ = ["load"]

HPOB = {
    "train": "meta-train-dataset.json",
    "test": "meta-test-dataset.json",
    "initializations": "bo-initializations.json",
}
XGBOOST = "hpobenchXGB_*_eq.pkl"
WHERE = {
    "hpob": "the folder hpob-data of the HPO-B benchmark, github.com/releaunifreiburg/HPO-B",
    "xgboost": "the folder NAP/HPO_data of github.com/huawei-noah/HEBO",
}
ARRAYS = {  # all that a pickle may name
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]


def load(config: Config, seed: int) -> list[Problem]:
    """The problems of a seed: the spaces of HPO-B, or the tables of XGBoost, 14 of 48 of them to be judged by."""
    if config.dataset == "hpob":
        return _hpob(config.tables, config.spaces, seed)
    tasks = _xgboost(config.tables)
    order = np.random.default_rng(seed).permutation(len(tasks))
    test = {int(place) for place in order[: 14 * len(tasks) // 48]}
    return [Problem(*([t for i, t in enumerate(tasks) if (i in test) == tested] for tested in (False, True)))]


def _hpob(folder: str, spaces: Sequence[str], seed: int) -> list[Problem]:
    """Training and test tasks of every space; searches start from the benchmark's initial points, five sets in turn."""
    files = {part: _file(folder, name, "hpob") for part, name in HPOB.items()}
    found = {part: json.loads(file.read_text(encoding="utf-8")) for part, file in files.items()}
    problems = []
    for space in spaces:
        for part in ("train", "test"):
            if space not in found[part]:
                known = ", ".join(found[part])
                raise DataError(f"{files[part]}: no space {space!r}; spaces must be among {known}")
        tables = [*found["train"][space].values(), *found["test"][space].values()]
        inputs = np.concatenate([np.asarray(table["X"], float) for table in tables])
        ends = inputs.min(0), inputs.max(0)
        starts = {name: sets[f"test{seed % 5}"] for name, sets in found["initializations"][space].items()}
        problems.append(
            Problem(
                [_hpob_task(f"{space}/{name}", table, ends, ()) for name, table in found["train"][space].items()],
                [
                    _hpob_task(f"{space}/{name}", table, ends, starts[name])
                    for name, table in found["test"][space].items()
                ],
            )
        )
    return problems


def _xgboost(folder: str) -> list[Task]:
    """All tables: six hyperparameters, and 1 − ``accs``, whose values are error rates: small ones are wanted."""
    files = sorted(Path(folder).expanduser().glob(XGBOOST)) if folder else []
    if not files:
        _file(folder, XGBOOST, "xgboost")
    return [_xgboost_task(file) for file in files]


def _hpob_task(name: str, table: Mapping[str, Any], ends: Ends, start: Sequence[int]) -> Task:
    x, y = _scaled(np.asarray(table["X"], float), ends), np.asarray(table["y"], float).ravel()
    first, place = _distinct(x)
    return Task(name, _tensor(x[first]), _tensor(y[first]), tuple(int(place[i]) for i in start))


def _xgboost_task(file: Path) -> Task:
    with file.open("rb") as stream:
        try:
            found = _Arrays(stream).load()
        except pickle.UnpicklingError as error:
            raise DataError(f"{file}: {error}") from None
    missing = {"domain", "accs"} - set(found)
    if missing:
        raise DataError(f"{file}: no array named {', '.join(sorted(missing))}; it holds {', '.join(map(str, found))}")
    x, y = np.asarray(found["domain"], float), 1 - np.asarray(found["accs"], float).ravel()
    x = _scaled(x, (x.min(0), x.max(0)))
    first, _ = _distinct(x)
    return Task(file.stem, _tensor(x[first]), _tensor(y[first]))


class _Arrays(pickle.Unpickler):
    """Builds arrays and containers, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAYS:
            raise pickle.UnpicklingError(f"holds {module}.{name}, and only arrays are read")
        return super().find_class(module, name)


def _scaled(x: NDArray[np.float64], ends: Ends) -> NDArray[np.float64]:
    low, high = ends
    return np.asarray((x - low) / np.where(high > low, high - low, 1))


def _distinct(x: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row of each kind, in their order, and where every row is found among them."""
    _, first, kind = np.unique(x, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[kind.ravel()]


def _tensor(x: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(x).float()


def _file(folder: str, name: str, dataset: str) -> Path:
    if not folder:
        raise DataError(f"dataset={dataset} needs its files: get {WHERE[dataset]}, and --set tables=FOLDER")
    file = Path(folder).expanduser() / name
    if not file.exists():
        raise DataError(f"{file}: no such file; tables must be {WHERE[dataset]}")
    return file
