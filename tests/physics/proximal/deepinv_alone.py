"""deepinv without torchvision, which it imports for data sets and pictures alone and which has no build for CPUs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.datasets.folder",
    "torchvision.datasets.utils",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "torchvision.utils",
)


class Hollow(ModuleType):
    """A module that has every name, of a class that does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__getattr__": lambda self, name: None, "__init__": lambda self, *args, **options: None})


@contextmanager
def deepinv_alone() -> Iterator[ModuleType]:
    """Import deepinv, with hollow modules in the place of torchvision's where that is missing."""
    made = {} if "torchvision" in sys.modules or find_spec("torchvision") else {name: Hollow(name) for name in NAMES}
    for name, module in made.items():
        module.__path__ = []
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(made[parent], own, module)
    sys.modules.update(made)
    try:
        import deepinv

        yield deepinv
    finally:
        for name in made:
            sys.modules.pop(name, None)
