"""What an architecture is worth: its test accuracy after training from scratch, looked up where that is known."""

import math
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.cells.setting import Decisions, Setting
from throughline.claims.shared.cells.training import accuracies
from throughline.search.tabular import ArchitectureTable

__all__ = ["TABLE", "TABULATED", "table_for", "worth"]

TABLE = Path(__file__).with_name("mnist1d.csv")
TABULATED = CellConfig()  # what the table was made with
DECISIVE = (
    "dataset",
    "space",
    "samples",
    "retrainings",
    "benchmark",
    "data",
)  # of the fields, beside those of the training


def worth(setting: Setting, decisions: Decisions) -> dict[str, float]:
    """Test accuracy, the mean over retrainings, and how many edges hold a convolution; where the whole space is known,
    rank and regret in it too.

    The table of MNIST-1D is a cache: what it lacks is trained, as everything is in other settings.
    """
    config = setting.config
    found = {"convolutions": float(sum("conv" in (option or "") for option in decisions.values()))}
    table = table_for(config)
    if table is not None and decisions in table:
        found |= {"test_accuracy": table.score(decisions)}
    else:
        found |= {"test_accuracy": trained(setting, decisions)}
    if table is not None:
        every = [table.score(dict(zip(table.options, key, strict=True))) for key in table.scores]
        own = found["test_accuracy"]
        found |= {"rank": 1.0 + sum(score > own for score in every), "regret": max(0.0, max(every) - own)}
    return found


def trained(setting: Setting, decisions: Decisions) -> float:
    """Mean test accuracy over the retrainings, from seeds 0, 1, …."""
    config = setting.config
    if config.space != "cells" or config.benchmark:
        from throughline.claims.shared.cells import paper  # with what only the paper's scale needs

        return paper.looked_up(config, decisions) if config.benchmark else paper.trained(setting, decisions)
    build = partial(setting.final, decisions=dict(decisions))
    found = accuracies(build, setting.whole(), setting.test, config, range(config.retrainings))
    return math.fsum(found) / len(found)


def table_for(config: CellConfig) -> ArchitectureTable | None:
    """The table of all architectures, where it holds for a setting."""
    decisive = [f.name for f in fields(CellConfig) if f.name in DECISIVE or f.name.startswith("final_")]
    if any(getattr(config, name) != getattr(TABULATED, name) for name in decisive):
        return None
    return _table()


@cache
def _table() -> ArchitectureTable | None:
    return ArchitectureTable.load(TABLE) if TABLE.exists() else None
