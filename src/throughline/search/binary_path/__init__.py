"""Architecture search that runs one candidate for each choice at a time, and pays for measured latency.

"ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (arXiv 1812.00332, ICLR 2019). A supernet
that mixes all candidates needs the memory of all of them. With `binary_paths` it runs a single path, drawn from the
architecture parameters, and these still get a gradient. `LatencyTable` measures every candidate on the machine at hand
and gives the expected latency of the whole, which can be derived and added to the loss. `BinaryPathSearcher` and
`ReinforceSearcher` put both in a loop.
"""

from throughline.search.binary_path.latency import LatencyTable
from throughline.search.binary_path.objective import hardware_loss, hardware_reward, reinforce_loss
from throughline.search.binary_path.paths import binary_paths
from throughline.search.binary_path.searchers import BinaryPathSearcher, ReinforceSearcher
from throughline.search.binary_path.timing import measure_latency

__all__ = [
    "BinaryPathSearcher",
    "LatencyTable",
    "ReinforceSearcher",
    "binary_paths",
    "hardware_loss",
    "hardware_reward",
    "measure_latency",
    "reinforce_loss",
]
