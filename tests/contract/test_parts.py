"""Every public part goes through every check of the contract; a check left out has a reason, and a stale one fails."""

import importlib
import inspect
import pkgutil
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.contract.checks import CHECKS, Check, checks
from tests.contract.part import Part
from tests.contract.table import NOT_PARTS, PARTS

import throughline


def applied() -> list[Any]:
    return [
        pytest.param(part, check, marks=left_out(part, name), id=f"{part}-{name}")
        for part in PARTS
        for name, check in checks(part).items()
    ]


def applied_by_scikit_learn() -> list[Any]:
    found = [(p, *pair) for p in PARTS if p.is_estimator for pair in estimator_checks_generator(p.create())]
    names = [getattr(check, "func", check).__name__ for _, _, check in found]
    seen: Counter[str] = Counter()
    rows = []
    for (part, estimator, check), name in zip(found, names, strict=True):
        seen[f"{part}-{name}"] += 1
        times = f"-{seen[f'{part}-{name}']}" if seen[f"{part}-{name}"] > 1 else ""
        rows.append(pytest.param(estimator, check, marks=left_out(part, name), id=f"{part}-{name}{times}"))
    return rows


def left_out(part: Part, name: str) -> list[pytest.MarkDecorator]:
    # strict: what is left out still runs, and a skip whose check holds after all fails
    return [pytest.mark.xfail(reason=part.skips[name], strict=True)] if name in part.skips else []


@pytest.mark.parametrize(("part", "check"), applied())
def test_contract(part: Part, check: Check) -> None:
    check(part)


@pytest.mark.parametrize(("estimator", "check"), applied_by_scikit_learn())
def test_scikit_learn(estimator: BaseEstimator, check: Any) -> None:
    check(estimator)


def modules() -> list[ModuleType]:
    floors = [importlib.import_module(f"throughline.{name}") for name in ("core", *throughline.AREAS)]
    # what lies deeper is inside of a mechanism's package, whose face hands out its names
    found = (m.name for floor in floors for m in pkgutil.iter_modules(floor.__path__, f"{floor.__name__}."))
    public = [name for name in found if not name.rpartition(".")[2].startswith("_")]
    return floors + [importlib.import_module(name) for name in public]


MODULES = modules()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.removeprefix("throughline."))
def test_every_public_name_is_in_the_table(module: ModuleType) -> None:
    assert hasattr(module, "__all__") or not public_names(module), f"{module.__name__} needs an __all__"
    subjects = [part.subject for part in PARTS]
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        known = any(value is subject for subject in subjects) or f"{module.__name__}.{name}" in NOT_PARTS
        assert known, f"{module.__name__}.{name} is public: give it a row in tests/contract, or a reason in NOT_PARTS"


def test_every_row_is_of_a_public_name() -> None:
    public = {f"{m.__name__}.{n}": getattr(m, n) for m in MODULES for n in getattr(m, "__all__", ())}
    for part in PARTS:
        assert any(value is part.subject for value in public.values()), f"{part} is not in the __all__ of its module"
        unknown = {} if part.is_estimator else set(part.skips) - set(checks(part))
        assert not unknown, f"{part} skips {unknown}, which are no checks of it; the checks are {list(CHECKS)}"
        assert all(part.skips.values()), f"{part} skips without a reason"
    for name, reason in NOT_PARTS.items():
        assert reason, f"{name} needs a reason"
        assert name in public, f"NOT_PARTS lists {name}, which is not public"
        assert not any(public[name] is part.subject for part in PARTS), f"{name} has a row and needs no reason"


def test_rows_have_names_of_their_own() -> None:
    names = [str(part) for part in PARTS]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)


def public_names(module: ModuleType) -> list[str]:
    return [
        name for name, value in vars(module).items() if not name.startswith("_") and inspect.getmodule(value) is module
    ]
