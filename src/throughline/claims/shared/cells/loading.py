"""Which setting a config asks for."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from throughline.claims.shared.cells import laptop
from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import Setting
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.search.spaces import cells_1d, darts, nas_bench_201
from throughline.search.supernet import choices

__all__ = ["check", "load", "option_names"]


def load(config: CellConfig, seed: int) -> Setting:
    """The setting of a seed: MNIST-1D, the user's data, or the data of the papers."""
    if config.data is None and config.dataset != "mnist1d":
        from throughline.claims.shared.cells import paper  # with what only the paper's scale needs

        return paper.load(config, seed)
    return laptop.load(config, seed)


def check(config: CellConfig) -> None:
    """Refuse a config that cannot be, and read its data once: a fault is one line before anything runs.

    Raises:
        ThroughlineError: naming the field, or the package that is missing.
    """
    if config.space != "cells" and (config.data is not None or config.dataset == "mnist1d"):
        raise ThroughlineError(f"space={config.space} is for dataset=cifar10, cifar100 or svhn; --set space=cells")
    if config.benchmark and (config.space != "cells" or config.dataset not in ("cifar10", "cifar100")):
        raise ThroughlineError("benchmark is of NAS-Bench-201: --set space=cells --set dataset=cifar10")
    if config.data is None and config.dataset == "mnist1d":
        require("mnist1d", extra="signals")
    load(config, 0)


def option_names(config: CellConfig) -> Mapping[str, tuple[str, ...]]:
    """The options of each choice of a config's space, by its name."""
    build: Callable[[], nn.Module]
    if config.space != "cells":
        from throughline.claims.shared.cells.paper import PRIMITIVES

        build = partial(darts, 2, 3, primitives=PRIMITIVES[config.space])
    elif config.data is None:
        build = cells_1d if config.dataset == "mnist1d" else partial(nas_bench_201, 1, 1)
    else:
        build = cells_1d if config.data.kind == "signals" else partial(nas_bench_201, 1, 1)
    return {name: choice.names for name, choice in choices(build()).items()}
