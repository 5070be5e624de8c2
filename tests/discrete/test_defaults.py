"""Defaults are what the papers and their code use: a user who sets nothing gets the published method."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from throughline.discrete.clustering import TELL, KMeansLayer
from throughline.discrete.confusion import MetricClassifier, MetricLoss, fbeta, metric_loss, soft_confusion
from throughline.discrete.key_value import KeyValueBottleneck
from throughline.discrete.pointer import PointerNetwork
from throughline.discrete.quantization import (
    PointQuantizer,
    WeightQuantizer,
    distillation_loss,
    nonuniform_quantize,
    quantile_points,
    uniform_quantize,
)

DEFAULTS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (soft_confusion, {"amplification": 73.0, "from_logits": True}),
    (metric_loss, {"metric": "f1", "amplification": 73.0, "from_logits": True}),
    (MetricLoss, {"metric": "f1", "amplification": 73.0, "from_logits": True}),
    (fbeta, {"beta": 1.0}),
    (MetricClassifier, {"metric": "f1", "hidden_layer_sizes": (), "amplification": 73.0, "alpha": 0.0}),
    (MetricClassifier, {"learning_rate_init": 0.01, "max_iter": 1000, "batch_size": None, "pos_label": None}),
    (distillation_loss, {"temperature": 5.0, "weight": 0.7}),
    *((quantize, {"bucket_size": 256}) for quantize in (uniform_quantize, nonuniform_quantize, quantile_points)),
    (uniform_quantize, {"stochastic": False}),
    (WeightQuantizer, {"bucket_size": 256, "select": None, "stochastic": False}),
    (PointQuantizer, {"bucket_size": 256, "select": None, "init": "quantile", "levels": None}),
    (PointerNetwork, {"input_dim": 2, "hidden_size": 512, "init_range": 0.08}),
    (PointerNetwork.decode, {"beam_size": 1, "max_steps": None, "constraint": None}),
    (KMeansLayer, {"alpha": 1e-3, "normalize": True}),
    (KMeansLayer.loss, {"hard": True}),
    (KMeansLayer.normalize_gradient_, {"scale": 0.2}),
    (TELL, {"n_clusters": 8, "normalize": True, "alpha": 1e-3, "clustering_weight": 1e-3, "pretrain_epochs": 0}),
    (TELL, {"max_epochs": 100, "batch_size": 256, "lr": 1e-3, "tol": 1e-4, "init": "k-means++"}),
    (KeyValueBottleneck, {"num_codebooks": 256, "num_pairs": 4096, "dim_key": 14, "projection": "random"}),
    (KeyValueBottleneck, {"decay": 0.95, "eps": 1e-5, "dead_threshold": 0.1, "topk": 1}),
    (KeyValueBottleneck.fit_keys, {"epochs": 10}),
]


@pytest.mark.parametrize(("part", "wanted"), DEFAULTS)
def test_defaults_are_the_published_ones(part: Callable[..., Any], wanted: dict[str, Any]) -> None:
    parameters = inspect.signature(part).parameters
    assert {name: parameters[name].default for name in wanted} == wanted
