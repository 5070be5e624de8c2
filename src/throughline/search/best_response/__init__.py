"""Hyperparameters tuned by gradient while the network trains: one run in place of a search.

"Self-Tuning Networks: Bilevel Optimization of Hyperparameters using Structured Best-Response Functions"
(arXiv 1903.03088, ICLR 2019). Every weight matrix gets a cheap term that says how it would change if the
hyperparameters did; the network then is a best response ŵ(λ), through which the validation loss reaches λ: dropout
rates, augmentation strengths and penalties, discrete ones too. `convert` makes one of any model, and `SelfTuner` trains
it.
"""

from throughline.search.best_response.dropout import TunableDropout
from throughline.search.best_response.hyperparameters import Hyperparameter, HyperparameterSpace
from throughline.search.best_response.layers import BestResponseConv2d, BestResponseLinear
from throughline.search.best_response.network import SelfTuningNetwork, convert
from throughline.search.best_response.tuner import SelfTuner

__all__ = [
    "BestResponseConv2d",
    "BestResponseLinear",
    "Hyperparameter",
    "HyperparameterSpace",
    "SelfTuner",
    "SelfTuningNetwork",
    "TunableDropout",
    "convert",
]
