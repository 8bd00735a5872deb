"""Business rules over whole lists, in force inside the draw (stage 6). A rule is one small file, one line here, and its
parameters in ``banditmesh/runtime/placement_options.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from banditmesh.runtime.mesh import Placement
from services.crs_engine.pipeline.batch import Pool, RuleConstraint, Slate, View
from services.crs_engine.pipeline.rules.base import Draw, Rule
from services.crs_engine.pipeline.rules.cap_per_service import CapPerService

RULES: Final[tuple[type[Rule], ...]] = (CapPerService,)


def enabled(placement: Placement) -> tuple[Rule, ...]:
    """The rules that a placement has, with their parameters."""
    return tuple(rule for kind in RULES if (rule := kind.enable(placement)) is not None)


def constraints(view: View, pool: Pool, slate: Slate, rules: Sequence[Rule]) -> dict[str, RuleConstraint]:
    """What the rules may block of the pool, by the rule's name."""
    if not rules:
        return {}
    draw = Draw(view, pool, slate)
    return {rule.name: found for rule in rules if (found := rule.constraint(draw)) is not None}
