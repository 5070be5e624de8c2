"""`throughline.core.checks` has no rows: it is what the rows of others see of a wrong argument."""

from tests.contract.part import Part

PARTS: list[Part] = []
NOT_PARTS = {
    f"throughline.core.checks.{name}": "an argument check: the foreign inputs of all parts go through it"
    for name in ("check_floating", "check_tensor")
}
