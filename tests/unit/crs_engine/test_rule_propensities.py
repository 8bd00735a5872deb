"""Under each rule: what tokens say of a position's chances is how often it comes, given what stands above it."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from tests.support.engine_batch import Bench, decisions, run
from tests.support.engine_world import MESH
from tests.support.fixed_models import models

USERS, COUNT = 1500, 3
SOFT = "explore: {softmax: {temperature: 0.5, floor: 0.1}}"
RULES = [
    "cap_per_service: {most: 1}",
    "cap_per_attribute: {attribute: genre, most: 1}",
    "quota: {of: {service: weather}, at_least: 1, first: 2}",
    "pin: {of: {attribute: label, values: [own]}, position: 1}",
    "boost: {of: {attribute: label, values: [own]}, by: 0.4}",
    "bury: {of: {content: comics/b}, by: 0.4}",
    "diversity: {attribute: genre, penalty: 0.5}",
    "spread: {attribute: genre, apart: 2}",
    "blackout: {of: {content: comics/a}, hours: 00:00-24:00}",
    "country: {attribute: countries}",
    "frequency_cap: {shown: 1, days: 1}",
    "freshness_floor: {younger_than: 1h, at_least: 1, first: 2}",
]


@pytest.mark.parametrize("rule", RULES, ids=[rule.split(":")[0] for rule in RULES])
def test_reported_propensities_are_the_frequencies(rule: str) -> None:
    bench = Bench(
        MESH.replace("explore: {greedy: {}}", SOFT).replace(
            "    experiment:", f"    rules: [{{{rule}}}]\n    experiment:"
        )
    )
    comics = [
        bench.content("comics", "a", "drama", age_s=60.0),
        bench.content("comics", "b", "drama|war", age_s=9e5),
        bench.content("comics", "c", "war", label="own", age_s=9e5),
        bench.content("comics", "d", "comedy", label="own", countries="FR", age_s=9e5),
    ]
    weather = [bench.content("weather", "sun", "drama", age_s=9e5)]
    users = [
        bench.user(
            f"u{at}",
            {"comics/new": comics, "weather/today": weather},
            profile={"country": "jp"},
            shown=[("comics", "b", 60.0)],
        )
        for at in range(USERS)
    ]
    shown = decisions(run(bench, models(bench), users, COUNT)).values()
    nexts: dict[tuple[str, ...], list[tuple[str, float]]] = defaultdict(list)
    for each in shown:
        names = [one.content_id for one in each]
        for at, one in enumerate(each):
            nexts[tuple(names[:at])].append((names[at], one.propensity))
    checked = 0
    for above, drawn in nexts.items():
        n, told = len(drawn), dict(drawn)
        assert all(told[name] == pytest.approx(propensity, rel=1e-5) for name, propensity in drawn), above
        if n < 200:
            continue
        for name, often in Counter(name for name, _ in drawn).items():
            p = told[name]
            assert abs(often / n - p) <= 4.5 * np.sqrt(p * (1 - p) / n) + 1e-6, (above, name)
            checked += 1
        unseen = 1 - sum(told.values())
        assert -1e-5 <= unseen <= 0.05, above
    assert checked >= 6
