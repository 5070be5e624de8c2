"""The contract, check by check; each raises when a part breaks it. PyTorch's OpInfo and scikit-learn's check_estimator
are the models."""

from collections.abc import Callable

from tests.contract.boundaries import check_empty, check_errors, check_foreign
from tests.contract.graphs import check_batch, check_compile, check_fullgraph, check_transforms
from tests.contract.numerics import (
    check_autocast,
    check_device,
    check_dtype,
    check_extremes,
    check_gradcheck,
    check_nan,
    check_reference,
)
from tests.contract.part import Part
from tests.contract.replicas import check_ddp, trains
from tests.contract.state import check_deepcopy, check_seed, check_state, check_untouched

__all__ = ["CHECKS", "Check", "checks"]

Check = Callable[[Part], None]
ESTIMATOR_CHECKS: dict[str, Check] = {
    "seed": check_seed,
    "untouched": check_untouched,
    "errors": check_errors,
    "autocast": check_autocast,
    "deepcopy": check_deepcopy,
}
CHECKS: dict[str, Check] = ESTIMATOR_CHECKS | {
    "gradcheck": check_gradcheck,
    "extremes": check_extremes,
    "batch": check_batch,
    "dtype": check_dtype,
    "device": check_device,
    "state": check_state,
    "fullgraph": check_fullgraph,
    "transforms": check_transforms,
    "nan": check_nan,
    "empty": check_empty,
    "foreign": check_foreign,
}


def checks(part: Part) -> dict[str, Check]:
    """The checks that a part is put through, by name."""
    if part.is_estimator:
        return ESTIMATOR_CHECKS
    found = dict(CHECKS)
    if not part.is_module and part.holder is None:
        del found["deepcopy"]  # a function holds nothing
    if part.reference is not None:
        found["reference"] = check_reference
    if "fullgraph" in part.skips:  # a single graph with the same answers says all that compile would
        found["compile"] = check_compile
    if trains(part):
        found["ddp"] = check_ddp
    return found
