"""Throughline: machine-learning papers as parts you can import and claims you can re-run."""

import importlib
from types import ModuleType

__version__ = "0.1.0"

AREAS = (
    "continual",
    "discrete",
    "geometry",
    "physics",
    "search",
    "sensing",
)  # one sub-package per area of the catalogue
__all__ = ["AREAS", "__version__", "core", "data", "lab", *AREAS]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:  # floors load when they are touched: importing the package alone stays instant, without torch
        return importlib.import_module(f"throughline.{name}")
    raise AttributeError(f"module 'throughline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
