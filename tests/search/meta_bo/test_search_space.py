"""Parameters of Optuna as columns and back."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution  # noqa: TID253
from tests.search.meta_bo.test_optuna_sampler import PLANE, SPACE

from throughline.search.meta_bo import encode_parameters
from throughline.search.meta_bo.search_space import decode_parameters, num_columns, spread


def test_columns_of_every_kind_of_distribution() -> None:
    params = {"x": 1.0, "rate": 1e-3, "grid": 0.75, "depth": 5, "width": 8, "kernel": None}
    columns = encode_parameters(params, SPACE)
    assert columns.tolist() == pytest.approx([0.75, 0.25, 0.75, 0.5, 0.5, 0.0, 1.0, 0.0])
    assert num_columns(SPACE) == 8
    assert encode_parameters({**params, "kernel": 3, "other": 1}, SPACE)[-3:].tolist() == [0, 0, 1]
    assert encode_parameters({"one": 4}, {"one": IntDistribution(4, 4)}).tolist() == [0]


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_every_point_is_a_setting_and_comes_back(at: list[float]) -> None:
    params = decode_parameters(torch.tensor(at), SPACE)
    for name, distribution in SPACE.items():
        assert distribution._contains(distribution.to_internal_repr(params[name])), (name, params[name])
    columns = encode_parameters(params, SPACE)
    assert ((columns >= 0) & (columns <= 1)).all()
    assert columns[0].item() == pytest.approx(at[0], abs=1e-6)
    assert columns[1].item() == pytest.approx(at[1], abs=1e-6)
    assert isinstance(params["depth"], int)
    assert isinstance(params["width"], int)


def test_settings_are_spread_over_the_space() -> None:
    columns, params = spread(SPACE, 512, seed=0)
    assert len(columns) == len(params) == 512
    assert columns[:, 0].mean().item() == pytest.approx(0.5, abs=0.02)
    assert {p["grid"] for p in params} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert {p["kernel"] for p in params} == {"rbf", None, 3}
    share = [sum(p["depth"] == d for p in params) / 512 for d in (1, 3, 5, 7, 9)]
    assert share == pytest.approx([0.2] * 5, abs=0.02)
    few, kinds = spread({"b": CategoricalDistribution([True, False]), "i": IntDistribution(0, 2)}, 100, seed=0)
    assert len(few) == 6
    assert [
        encode_parameters(p, {"b": CategoricalDistribution([True, False]), "i": IntDistribution(0, 2)}).tolist()
        for p in kinds
    ] == few.tolist()


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"x": 0.0}, "params must hold 'n', got x"),
        ({}, "params must hold 'x', got none"),
        ({"x": 1.5, "n": 3}, r"params\['x'\] must be a value of FloatDistribution\(.*, got 1.5"),
        ({"x": 0.5, "n": 41}, r"params\['n'\] must be a value of IntDistribution"),
    ],
)
def test_encode_names_the_bad_parameter(params: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        encode_parameters(params, PLANE)
