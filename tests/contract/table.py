"""The table of the contract suite: every public part in a few lines. The parts know nothing of it."""

from tests.contract.rows import sensing

PARTS = [*sensing.PARTS]

# public names that are no parts, each with the reason
NOT_PARTS: dict[str, str] = {}
