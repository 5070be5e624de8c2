"""Bayesian optimisation learned from earlier searches ("End-to-End Meta-Bayesian Optimisation with Transformer Neural
Processes", NAP, arXiv 2305.15930): the network, its training, and its use by ask and tell or inside Optuna.
"""

import importlib
from typing import TYPE_CHECKING, Any

from throughline.search.meta_bo.ask_tell import GPOptimizer, NAPOptimizer
from throughline.search.meta_bo.bars import BarDistribution
from throughline.search.meta_bo.files import load_policy, save_policy
from throughline.search.meta_bo.prior_tasks import gp_prior_tasks
from throughline.search.meta_bo.process import AcquisitionOutput, NeuralAcquisitionProcess
from throughline.search.meta_bo.runs import generalized_advantages
from throughline.search.meta_bo.search_space import encode_parameters
from throughline.search.meta_bo.trainer import AcquisitionTrainer

if TYPE_CHECKING:
    from throughline.search.meta_bo.optuna_sampler import NAPSampler

__all__ = [
    "AcquisitionOutput",
    "AcquisitionTrainer",
    "BarDistribution",
    "GPOptimizer",
    "NAPOptimizer",
    "NAPSampler",
    "NeuralAcquisitionProcess",
    "encode_parameters",
    "generalized_advantages",
    "gp_prior_tasks",
    "load_policy",
    "save_policy",
]


def __getattr__(name: str) -> Any:
    if name == "NAPSampler":  # a subclass of Optuna's, which is loaded when this is first touched
        try:
            return importlib.import_module("throughline.search.meta_bo.optuna_sampler").NAPSampler
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "optuna":
                raise
            raise ImportError(
                'NAPSampler needs optuna, which is not installed; pip install "throughline[search]"'
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
