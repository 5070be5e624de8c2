"""Search spaces: supernets of cells or blocks, and the fixed networks that a search in them ends with.

The spaces of NAS-Bench-201 (arXiv 2001.00326), of "DARTS: Differentiable Architecture Search" (arXiv 1806.09055), as
"Rethinking Architecture Selection in Differentiable NAS" (arXiv 2108.04392) searches them, and of "ProxylessNAS: Direct
Neural Architecture Search on Target Task and Hardware" (arXiv 1812.00332), and small ones of either kind for signals.
Each builder gives a supernet of `throughline.search.supernet`, or, with ``decisions``, a plain network to train anew.
"""

from throughline.search.spaces.darts_cells import DARTS_OPS, darts
from throughline.search.spaces.mobile import mobile_space, mobile_space_1d
from throughline.search.spaces.stages import NAS_BENCH_201_OPS, cells_1d, nas_bench_201

__all__ = ["DARTS_OPS", "NAS_BENCH_201_OPS", "cells_1d", "darts", "mobile_space", "mobile_space_1d", "nas_bench_201"]
