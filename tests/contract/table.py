"""The table of the contract suite: every public part in a few lines. The parts know nothing of it."""

from tests.contract.rows import continual, core, discrete, sensing

PARTS = [*core.PARTS, *continual.PARTS, *discrete.PARTS, *sensing.PARTS]

# public names that are no parts, each with the reason
NOT_PARTS: dict[str, str] = {
    "throughline.discrete.confusion.Confusion": "a NamedTuple of four tensors: what soft_confusion returns",
    "throughline.discrete.confusion_counts.Confusion": "the same",
    "throughline.discrete.confusion.Metric": "type alias: a name or a function of the counts",
    "throughline.core.sorting.Distribution": "type alias: the names of the relaxations",
    "throughline.core.sorting.check_relaxation": "argument checks: the bad inputs of all that sorts go through it",
    "throughline.core.sorting.Network": "type alias: the names of the networks",
}
