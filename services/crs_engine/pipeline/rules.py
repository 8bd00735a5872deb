"""Stage 7: business rules, which have the last word over a choice. A rule is one small file and one line here.

None is in force yet. A rule that changes which content is shown must say with which probability it does so, or
training would be told a propensity that is not true; that is why it gets and returns a whole :class:`Choice`.
"""

from __future__ import annotations

from typing import ClassVar, Final, Protocol

from banditmesh.bandits.exploration.choice import Choice
from services.crs_engine.pipeline.batch import Group, Pool


class Rule(Protocol):
    """Changes choices."""

    name: ClassVar[str]

    def apply(self, group: Group, pool: Pool, choice: Choice) -> Choice:
        """The choice after the rule, of the same shape; index -1 leaves a position empty."""
        ...


RULES: Final[tuple[Rule, ...]] = ()


def apply(group: Group, pool: Pool, choice: Choice) -> Choice:
    """The choice after all rules."""
    for rule in RULES:
        choice = rule.apply(group, pool, choice)
    return choice
