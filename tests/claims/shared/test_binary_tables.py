"""Tables of two classes: labels of the registry's by their files, and imblearn's through a stand-in."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from throughline.claims.shared.binary_tables import REGISTERED, imblearn_tables, registered_table
from throughline.data import DataError, fetch


@pytest.mark.parametrize(("name", "last"), [("haberman", "2"), ("glass", "7"), ("ionosphere", "b")])
def test_the_positive_class_is_one(name: str, last: str) -> None:
    lines = fetch(f"tabular/{name}.csv").read_text(encoding="utf-8").split()
    labels = [line.rpartition(",")[2].strip("'\"") for line in lines]
    assert registered_table(name).y.sum() == labels.count(last)


def test_a_column_that_numbers_the_rows_is_left_out() -> None:
    assert "oil-spill" in REGISTERED
    assert registered_table("oil-spill").x.shape == (937, 48)  # of 49


def test_tables_of_imblearn(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch_datasets(*, filter_data: tuple[str, ...] | None) -> dict[str, Any]:
        asked.append(filter_data)
        if filter_data == ("none",):
            raise ValueError("none is not a dataset available.")
        return {"scene": SimpleNamespace(data=np.eye(3, 2), target=np.array([-1, 1, -1]))}

    module = ModuleType("imblearn.datasets")
    module.fetch_datasets = fetch_datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imblearn", ModuleType("imblearn"))
    monkeypatch.setitem(sys.modules, "imblearn.datasets", module)
    (table,) = imblearn_tables()
    assert (table.name, table.y.tolist(), table.columns) == ("scene", [0, 1, 0], ("0", "1"))
    imblearn_tables(("scene",))
    assert asked == [None, ("scene",)]
    with pytest.raises(DataError, match=r"^imblearn.datasets.fetch_datasets: none is not a dataset available\.$"):
        imblearn_tables(("none",))
