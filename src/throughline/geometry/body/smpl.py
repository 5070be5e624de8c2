"""SMPL from the user's own file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.geometry.body.model import BodyModel

__all__ = ["load_smpl"]

GENDERS = ("neutral", "male", "female")


def load_smpl(path: str | os.PathLike[str], *, gender: str = "neutral") -> BodyModel:
    """SMPL (ACM Transactions on Graphics 34(6), 2015) as a `BodyModel`, read through ``smplx``.

    6,890 vertices, 13,776 faces, 24 joints, 10 numbers of shape. The files belong to the Max Planck Society: register
    at https://smpl.is.tue.mpg.de and agree to their licence, for research that is not commercial; nothing of them comes
    with this package. ``smplx`` has a licence of the same kind.

    Args:
        path: the file, or a folder with ``SMPL_NEUTRAL.pkl`` and the like, or with a folder ``smpl`` of these.
        gender: "neutral", "male" or "female", for a folder.

    Returns:
        A body in single precision.

    Raises:
        ImportError: ``smplx``, or what its file needs, is not installed (extra "body").
        FileNotFoundError: there is no such file; says where to get it.
        ValueError: ``gender`` is another, or the file is no SMPL.
    """
    if gender not in GENDERS:
        raise ValueError(f"gender must be one of {', '.join(GENDERS)}, got {gender!r}")
    try:
        import smplx
    except ImportError as error:
        raise ImportError('smplx is not installed; pip install "throughline[body]"') from error
    file = _file(Path(path).expanduser(), gender)
    try:
        model = smplx.SMPL(str(file), gender=gender, create_transl=False)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{file} needs the package {error.name} to be read: install it, or convert the file to plain arrays with "
            "the tools of smplx"
        ) from error
    except (KeyError, AttributeError, TypeError, IndexError, EOFError) as error:
        raise ValueError(f"{file} is no file of SMPL ({type(error).__name__}: {error})") from error
    return BodyModel(
        _copied(model.v_template),
        torch.from_numpy(np.asarray(model.faces).astype(np.int64)),
        _copied(model.shapedirs),
        _copied(model.J_regressor),
        _copied(model.lbs_weights),
        [-1, *model.parents.tolist()[1:]],
        pose_dirs=_copied(model.posedirs),
    )


def _copied(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().float().clone()


def _file(place: Path, gender: str) -> Path:
    name = f"SMPL_{gender.upper()}.pkl"
    for candidate in (place, place / name, place / "smpl" / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{place}: no {name} there; get it from https://smpl.is.tue.mpg.de, whose licence forbids to pass it on, and "
        "give the file or its folder"
    )
