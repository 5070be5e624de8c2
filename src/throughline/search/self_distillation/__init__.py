"""Earlier states of a network teach the present one, and how sharp the loss around it is.

"Improving Differentiable Architecture Search via Self-Distillation" (arXiv 2302.05629, Neural Networks 2023). While a
supernet is searched, its loss becomes sharp around it, and the discrete network that is read from it is much worse than
the supernet. `VotingTeachers` keeps its last few states, whose mean prediction the present one is drawn to by
`distillation_loss`; `SelfDistillationSearcher` does so inside of a search, and `sharpness` and `dominant_eigenvalue`
measure what it is for. Teachers and measures work on every classifier.
"""

from throughline.search.self_distillation.curvature import dominant_eigenvalue, sharpness
from throughline.search.self_distillation.losses import distillation_loss, vote
from throughline.search.self_distillation.searcher import SelfDistillationSearcher
from throughline.search.self_distillation.teachers import VotingTeachers

__all__ = [
    "SelfDistillationSearcher",
    "VotingTeachers",
    "distillation_loss",
    "dominant_eigenvalue",
    "sharpness",
    "vote",
]
