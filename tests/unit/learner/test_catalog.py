"""Which models there are, and whose they are."""

from __future__ import annotations

import pytest

from banditmesh.bandits.registry import model_name
from banditmesh.runtime.errors import InvalidArgument, NotFound
from banditmesh.runtime.mesh import parse_mesh
from services.learner.catalog import Catalog, ShardId

MESH = parse_mesh("""
services: {films: {logics: [similar]}}
placements:
  home:
    sources: [films/similar]
    experiment: {variants: {
      small: {weight: 1, policy: {linucb: {dimension: 4}}},
      large: {weight: 1, policy: {linucb: {dimension: 8}}},
      same: {weight: 1, policy: {linucb: {dimension: 8}}, explore: {ucb: {alpha: 2}}},
      chance: {weight: 1, policy: random}}}
  away:
    sources: [films/similar]
    fallback: none
    experiment: {variants: {only: {weight: 1, policy: linucb}}}
""")
SMALL = model_name("linucb", {"dimension": 4})
LARGE = model_name("linucb", {"dimension": 8})
CATALOG = Catalog(MESH)


def test_models_are_those_of_the_variants_that_learn_and_the_fallback_s() -> None:
    assert set(CATALOG.models) == {
        ShardId("home", SMALL),
        ShardId("home", LARGE),
        ShardId("home", model_name("popularity")),
        ShardId("away", model_name("linucb")),
    }


def test_parameters_are_complete_so_that_a_manifest_can_be_compared_with_them() -> None:
    spec = CATALOG.models[ShardId("home", SMALL)]
    assert spec.policy == "linucb"
    assert spec.params["dimension"] == 4
    assert "ridge" in spec.params


def test_a_model_is_found_by_its_name_or_by_its_policy_where_that_is_enough() -> None:
    assert CATALOG.find("home", SMALL) == ShardId("home", SMALL)
    assert CATALOG.find("away", "linucb") == ShardId("away", model_name("linucb"))
    assert CATALOG.find("home", "popularity").model == model_name("popularity")


def test_a_policy_with_several_models_is_not_guessed() -> None:
    with pytest.raises(InvalidArgument, match=f"field model .*'linucb'.*{min(SMALL, LARGE)}, {max(SMALL, LARGE)}"):
        CATALOG.find("home", "linucb")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"field placement .*'hom'.*away, home"):
        CATALOG.find("hom", "linucb")
    with pytest.raises(NotFound, match=f"field model .*'random'.*{SMALL}"):
        CATALOG.find("home", "random")


def test_every_model_has_exactly_one_owner() -> None:
    owners = [shard_id.owner(3) for shard_id in CATALOG.models]
    assert all(0 <= owner < 3 for owner in owners)
    assert ShardId("home", "linucb-00000000").owner(1000) == 572, (
        "must never change: models would move between replicas"
    )
