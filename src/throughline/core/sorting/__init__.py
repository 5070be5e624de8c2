"""Relaxed sorting networks ("Differentiable Sorting Networks for Scalable Sorting and Ranking Supervision", arXiv
2105.04019; "Monotonic Differentiable Sorting Networks", arXiv 2203.09630).

A comparator that cannot decide mixes its two wires by the probability that they are in order. The layers of a network
then compose to a doubly stochastic matrix P with ``P x = sorted(x)``: rows are sorted positions, columns are inputs.
P is kept as an operator (one probability per comparator) and built as a matrix only when asked.
"""

from throughline.core.sorting.relaxed import (
    RelaxedSort,
    check_relaxation,
    order_probability,
    relaxed_sort,
    sorting_network,
)
from throughline.core.sorting.sweeps import Distribution, Network

__all__ = [
    "Distribution",
    "Network",
    "RelaxedSort",
    "check_relaxation",
    "order_probability",
    "relaxed_sort",
    "sorting_network",
]
