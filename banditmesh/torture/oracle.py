"""What each example must be, by the brokers' times alone, and everything in which what stands there differs.

A reaction counts for its impression iff its broker time is at most the impression's plus the placement's window; of
several copies of one the first by offset; of several kinds the strongest by the placement's precedence. What is later
belongs into ``late-reactions``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from banditmesh.torture.evidence import Evidence, Found, Key, Reacted, Shown
from banditmesh.torture.rules import Rules

MISSING = "missing"
DUPLICATED = "duplicated"
UNEXPECTED = "unexpected"
OUTCOME = "wrong outcome"
REWARD = "wrong reward"
TIMES = "wrong times"
REACTION = "reaction neither joined nor late"
ORDER = "order per user broken"
TWICE = "late reaction twice"
LOST = "acknowledged and not in the log"
SILENT = "unreadable and no dead letter"
SELECT = "select failed"
EVENT = "event refused"
SILENCE = "loss not said"
LEARNED = "learned otherwise than undisturbed"
KINDS = (
    MISSING,
    DUPLICATED,
    UNEXPECTED,
    OUTCOME,
    REWARD,
    TIMES,
    REACTION,
    ORDER,
    TWICE,
    LOST,
    SILENT,
    SELECT,
    EVENT,
    SILENCE,
    LEARNED,
)
"""Every kind of finding; the report has a row for each, so that a zero is seen to be counted."""
_REWARD_TOLERANCE = 1e-6
"""Relative: a reward travels as a 32-bit float."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. ``what`` names it: an impression's id in hexadecimal, a record, an error."""

    kind: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What an example must say."""

    outcome: str
    target: str
    reward: float
    reaction_time_ms: int
    reactions: frozenset[str]


def expected(shown: Shown, reacted: Mapping[Key, Reacted], rules: Rules) -> Expected:
    """The example of an impression, given the first copies of its reactions."""
    due_ms = shown.time_ms + rules.window_ms
    counted = {key: each for key, each in reacted.items() if each.time_ms <= due_ms}
    kinds = frozenset(kind for kind, _ in counted)
    for kind in rules.precedence:
        parts = {part: each for (of, part), each in counted.items() if of == kind}
        earned = {
            part: pay * each.amount for part, each in parts.items() if (pay := _pay(rules, kind, part)) is not None
        }
        if not earned:
            continue
        if kind == "dwell":
            part, reward, time_ms = "", sum(earned.values()), max(parts[part].time_ms for part in earned)
        else:
            part = min(earned, key=lambda name: (-earned[name], name))
            reward, time_ms = earned[part], parts[part].time_ms
        limit = rules.limit
        return Expected(kind, part, min(max(reward, -limit), limit), time_ms, kinds)
    return Expected("none", "", rules.none, 0, kinds)


def _pay(rules: Rules, kind: str, part: str) -> float | None:
    if kind == "target":
        return rules.targets.get(part)
    pay: float | None = getattr(rules, kind)
    return pay


def judge(
    evidence: Evidence, rules: Mapping[str, Rules], half_lost: Collection[bytes] = frozenset()
) -> Iterator[Finding]:
    """Everything that is not as it must be in what was read. Of impressions that are ``half_lost`` it is only asked
    that they are there once."""
    for identity, shown in evidence.shown.items():
        found = evidence.found.get(identity, [])
        if not found:
            yield Finding(MISSING, identity.hex(), f"impressions {shown.partition}@{shown.offset} has no example")
            continue
        if len(found) > 1:
            where = ", ".join(f"{each.partition}@{each.offset}" for each in found)
            yield Finding(DUPLICATED, identity.hex(), f"{len(found)} examples: {where}")
        if identity in half_lost:
            continue
        placed = rules[shown.placement]
        wanted = expected(shown, evidence.reacted.get(identity, {}), placed)
        for each in found:
            yield from _compare(identity, shown, each, wanted)
        yield from _unaccounted(evidence, identity, shown, placed)
    for identity, found in evidence.found.items():
        if identity not in evidence.shown:
            yield Finding(UNEXPECTED, identity.hex(), f"an example at {found[0].partition}@{found[0].offset}")
    yield from _disorder(evidence)
    yield from _twice_late(evidence)
    for record in evidence.unreadable:
        if record not in evidence.letters:
            yield Finding(SILENT, "{} {}@{}".format(*record), "is no message of its topic, and nobody says so")


def _compare(identity: bytes, shown: Shown, found: Found, wanted: Expected) -> Iterator[Finding]:
    name = identity.hex()
    is_, must = (found.outcome, found.target), (wanted.outcome, wanted.target)
    if is_ != must or frozenset(found.reactions) != wanted.reactions:
        yield Finding(
            OUTCOME,
            name,
            f"is {is_} of {sorted(found.reactions)}, must be {must} of {sorted(wanted.reactions)}",
        )
    if not math.isclose(found.reward, wanted.reward, rel_tol=_REWARD_TOLERANCE, abs_tol=_REWARD_TOLERANCE):
        yield Finding(REWARD, name, f"is {found.reward:g}, must be {wanted.reward:g}")
    at = (found.impression_time_ms, found.reaction_time_ms)
    if at != (shown.time_ms, wanted.reaction_time_ms):
        yield Finding(TIMES, name, f"are {at}, must be {(shown.time_ms, wanted.reaction_time_ms)}")


def _unaccounted(evidence: Evidence, identity: bytes, shown: Shown, rules: Rules) -> Iterator[Finding]:
    joined = {kind for each in evidence.found[identity] for kind in each.reactions}
    for key, reacted in evidence.reacted.get(identity, {}).items():
        in_time = reacted.time_ms <= shown.time_ms + rules.window_ms
        if (in_time and key[0] not in joined) or (not in_time and (identity, key) not in evidence.late):
            after_ms = reacted.time_ms - shown.time_ms
            yield Finding(REACTION, f"{identity.hex()} {':'.join(key)}", f"it came {after_ms} ms after its impression")


def _disorder(evidence: Evidence) -> Iterator[Finding]:
    """Examples of a user stand in one partition, in the order of their impressions."""
    of_user: dict[str, list[Found]] = defaultdict(list)
    for found in evidence.found.values():
        for each in found:
            of_user[each.user].append(each)
    for user, examples in of_user.items():
        if len({each.partition for each in examples}) > 1:
            yield Finding(ORDER, user, "examples in several partitions")
        examples.sort(key=lambda each: each.offset)
        for before, after in pairwise(examples):
            same_log = before.source[:2] == after.source[:2]
            if same_log and after.source[2] < before.source[2]:
                yield Finding(ORDER, user, f"impression {after.source[2]} stands behind {before.source[2]}")


def not_in_the_log(evidence: Evidence, acknowledged: Iterable[tuple[bytes, Key | None]]) -> Iterator[Finding]:
    """What the tracker has acknowledged and nobody finds: an impression's id, with the key of a reaction to it."""
    for identity, key in acknowledged:
        if key is None and identity not in evidence.shown:
            yield Finding(LOST, identity.hex(), "the impression")
        if key is not None and key not in evidence.reacted.get(identity, {}):
            yield Finding(LOST, f"{identity.hex()} {':'.join(key)}", "the reaction")


def _twice_late(evidence: Evidence) -> Iterator[Finding]:
    for (identity, key), times in evidence.late.items():
        if times > 1:
            yield Finding(TWICE, f"{identity.hex()} {':'.join(key)}", f"{times} times")


def count(findings: Iterable[Finding], kinds: Iterable[str] = KINDS) -> dict[str, int]:
    """How many there are of each kind, zeros too."""
    counted = Counter(each.kind for each in findings)
    return {kind: counted[kind] for kind in kinds}
