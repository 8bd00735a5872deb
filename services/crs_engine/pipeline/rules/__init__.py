"""Business rules over whole lists, in force inside the draw (stage 6). A rule is one small file, one line here, and its
parameters in ``banditmesh/runtime/rule_options.py``.

Bans come first, then what gives way where it would leave nobody (quotas, pins, spread), each in the order of
``mesh.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from banditmesh.bandits.batch import Scores
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.rule_options import names
from services.crs_engine.pipeline.batch import Pool, RuleConstraint, Slate, View
from services.crs_engine.pipeline.rules.base import Draw, Rule, Sought
from services.crs_engine.pipeline.rules.blackout import Blackout
from services.crs_engine.pipeline.rules.boost import Boost, Bury
from services.crs_engine.pipeline.rules.cap_per_attribute import CapPerAttribute
from services.crs_engine.pipeline.rules.cap_per_service import CapPerService
from services.crs_engine.pipeline.rules.country import Country
from services.crs_engine.pipeline.rules.diversity import Diversity
from services.crs_engine.pipeline.rules.effects import Rebuilt
from services.crs_engine.pipeline.rules.frequency_cap import FrequencyCap
from services.crs_engine.pipeline.rules.freshness_floor import FreshnessFloor
from services.crs_engine.pipeline.rules.pin import Pin
from services.crs_engine.pipeline.rules.quota import Quota
from services.crs_engine.pipeline.rules.spread import Spread

RULES: Final[tuple[type[Rule], ...]] = (
    CapPerService,
    CapPerAttribute,
    Quota,
    Pin,
    Boost,
    Bury,
    Diversity,
    Spread,
    Blackout,
    Country,
    FrequencyCap,
    FreshnessFloor,
)
_BY_NAME: Final = {rule.name: rule for rule in RULES}
_COUNTED_ON: Final = ("quota", "pin")
"""Rules that others leave room for."""
_LEAVE_ROOM: Final = ("quota", "pin", "freshness_floor")


def enabled(placement: Placement) -> dict[str, Rule]:
    """The rules that a placement has, with their parameters, by the names that explanations give them."""
    return {
        name: _BY_NAME[rule.kind](rule.params, placement)
        for name, rule in zip(names(placement.rules), placement.rules, strict=True)
    }


def rebuilt(placement: Placement) -> Rebuilt:
    """The rules that are others where one of the placement's rules is not there: those that would leave it room."""
    named = dict(zip(names(placement.rules), placement.rules, strict=True))
    found: dict[str, dict[str, Rule]] = {}
    for name, gone in named.items():
        if gone.kind in _COUNTED_ON:
            rest = placement.model_copy(update={"rules": [each for each in placement.rules if each is not gone]})
            found[name] = {
                other: _BY_NAME[rule.kind](rule.params, rest)
                for other, rule in named.items()
                if other != name and rule.kind in _LEAVE_ROOM
            }
    return found


def sought(rules: Mapping[str, Rule], draw: Draw) -> Iterator[Sought]:
    """What the rules put onto lists of any length, so that it has to be kept where candidates are."""
    for rule in rules.values():
        if isinstance(rule, Pin | Quota | FreshnessFloor):
            yield rule.sought(draw)


def constraints(
    view: View, pool: Pool, slate: Slate, scores: Scores, rules: Mapping[str, Rule]
) -> dict[str, RuleConstraint]:
    """What the rules do to the pool, by the rule's name, in the order in which they do it."""
    if not rules:
        return {}
    draw = Draw(view, pool, slate, scores)
    found = [(name, each) for name, rule in rules.items() if (each := rule.constraint(draw)) is not None]
    return dict(sorted(found, key=lambda item: item[1].yields))
