"""The lab: claims run over paired seeds, and a verdict with an interval."""

from throughline.lab.checks import Beats, Check, Costs, Matches, OnAverage, Outcome, Within
from throughline.lab.claim import Arm, Claim, Log, Quote, require
from throughline.lab.config import Device
from throughline.lab.finding import find_claim
from throughline.lab.results import Judgement, Results, judge

__all__ = [
    "Arm",
    "Beats",
    "Check",
    "Claim",
    "Costs",
    "Device",
    "Judgement",
    "Log",
    "Matches",
    "OnAverage",
    "Outcome",
    "Quote",
    "Results",
    "Within",
    "find_claim",
    "judge",
    "require",
]
