"""Embedding tables that learn how many dimensions each group of equally frequent features deserves.

"Differentiable Neural Input Search for Recommender Systems" (arXiv 2006.04466; AutoSrh in its longer version). A soft
selection layer behind a table, one number in [0, 1] for each block of features and each dimension, is learned on the
validation loss while the table is learned on the training loss; the product of both is then cut at one threshold.
`make_searchable` puts the layer into any model with ``nn.Embedding``, `EmbeddingSizeSearch` trains both, `prune` cuts
and `compress` stores what is left.
"""

from throughline.search.embedding_size.blocks import frequency_blocks, mixed_dimensions
from throughline.search.embedding_size.compressed import MixedDimEmbedding
from throughline.search.embedding_size.conversion import make_searchable
from throughline.search.embedding_size.pruning import compress, prune
from throughline.search.embedding_size.searchable import SearchableEmbedding, selection_parameters, weight_parameters
from throughline.search.embedding_size.searcher import EmbeddingSizeSearch

__all__ = [
    "EmbeddingSizeSearch",
    "MixedDimEmbedding",
    "SearchableEmbedding",
    "compress",
    "frequency_blocks",
    "make_searchable",
    "mixed_dimensions",
    "prune",
    "selection_parameters",
    "weight_parameters",
]
