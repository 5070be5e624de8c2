"""Supernets: networks whose edges mix candidate operations until an architecture has been decided.

The common ground of differentiable architecture search, as in "DARTS: Differentiable Architecture Search"
(arXiv 1806.09055) and "Rethinking Architecture Selection in Differentiable NAS" (arXiv 2108.04392). A `Choice` is one
decision among named options; a `MixedOp` mixes one candidate for each option by it; a `Node` adds up edges. Any
``nn.Module`` with these inside is a supernet: `choices` and `nodes` find them, `arch_parameters` and
`weight_parameters` go to two optimizers, and `discretise` makes a plain network of what has been decided.
"""

from throughline.search.supernet.choice import Choice
from throughline.search.supernet.discrete import discretise
from throughline.search.supernet.mixture import MixedOp, Node
from throughline.search.supernet.statistics import batch_statistics
from throughline.search.supernet.traversal import arch_parameters, choices, nodes, weight_parameters

__all__ = [
    "Choice",
    "MixedOp",
    "Node",
    "arch_parameters",
    "batch_statistics",
    "choices",
    "discretise",
    "nodes",
    "weight_parameters",
]
