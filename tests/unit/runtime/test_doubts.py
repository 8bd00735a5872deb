"""What a mesh.yaml says that is valid and hardly meant: each doubt where it belongs, and none where there is none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from banditmesh.runtime.doubts import doubts
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.mesh import parse_mesh

ROOT = Path(__file__).parents[3]
TWO: dict[str, Any] = {"a": {"weight": 1, "policy": "random"}, "b": {"weight": 1, "policy": "popularity"}}


def mesh(**sections: Any) -> str:
    """A small mesh without a doubt; a section takes the place of its own."""
    given = {
        "services": {"news": {"logics": ["top"], "provider": "news:1"}},
        "placements": {"home": {"sources": ["news/top"]}},
        **sections,
    }
    return yaml.safe_dump(given)


def home(**keys: Any) -> dict[str, Any]:
    return {"home": {"sources": ["news/top"], **keys}}


def caller(*roles: str) -> dict[str, Any]:
    return {"callers": {"one": {"roles": list(roles), "dns": ["one"]}}}


def service(**keys: Any) -> dict[str, Any]:
    return {"news": {"logics": ["top"], **keys}}


DOUBTS: list[tuple[str, dict[str, Any]]] = [
    ("services.news.logics", {"services": service(logics=["top", "unused"]), "placements": home(fallback="none")}),
    ("services.news.refresh_every", {"services": service(refresh_every="1h")}),
    ("services.news.refresh_every", {"services": service(provider="news:1", refresh_every="31d")}),
    ("importing.content_ttl", {"importing": {"content_ttl": "1d"}}),
    ("importing.allowed_uris", {"importing": {"allowed_uris": []}}),
    ("join.window", {"join": {"window": "1ms"}}),
    ("placements.home.join_window", {"placements": home(join_window="100ms")}),
    ("token.max_age", {"token": {"max_age": "400ms"}, "join": {"window": "300ms"}}),
    ("importing.mapping_ttl", {"importing": {"mapping_ttl": "1s"}}),
    (
        "importing.content_ttl",
        {
            "services": service(provider="news:1", refresh_every="10s"),
            "importing": {"mapping_ttl": "1m", "content_ttl": "59s"},
        },
    ),
    ("importing.lease", {"importing": {"lease": "15ms"}}),
    ("importing.provider_timeout", {"importing": {"provider_timeout": "5ms"}}),
    ("engine.redis_timeout", {"engine": {"redis_timeout": "1ms"}}),
    ("engine.model_poll", {"engine": {"model_poll": "10ms"}}),
    ("learning.snapshot_every", {"learning": {"snapshot_every": "30ms"}}),
    ("join.tick_every", {"join": {"tick_every": "1ms"}}),
    ("token.max_age", {"token": {"max_age": "5m"}}),
    ("learning.stall_after", {"learning": {"stall_after": "1s"}}),
    ("engine.redis_timeout", {"engine": {"redis_timeout": "10s"}}),
    ("archive.keep", {"archive": {"keep": "1h"}}),
    ("archive.keep", {"archive": {"keep": "90d", "enabled": False}}),
    (
        "placements.home.decisions.sample",
        {"archive": {"enabled": False}, "placements": home(decisions={"sample": 0.1})},
    ),
    ("vectors", {"vectors": {"dimensions": 8}}),
    (
        "vectors.embedding",
        {
            "vectors": {"dimensions": 8},
            "services": service(),
            "placements": home(retrieve={"density": {"share": 5}}),
        },
    ),
    (
        "placements.home.rules.1.pin.position",
        {
            "placements": home(
                rules=[{"cap_per_service": {"most": 2}}, {"pin": {"of": {"content": "news/a"}, "position": 2}}]
            )
        },
    ),
    (
        "placements.home.rules.1.bury.of",
        {"placements": home(rules=[{name: {"of": {"content": "news/a"}, "by": 0.5}} for name in ("boost", "bury")])},
    ),
    ("placements.home.rules.0.blackout.hours", {"placements": home(rules=[{"blackout": {"hours": "00:00-24:00"}}])}),
    ("placements.home.cache.model_slack", {"placements": home(cache={"max_age": "5m"})}),
    ("access.callers", {"access": caller("app", "service:news")}),
    (
        "placements.home.experiment.variants.a.weight",
        {"placements": home(experiment={"variants": {**TWO, "a": {"weight": 0, "policy": "random"}}})},
    ),
    (
        "placements.home.experiment.variants.b.weight",
        {"placements": home(experiment={"variants": {**TWO, "b": {"weight": 0, "policy": "random"}}})},
    ),
    (
        "placements.home.experiment.aa",
        {"placements": home(experiment={"variants": {"a": TWO["a"]}, "aa": True})},
    ),
    (
        "placements.home.experiment.guardrails.target_rate",
        {
            "placements": home(
                experiment={"variants": TWO, "guardrails": {"target_rate": {"worse_than_control_by": 0.1}}}
            )
        },
    ),
    (
        "placements.home.experiment.guardrails.dwell_rate",
        {
            "placements": home(
                experiment={"variants": TWO, "guardrails": {"dwell_rate": {"worse_than_control_by": 0.1}}}
            )
        },
    ),
    (
        "placements.home.retrieve",
        {
            "placements": home(
                retrieve={"newest": {"share": 5}},
                experiment={"variants": {"a": {**TWO["a"], "retrieve": {"newest": {"share": 1}}}}},
            )
        },
    ),
    ("placements.home.rewards.click", {"placements": home(rewards={"click": 0.1})}),
    ("placements.home.rewards.mute", {"placements": home(rewards={"mute": 0.9})}),
]


@pytest.mark.parametrize(("key", "sections"), DOUBTS)
def test_what_is_valid_and_hardly_meant_is_doubted(key: str, sections: dict[str, Any]) -> None:
    found = doubts(parse_mesh(mesh(**sections)))

    assert [where for where, _ in found] == [key], found


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"services": service(logics=["top", "unused"]), "placements": home(retrieve={"newest": {"share": 5}})},
        {"importing": {"content_ttl": "1d"}, "services": service(provider="news:1", refresh_every="1h")},
        {"placements": home(rewards={"click": 0.1, "targets": {"buy": 1.0}})},
        {
            "placements": home(
                cache={"max_age": "10s"},
                rules=[
                    {"cap_per_service": {"most": 2}},
                    {"pin": {"of": {"content": "news/a"}, "position": 1}},
                    {"boost": {"of": {"content": "news/a"}, "by": 0.5}},
                    {"bury": {"of": {"content": "news/b"}, "by": 0.5}},
                    {"blackout": {"hours": "00:00-24:00", "weekdays": "sun"}},
                ],
            )
        },
        {"access": caller("operator")},
        {"token": {"max_age": "5m"}, "placements": home(join_window="5m")},
    ],
)
def test_what_makes_sense_is_not(sections: dict[str, Any]) -> None:
    assert doubts(parse_mesh(mesh(**sections))) == []


def test_every_role_that_nobody_has_is_named() -> None:
    found = doubts(parse_mesh(mesh(access=caller("service:news"))))

    assert [text.split(":")[0] for _, text in found] == ["nobody is operator", "nobody is app"]


@pytest.mark.parametrize("path", ["quickstart/mesh.yaml", "demo/mesh.yaml", "demo/news_mesh.yaml", "demo/cinema.yaml"])
def test_nothing_of_ours_is_doubtful(path: str) -> None:
    text = re.sub(r"\$\{?[A-Z]+\}?", "provider:1", (ROOT / "banditmesh" / path).read_text())

    assert doubts(parse_mesh(text)) == []


@pytest.mark.parametrize(
    ("profiles", "said"),
    [
        ({"used_services": "text"}, "profiles.used_services: is always a list, never a text"),
        ({"user_id": "number"}, "profiles.user_id: says whose profile it is"),
        ({"": "text"}, "the name of a field has 1 to 64 bytes"),
        ({"x" * 65: "text"}, "the name of a field has 1 to 64 bytes"),
    ],
)
def test_a_type_that_no_profile_can_have_is_refused(profiles: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_mesh(mesh(profiles=profiles))
