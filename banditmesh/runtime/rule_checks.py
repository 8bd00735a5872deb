"""Which rules of a placement cannot hold together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from banditmesh.runtime.rule_options import Quota, Rule
from banditmesh.runtime.validation import suggestion
from banditmesh.runtime.wrong_keys import WrongKeys


def contradictions(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Rules that cannot hold together: the key in ``rules``, and what is wrong with it."""
    pins: dict[int, int] = {}
    for at, rule in enumerate(rules):
        if rule.pin is None:
            continue
        position = rule.pin.position
        if position in pins:
            yield f"{at}.pin.position", f"{position} is pinned by rule {pins[position]} already; one pin a position"
        pins.setdefault(position, at)
        if rule.pin.of.content is not None and any(
            rules[other].pin.of == rule.pin.of  # type: ignore[union-attr]
            for other in pins.values()
            if other != at
        ):
            yield f"{at}.pin.of.content", f"{rule.pin.of.content!r} is pinned at another position already"
    yield from _too_many(rules)
    for at, rule in enumerate(rules):
        if rule.quota is not None:
            yield from _capped_quota(at, rule.quota, rules)


def _too_many(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Quotas and pins that together want more positions than there are. A pin that is in a quota wants none of its
    own."""
    pins = [rule.pin for rule in rules if rule.pin is not None]
    wanted: list[tuple[int, int, str]] = []  # first, at_least, key
    own: dict[str, set[int]] = {}  # by key, the positions whose pins are in the quota
    for at, rule in enumerate(rules):
        params, key = rule.quota or rule.freshness_floor, f"{at}.{rule.kind}.at_least"
        if params is not None and params.first is not None and params.at_least is not None:
            wanted.append((params.first, params.at_least, key))
            inside = [] if rule.quota is None else [pin for pin in pins if rule.quota.of.has_all(pin.of)]
            own[key] = {pin.position for pin in inside if pin.position < params.first}
    for first, at_least, key in wanted:
        within = [(other, own[each]) for until, other, each in wanted if until <= first]
        total = sum(max(other, len(filled)) for other, filled in within)
        apart = {pin.position for pin in pins if pin.position < first}.difference(*(filled for _, filled in within))
        if at_least > first:
            yield key, f"{at_least} of the first {first} positions cannot be"
        elif total + len(apart) > first and key == max(each for until, _, each in wanted if until <= first):
            with_pins = f" and {len(apart)} pins" if apart else ""
            yield (
                key,
                f"the quotas{with_pins} within the first {first} positions want {total + len(apart)} of them; "
                "lower at_least, or raise first",
            )


def _capped_quota(at: int, quota: Quota, rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    for rule in rules:
        cap = rule.cap_per_service
        if cap is not None and quota.of.service is not None and quota.at_least > cap.most:
            yield f"{at}.quota.at_least", f"{quota.at_least} of {quota.of.service}: cap_per_service allows {cap.most}"
        per = rule.cap_per_attribute
        if per is None or per.attribute != quota.of.attribute:
            continue
        if quota.at_least > per.most * len(quota.of.values):
            yield (
                f"{at}.quota.at_least",
                f"{quota.at_least} {quota.of.words()}: cap_per_attribute allows {per.most} of each value",
            )


def check_rules(
    rules: Sequence[Rule],
    services: Collection[str],
    *,
    vectors: bool = False,
    meant: Callable[[str, Collection[str]], str] = suggestion,
) -> None:
    """Refuse what cannot work. ``services``: those that the placement shows; ``vectors``: whether contents have some;
    ``meant``: what to say of a name that is none of the services.

    Raises:
        WrongKeys: With the paths inside ``rules``.
    """
    wrong = dict(contradictions(rules))
    for at, rule in enumerate(rules):
        if rule.diversity is not None and rule.diversity.vectors and not vectors:
            wrong[f"{at}.diversity.vectors"] = "the mesh has no section `vectors`, so contents have none"
        of = getattr(rule.params, "of", None)
        if of is None:
            continue
        path = f"{at}.{rule.kind}.of"
        if of.service is not None and of.service not in services:
            wrong[f"{path}.service"] = (
                f"{of.service!r} is no service that the placement shows{meant(of.service, services)}"
            )
        owner = (of.content or "").split("/", 1)[0]
        if of.content is not None and owner not in services:
            wrong[f"{path}.content"] = f"{owner!r} is no service that the placement shows{meant(owner, services)}"
    if wrong:
        raise WrongKeys(wrong)
