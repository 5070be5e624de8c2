"""The package without BoTorch and Optuna."""

import builtins
import importlib
import sys

import pytest
import torch

import throughline.search.meta_bo as meta_bo


def test_imports_without_what_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = {"botorch", "gpytorch", "optuna", "linear_operator"}
    for name in [
        name for name in sys.modules if name.partition(".")[0] in optional or name.endswith("meta_bo.optuna_sampler")
    ]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def absent(name: str, *args: object) -> object:
        if name.partition(".")[0] in optional:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    for name in optional:
        monkeypatch.setitem(sys.modules, name, None)
    fresh = importlib.reload(meta_bo)
    with pytest.raises(ImportError, match=r'optuna.* is not installed; pip install "throughline\[search\]"'):
        fresh.NAPSampler  # noqa: B018
    with pytest.raises(ImportError, match=r'botorch is not installed; pip install "throughline\[search\]"'):
        meta_bo.GPOptimizer(torch.eye(3))
    with pytest.raises(ImportError, match=r'botorch is not installed; pip install "throughline\[search\]"'):
        meta_bo.gp_prior_tasks([(torch.eye(3), torch.arange(3.0))])
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        meta_bo.nonsense  # noqa: B018
