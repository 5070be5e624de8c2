"""A check for claims about what is known of some data, and only guessed of others."""

from dataclasses import dataclass

from throughline.lab.checks import Check, Measured, Outcome

__all__ = ["WhereKnown"]


@dataclass(frozen=True)
class WhereKnown:
    """A check against the known answer; where nothing is known but data, another one in its place."""

    known: Check
    otherwise: Check

    @property
    def metric(self) -> str:
        return self.known.metric

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.known.arms, *self.otherwise.arms)))

    def judge(self, results: Measured) -> Outcome:
        known, other = (
            any(results.values(check.metric, arm) for arm in check.arms) for check in (self.known, self.otherwise)
        )
        return (self.otherwise if other and not known else self.known).judge(results)
