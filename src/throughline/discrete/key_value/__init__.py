"""A head that learns on without forgetting: an embedding picks one (key, value) pair in each of many small codebooks.

"Discrete Key-Value Bottleneck" (arXiv 2207.11240).
"""

from throughline.discrete.key_value.bottleneck import CodebookVote, KeyValueBottleneck

__all__ = ["CodebookVote", "KeyValueBottleneck"]
