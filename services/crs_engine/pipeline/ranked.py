"""The recommendation cache: what a user's candidates were scored, kept in Redis and read with the rest of the user.

What is kept is not the list but what it is drawn from: the candidates with their scores. So filters, rules and the draw
work as ever, each request draws anew, and its propensities are exact. Nothing is ever deleted: an entry says what it
was made of (the count of the user's target actions, the model, the placement's configuration, what the request said,
the time), and is passed over when that is no longer so, or when one of its contents went away.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditmesh.bandits import hashing, segments
from banditmesh.bandits.batch import Scores
from banditmesh.bandits.exploration.constraint import shifted
from banditmesh.runtime import keys
from services.crs_engine.catalog import Catalog
from services.crs_engine.compiled_placement import CompiledPlacement
from services.crs_engine.models import LoadedModel
from services.crs_engine.pipeline.batch import Group, Pool, Ranked, Round, Slate, Users, UserValues
from services.crs_engine.pipeline.rules import sought
from services.crs_engine.pipeline.rules.base import Draw, Rule

FORMAT: Final = 2
_SPARE: Final = 2
"""Of what rules put onto lists so many times as many are kept, for one may go away."""
_HEAD: Final = struct.Struct("<BQQQqIIIIH")
"""Format, configuration, what the request said, variant, when the model was published (ms), its version, the version
beneath it, target actions of the user, when it was made (s), candidates."""


def read(
    group: Group,
    users: Users,
    values: UserValues,
    models: Mapping[str, LoadedModel],
    catalog: Catalog,
    now_s: float,
) -> Ranked | None:
    """The entries of a group's users that hold; None where the placement has no cache, or Redis is away."""
    placement, cache = group.placement, group.placement.config.cache
    if cache is None or not values.reached:
        return None
    width = _width(placement)
    hits, versions = np.zeros(len(group), np.bool_), np.zeros(len(group), np.int64)
    targets, bodies, results = users.records.count("targets").tolist(), [b""] * len(group), Counter[str]()
    for at, row in enumerate(values.rows):
        value = row[-3]
        variant = placement.variants[int(group.variants[at])]
        asked = _said_in(group, at)
        why, body = _checked(value, placement, asked, variant.name, models[variant.model], targets[at], now_s)
        if why == "hit" and not _all_there(_columns(body, placement)[0], catalog, now_s):
            why = "content"
        results[why] += 1
        if why == "hit" and value is not None:
            hits[at], versions[at] = True, _HEAD.unpack_from(value)[5]
            bodies[at] = body
    counts = np.array([len(each) // width for each in bodies], np.int64)
    offsets = np.zeros(len(group) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    parts = [_columns(each, placement) for each in bodies if each]
    contents, sources, mean, deviation, said = (
        (np.concatenate([part[column] for part in parts]) for column in range(5)) if parts else _columns(b"", placement)
    )
    services, no_rows = placement.service_keys[sources], np.zeros(0, np.int64)
    pool = Pool(offsets, contents, services, sources, no_rows, said if placement.uses_said else None)
    return Ranked(hits, pool, Scores(mean, deviation), versions, results)


def _said_in(group: Group, at: int) -> int:
    """A digest of what the request of the user at that place said that scores depend on; 0: nothing."""
    context = group.requests[at].context
    said = [(name, context[name]) for name in group.placement.requested if name in context]
    return hashing.key64(json.dumps(said)) if said else 0


def _checked(
    value: bytes | None,
    placement: CompiledPlacement,
    said: int,
    variant: str,
    model: LoadedModel,
    targets: int,
    now_s: float,
) -> tuple[str, bytes]:
    """Whether an entry holds as far as its head says, else why not; and what is behind the head."""
    cache = placement.config.cache
    if value is None or cache is None:
        return "absent", b""
    if len(value) < _HEAD.size or value[0] != FORMAT:
        return "placement", b""
    _, configuration, told, whose, published_ms, version, beneath, was, made_s, n = _HEAD.unpack_from(value)
    body = value[_HEAD.size :]
    if configuration != placement.cache_digest or len(body) != n * _width(placement):
        return "placement", b""
    if told != said:
        return "context", b""
    if whose != hashing.key64(variant):
        return "model", b""
    apart_s = abs(published_ms - model.published_at_ms) / 1000
    same = version == model.version and beneath == model.beneath
    if not same and (apart_s > cache.model_slack or beneath != model.beneath or not cache.model_slack):
        return "model", b""
    if was != targets & 0xFFFFFFFF:
        return "target", b""
    return ("age", b"") if not -60 <= now_s - made_s <= cache.max_age else ("hit", body)


def _columns(
    body: bytes, placement: CompiledPlacement
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Content keys, sources, means, deviations, and what the sources said (float32[n, 2], or [0, 2])."""
    n = len(body) // _width(placement)
    return (
        np.frombuffer(body, "<u8", n),
        np.frombuffer(body, "<u2", n, 16 * n).astype(np.int64),
        np.frombuffer(body, "<f4", n, 8 * n),
        np.frombuffer(body, "<f4", n, 12 * n),
        np.frombuffer(body, "<f4", 2 * n * placement.uses_said, 18 * n).reshape(-1, 2),
    )


def _width(placement: CompiledPlacement) -> int:
    """Bytes of a candidate."""
    return 26 if placement.uses_said else 18


def _all_there(contents: NDArray[np.uint64], catalog: Catalog, now_s: float) -> bool:
    """Whether every content of an entry can still be shown. One that the catalog does not have has gone, or this engine
    has just begun: either way the list is made anew."""
    rows = catalog.find(contents)
    return bool((rows >= 0).all() and not catalog.flags(rows).any() and (catalog.expires_s(rows) > now_s).all())


def entries(slate: Slate, rules: Mapping[str, Rule], now_s: float) -> Iterator[tuple[str, bytes]]:
    """Key and value for each user whose candidates were scored for this answer: as many as are kept, those first that
    lists will need. ``rules``: the placement's."""
    group, placement = slate.group, slate.group.placement
    cache, drawn = placement.config.cache, slate.rounds[0] if slate.rounds else None
    if cache is None or drawn is None or not slate.users.reached or not drawn.models:
        return
    targets = slate.users.records.count("targets").tolist()
    usable, order = drawn.scores.usable(), _by_need(slate, drawn, rules)
    for at in np.flatnonzero(segments.lengths(drawn.pool.offsets)).tolist():
        span = order[drawn.pool.offsets[at] : drawn.pool.offsets[at + 1]]
        best = span[usable[span]][: cache.contents]
        variant = placement.variants[int(group.variants[at])]
        model = drawn.models[variant.model]
        head = _HEAD.pack(
            FORMAT,
            placement.cache_digest,
            _said_in(group, at),
            hashing.key64(variant.name),
            model.published_at_ms,
            model.version,
            model.beneath,
            targets[at] & 0xFFFFFFFF,
            int(now_s),
            len(best),
        )
        yield cache_key(placement, group.requests[at].user_id), head + _packed(drawn, best, placement)


def _by_need(slate: Slate, drawn: Round, rules: Mapping[str, Rule]) -> NDArray[np.int64]:
    """``int64[n]``: places in the pool, user by user: first what was shown and what rules put onto lists whatever its
    score is, then the others by their scores as rules move them, at last what a rule bars now."""
    pool, none = drawn.pool, drawn.choice.chosen[:, :0]
    mean = shifted(drawn.scores, list(drawn.constraints.values()), none).mean
    barred, everybody = np.zeros(len(pool), np.bool_), np.ones(len(pool), np.bool_)
    for constraint in drawn.constraints.values():
        if not constraint.yields and (blocked := constraint.blocks(none, everybody)) is not None:
            barred |= blocked
    needed = np.zeros(len(pool), np.bool_)
    needed[drawn.shown[2]] = True
    order = np.lexsort((-mean, pool.owners))
    for candidates, most in sought(rules, Draw(drawn.view, pool, Slate.empty(slate.group, slate.users), drawn.scores)):
        found = order[(candidates & ~barred)[order]]
        owners = pool.owners[found]
        needed[found[np.arange(len(found)) - np.searchsorted(owners, owners) < _SPARE * most]] = True
    return np.lexsort((-mean, barred, ~needed, pool.owners))


def _packed(drawn: Round, at: NDArray[np.int64], placement: CompiledPlacement) -> bytes:
    pool = drawn.pool
    parts = [
        pool.contents[at].astype("<u8").tobytes(),
        drawn.scores.mean[at].astype("<f4").tobytes(),
        drawn.scores.deviation[at].astype("<f4").tobytes(),
        pool.sources[at].astype("<u2").tobytes(),
    ]
    if placement.uses_said:
        said = np.zeros((len(at), 2)) if pool.said is None else pool.said[at]
        parts.append(said.astype("<f4").tobytes())
    return b"".join(parts)


def cache_key(placement: CompiledPlacement, user_id: str) -> str:
    """Where a user's entry is, beside the user's other keys."""
    return keys.ranked(keys.user_tag(user_id), placement.name)
