"""What a rule is, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Pool, RuleConstraint, Slate, View


@dataclass(frozen=True, eq=False)
class Draw:
    """A draw that is about to be made.

    Attributes:
        view: All that was proposed, with the catalog, the users and the time.
        pool: The candidates that the filters kept: what is drawn from.
        slate: The lists so far; a draw fills their open positions from the first one on.
    """

    view: View
    pool: Pool
    slate: Slate


class Rule(Protocol):
    """Says which candidate must not stand at which position of a list, given what stands before it.

    It works inside the draw: the exploration renormalises over what a rule leaves, so propensities stay exact. What
    does not depend on the rest of the list is a filter's business.
    """

    name: ClassVar[str]
    """As the section ``rules`` of a placement calls it."""

    @classmethod
    def enable(cls, placement: Placement) -> Self | None:
        """The rule with the parameters that the placement gives it; None where the placement does not have it."""
        ...

    def constraint(self, draw: Draw) -> RuleConstraint | None:
        """The rule applied to these candidates; None: it cannot block any of them."""
        ...
