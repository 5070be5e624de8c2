"""Differentiable architecture search as a loop: steps on the weights, steps on the architecture, and DARTS itself.

"DARTS: Differentiable Architecture Search" (arXiv 1806.09055), the baseline of "Rethinking Architecture Selection in
Differentiable NAS" (arXiv 2108.04392) and of most that came after. `Searcher` is what `search` and every method of
this area agree on: nothing is inherited, and a loop of your own calls the same steps.
"""

from throughline.search.darts.loop import Searcher, search
from throughline.search.darts.searcher import DartsSearcher

__all__ = ["DartsSearcher", "Searcher", "search"]
