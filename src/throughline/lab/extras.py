"""Optional packages: which extra brings them, and how to install one beside the torch that is there.

torchvision is made for one build of torch and asks for just that one: an installer that fetches it, or anything that
depends on it, may put another torch in the place of the user's. So it is proposed alone, without its dependencies; once
it is there, what depends on it asks for nothing more.
"""

from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec

from throughline.errors import ThroughlineError

__all__ = ["EXTRAS", "how_to_install", "installed", "missing", "needed"]

EXTRAS = {  # by extra, the name on the package index of what is imported under the name before it
    "body": {"smplx": "smplx"},
    "cluster": {"grpc": "grpcio", "ray": "ray"},
    "geometry": {"trimesh": "trimesh"},
    "imaging": {"deepinv": "deepinv", "skimage": "scikit-image"},
    "parquet": {"pyarrow": "pyarrow"},
    "physics": {"meshio": "meshio", "skfem": "scikit-fem"},
    "search": {"botorch": "botorch", "optuna": "optuna"},
    "signals": {"mnist1d": "mnist1d"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "video": {"av": "av"},
    "paper": {
        "datasets": "datasets",
        "imblearn": "imbalanced-learn",
        "lightly": "lightly",
        "timm": "timm",
        "torchvision": "torchvision",
        "transformers": "transformers",
    },
}
NEED_TORCHVISION = frozenset({"deepinv", "lightly", "timm", "torchvision"})


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except ValueError:  # it is loaded, and was not made by the import system
        return True


def missing(extra: str) -> tuple[str, ...]:
    """The modules of an extra that are not installed."""
    return tuple(module for module in EXTRAS[extra] if not installed(module))


def needed(what: str, extra: str | None) -> None:
    """Refuse what needs an extra that is not installed, or not all of it.

    Raises:
        ThroughlineError: with the command that installs it.
    """
    if extra is not None and (lacking := missing(extra)):
        raise ThroughlineError(f"{what} needs {' and '.join(lacking)}; {how_to_install(lacking, extra)}")


def how_to_install(modules: Iterable[str], extra: str) -> str:
    """The command that installs ``modules``, which ``extra`` brings, and leaves torch alone.

    >>> how_to_install(["optuna"], "search"), how_to_install(["imblearn", "datasets"], "paper")
    ('pip install "throughline[search]"', 'pip install imbalanced-learn datasets')
    """
    modules = tuple(modules)
    names = EXTRAS.get(extra, {})
    if not NEED_TORCHVISION & {*names, *modules}:
        return f'pip install "throughline[{extra}]"'
    steps = []
    if "torchvision" in modules or (NEED_TORCHVISION & {*modules} and not installed("torchvision")):
        steps.append(f"pip install --no-deps torchvision (the build that matches torch {version('torch')})")
    others = [names.get(module, module) for module in modules if module != "torchvision"]
    return ", then ".join([*steps, f"pip install {' '.join(others)}"] if others else steps)
