"""What a ``mesh.yaml`` says that is valid and hardly meant: parts that have no effect together, or not the one that
they seem to have. ``banditmesh check`` prints it; nothing is refused for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from banditmesh.bandits.durations import written
from banditmesh.runtime.access_table import APP, OPERATOR, SERVICE
from banditmesh.runtime.mesh import Mesh
from banditmesh.runtime.placement import Placement
from banditmesh.runtime.retrieval_options import EVERYBODYS

Doubt = tuple[str, str]
"""The key, and what is doubtful about it."""
_NEEDS: Final = {"target_rate": "rewards.targets", "dwell_rate": "rewards.dwell"}
SERVER_DEADLINE_S: Final = 10.0
_WINDOW_S: Final = 0.2
_TOO_FAST: Final = "nobody reacts so fast: all that is shown counts as ignored"
_SHORTEST: Final = (
    ("join", "window", _WINDOW_S, _TOO_FAST),
    ("token", "max_age", 0.5, "no event comes so fast: all would be refused"),
    ("importing", "mapping_ttl", 60.0, "candidates expire before the next import"),
    ("importing", "content_ttl", 60.0, "contents expire before they are confirmed"),
    ("importing", "lease", 1.0, "one slow round trip would give every job to another importer"),
    ("importing", "provider_timeout", 0.05, "hardly a provider answers so fast, and imports fail"),
    ("engine", "redis_timeout", 0.002, "hardly a Redis answers so fast: the fallback would be shown"),
    ("learning", "snapshot_every", 0.1, "more would be published than any engine loads"),
    ("engine", "model_poll", 0.05, "every engine would ask the store without a pause"),
    ("join", "tick_every", 0.05, "most records of the topics would be ticks"),
)
"""Section, key, what is hardly meant to be less (seconds), and why: a slip of the unit, ms for s."""


def doubts(mesh: Mesh) -> list[Doubt]:
    """Return all doubts, in the order of the file."""
    found = [*_services(mesh), *_times(mesh), *_archive(mesh), *_vectors(mesh), *_access(mesh)]
    for name, placement in mesh.placements.items():
        own = [*_placement(placement), *_rules(placement), *_cache(placement, mesh.learning.snapshot_every)]
        found += ((f"placements.{name}.{key}", text) for key, text in own)
    return found


def _services(mesh: Mesh) -> Iterator[Doubt]:
    shown = {source for placement in mesh.placements.values() for source in placement.sources}
    retrieved = {
        service
        for placement in mesh.placements.values()
        if any(placement.retrieve_of(each) for each in placement.experiment.variants)
        or {*EVERYBODYS} & {*placement.sources, *placement.fallback}
        for service in placement.services(mesh.services)
    }
    for name, service in mesh.services.items():
        key = f"services.{name}"
        unused = [logic for logic in service.logics if f"{name}/{logic}" not in shown]
        if unused and name not in retrieved:
            yield f"{key}.logics", f"no placement shows {name}/{unused[0]}: name it in sources, or leave it out"
        if service.refresh_every is None:
            continue
        if service.provider is None:
            yield f"{key}.refresh_every", "has no effect without a provider"
        if service.refresh_every >= mesh.importing.content_ttl:
            yield (
                f"{key}.refresh_every",
                f"contents expire after importing.content_ttl, {written(mesh.importing.content_ttl)}, before they are "
                "refreshed; refresh more often",
            )


def _times(mesh: Mesh) -> Iterator[Doubt]:
    importing, join = mesh.importing, mesh.join
    for section, key, least_s, why in _SHORTEST:
        if (given_s := getattr(getattr(mesh, section), key)) < least_s:
            yield f"{section}.{key}", f"is {written(given_s)}, and {why}"
    for name, placement in mesh.placements.items():
        if placement.join_window is not None and placement.join_window < _WINDOW_S:
            yield f"placements.{name}.join_window", f"is {written(placement.join_window)}, and {_TOO_FAST}"
    refreshed = all(service.refresh_every for service in mesh.services.values())
    if importing.content_ttl < importing.mapping_ttl and not refreshed:
        yield (
            "importing.content_ttl",
            f"the contents of a mapping expire before it, which lives for {written(importing.mapping_ttl)}; let "
            "content_ttl be longer, or services have refresh_every",
        )
    if importing.allowed_uris == []:
        yield "importing.allowed_uris", "is empty: nothing may be imported"
    longest = max(mesh.join_window_s(name) for name in mesh.placements)
    if mesh.token.max_age < longest:
        yield (
            "token.max_age",
            f"events later than {written(mesh.token.max_age)} are refused, though the join waits for them for "
            f"{written(longest)}; let it be as long",
        )
    if mesh.learning.stall_after <= join.tick_every:
        yield (
            "learning.stall_after",
            f"every idle partition is given up between two ticks, {written(join.tick_every)} apart, and learning has "
            "no fixed order then; let it be several ticks",
        )
    if mesh.engine.redis_timeout >= SERVER_DEADLINE_S:
        yield "engine.redis_timeout", f"a call ends after {SERVER_DEADLINE_S:g}s: the fallback would never be shown"


def _archive(mesh: Mesh) -> Iterator[Doubt]:
    archive = mesh.archive
    if archive.enabled and archive.keep is not None and archive.keep <= max(archive.flush_every, 3600.0):
        yield "archive.keep", "hours would be deleted while they are being written; let it be days"
    if archive.enabled:
        return
    for name, placement in mesh.placements.items():
        if placement.decisions.sample:
            yield f"placements.{name}.decisions.sample", "is archived by nobody: archive.enabled is false"
    if archive.keep is not None:
        yield "archive.keep", "has no effect: archive.enabled is false"


def _vectors(mesh: Mesh) -> Iterator[Doubt]:
    if mesh.vectors is None:
        return
    by_rules = any(
        rule.diversity is not None and rule.diversity.vectors
        for placement in mesh.placements.values()
        for rule in placement.rules
    )
    if not mesh.densities() and not by_rules:
        yield "vectors", "nothing looks at them: no placement has retrieve.density or a diversity by vectors"
    if mesh.vectors.embedding == "given" and not any(service.provider for service in mesh.services.values()):
        yield "vectors.embedding", "given: no service has a provider that could give one"


def _access(mesh: Mesh) -> Iterator[Doubt]:
    if mesh.access is None:
        return
    roles = {role for caller in mesh.access.callers.values() for role in caller.roles}
    if OPERATOR in roles:
        return
    yield "access.callers", "nobody is operator: no snapshot can be rolled back and no variant resumed"
    if APP not in roles:
        yield "access.callers", "nobody is app: no content can be selected and no event tracked"
    for name in mesh.services:
        if f"{SERVICE}:{name}" not in roles:
            yield "access.callers", f"nobody is {SERVICE}:{name}: no mapping of it can be notified"


def _placement(placement: Placement) -> Iterator[Doubt]:
    experiment, rewards = placement.experiment, placement.rewards
    variants = experiment.variants
    for name, variant in variants.items():
        if variant.weight == 0 and name == experiment.control_name:
            yield (
                f"experiment.variants.{name}.weight",
                "is 0 and this is the control: there is nobody to compare the others with",
            )
        elif variant.weight == 0:
            yield f"experiment.variants.{name}.weight", "is 0: nobody is in this variant"
    if len(variants) == 1:
        alone = "there is one variant, and nothing to compare it with"
        said = experiment.model_fields_set & {"guardrails", "aa", "starts"}
        for key in sorted(said):
            yield f"experiment.{key}", f"has no effect: {alone}"
    for metric in experiment.guardrails:
        needs = _NEEDS.get(metric)
        if needs and not (rewards.targets if metric == "target_rate" else rewards.dwell):
            yield f"experiment.guardrails.{metric}", f"never differs from 0 without {needs}"
    if placement.retrieve is not None and all(each.retrieve is not None for each in variants.values()):
        yield "retrieve", "has no effect: every variant has its own"
    if rewards.click <= rewards.none and not rewards.targets:
        yield "rewards.click", f"earns no more than no reaction, {rewards.none:g}: what nobody clicks would be shown"
    if rewards.mute > rewards.none:
        yield "rewards.mute", f"earns more than no reaction, {rewards.none:g}: what annoys would be shown"


def _rules(placement: Placement) -> Iterator[Doubt]:
    """Rules that can hold together, and hardly ever do."""
    rules = placement.rules
    caps = [rule.cap_per_service.most for rule in rules if rule.cap_per_service is not None]
    raised = [rule.boost.of for rule in rules if rule.boost is not None]
    for at, rule in enumerate(rules):
        key = f"rules.{at}.{rule.kind}"
        if rule.pin is not None and caps and rule.pin.position >= min(caps) and (owner := rule.pin.of.owner):
            yield (
                f"{key}.position",
                f"cap_per_service bars it where {min(caps)} of {owner} stand above it; pin it further up, or raise "
                "the cap",
            )
        if rule.bury is not None and rule.bury.of in raised:
            yield f"{key}.of", f"{rule.bury.of.words()} are raised by a boost as well: the two take back each other"
        dark = rule.blackout
        if dark is not None and dark.of is None and dark.minutes == (0, 24 * 60) and len({*dark.weekdays}) == 7:
            yield f"{key}.hours", "are all hours of all days: nothing is ever shown"


def _cache(placement: Placement, snapshot_every_s: float) -> Iterator[Doubt]:
    cache = placement.cache
    if cache is not None and cache.model_slack < snapshot_every_s < cache.max_age:
        yield (
            "cache.model_slack",
            f"each snapshot is another model, one every {written(snapshot_every_s)} (learning.snapshot_every), and "
            "ends the entries that are older than the slack; let it be longer",
        )
