"""What each filter removes, what it keeps, and what it says about it."""

from __future__ import annotations

import pytest

from banditmesh.bandits import hashing
from banditmesh.runtime.mesh import parse_mesh
from services.crs_engine.pipeline import filters
from services.crs_engine.pipeline.batch import Mask, View
from tests.support.engine_batch import NOW_S, Bench
from tests.support.engine_world import MESH


def by_whom(view: View) -> list[str | None]:
    """For each candidate: the filter that removes it."""
    used = filters.enabled(view.placement.config)
    return [used[at].name if at != filters.KEPT else None for at in filters.apply(view, used).tolist()]


def removed(view: View) -> dict[int, str]:
    """Filter by content key, of those that were removed."""
    return {key: name for key, name in zip(view.pool.contents.tolist(), by_whom(view), strict=True) if name}


def reasons(view: View) -> list[str]:
    used = filters.enabled(view.placement.config)
    by = filters.apply(view, used)
    kept = by == filters.KEPT
    return [used[at].because(view, place, kept) for place, at in enumerate(by.tolist()) if at != filters.KEPT]


def test_a_content_that_nobody_described_is_removed_and_its_key_is_named() -> None:
    bench, known = Bench(), hashing.content_key("comics", "ghost")
    view = bench.view(bench.user("ann", {"comics/new": [bench.content("comics", "c1"), known]}))
    assert removed(view) == {known: "unknown_content"}
    assert f"{known:016x}" in reasons(view)[0]


def test_a_hidden_content_is_removed() -> None:
    bench = Bench()
    hidden, shown = bench.content("comics", "hidden", hidden=True), bench.content("comics", "shown")
    assert removed(bench.view(bench.user("ann", {"comics/new": [hidden, shown]}))) == {hidden: "hidden"}


def test_a_content_is_removed_from_the_second_on_at_which_it_expires() -> None:
    bench = Bench()
    over, left = bench.content("comics", "over", expires_s=NOW_S), bench.content("comics", "left", expires_s=NOW_S + 1)
    view = bench.view(bench.user("ann", {"comics/new": [over, left]}))
    assert removed(view) == {over: "expired"}
    assert "2023-11-14T22:13:20Z" in reasons(view)[0]


def test_a_muted_content_is_removed_for_the_user_who_muted_it_alone() -> None:
    bench, week_s = Bench(), 8 * 86400
    content = bench.content("comics", "c1")
    ann = bench.user("ann", {"comics/new": [content]}, reactions=[("mute", "comics", "c1", week_s)])
    bob = bench.user("bob", {"comics/new": [content]})
    view = bench.view(bob, ann, bob)
    assert by_whom(view) == [None, "muted_content", None]
    assert "muted it at 2023-11-06" in reasons(view)[0]


def test_a_mute_is_forgotten_when_its_time_is_over() -> None:
    bench = Bench()
    content = bench.content("comics", "c1")
    ann = bench.user("ann", {"comics/new": [content]}, reactions=[("mute", "comics", "c1", 31 * 86400)])
    assert removed(bench.view(ann)) == {}


def test_the_other_contents_of_a_muted_contents_service_are_removed_for_a_shorter_time() -> None:
    bench = Bench()
    comic, rain = bench.content("comics", "c1"), bench.content("weather", "rain")
    mapped = {"comics/new": [comic], "weather/today": [rain]}
    fresh = bench.user("fresh", mapped, reactions=[("mute", "comics", "other", 86400)])
    stale = bench.user("stale", mapped, reactions=[("mute", "comics", "other", 8 * 86400)])
    assert removed(bench.view(fresh)) == {comic: "muted_service"}
    assert removed(bench.view(stale)) == {}


@pytest.mark.parametrize(("hide", "expected"), [("true", "clicked"), ("false", None)])
def test_what_was_clicked_is_hidden_where_the_placement_says_so(hide: str, expected: str | None) -> None:
    bench = Bench(MESH.replace("    experiment:", f"    hide_clicked: {hide}\n    experiment:"))
    content = bench.content("comics", "c1")
    ann = bench.user("ann", {"comics/new": [content]}, reactions=[("click", "comics", "c1", 60)])
    assert removed(bench.view(ann)).get(content) == expected


def test_only_services_that_the_user_has_used_are_eligible_where_the_placement_says_so() -> None:
    bench = Bench(MESH.replace("    experiment:", "    eligible: used_services\n    experiment:"))
    comic, rain = bench.content("comics", "c1"), bench.content("weather", "rain")
    mapped = {"comics/new": [comic], "weather/today": [rain]}
    ann = bench.user("ann", mapped, profile={"used_services": ["weather"]})
    stranger = bench.user("stranger", mapped)
    assert removed(bench.view(ann)) == {comic: "eligible"}
    assert removed(bench.view(stranger)) == {comic: "eligible", rain: "eligible"}


def test_a_content_of_two_logics_stays_with_the_one_that_stands_first_in_the_placement() -> None:
    bench = Bench()
    both, other = bench.content("comics", "both"), bench.content("comics", "other")
    view = bench.view(bench.user("ann", {"comics/similar": [both, other], "comics/new": [both]}))
    assert by_whom(view) == [None, "duplicate", None]
    assert reasons(view) == ["comics/new proposes it too, and stands before this logic in the placement's sources"]


def test_the_same_content_for_two_users_is_no_duplicate() -> None:
    bench = Bench()
    content = bench.content("comics", "c1")
    users = [bench.user(name, {"comics/new": [content]}) for name in ("ann", "bob")]
    assert removed(bench.view(*users)) == {}


def test_the_first_filter_that_removes_a_content_is_the_one_that_is_named() -> None:
    bench = Bench()
    content = bench.content("comics", "c1", hidden=True, expires_s=1)
    assert removed(bench.view(bench.user("ann", {"comics/new": [content]}))) == {content: "hidden"}


def test_nobody_without_candidates_disturbs_the_others() -> None:
    bench = Bench()
    hidden = bench.content("comics", "c1", hidden=True)
    users = [bench.user("none", {}), bench.user("ann", {"comics/new": [hidden]}), bench.user("nil", {})]
    assert removed(bench.view(*users)) == {hidden: "hidden"}


def test_every_filter_has_a_name_of_its_own() -> None:
    assert len({each.name for each in filters.FILTERS}) == len(filters.FILTERS)


class NotFromNew:
    """Removes what comics/new proposes."""

    name = "not_from_new"

    def removes(self, view: View, kept: Mask) -> Mask | None:
        return view.pool.sources == 2  # type: ignore[no-any-return]

    def because(self, view: View, at: int, kept: Mask) -> str:
        return "it is from comics/new"


def test_one_copy_of_a_content_stays_when_another_filter_removes_the_other_one() -> None:
    bench = Bench()
    both = bench.content("comics", "both")
    view = bench.view(bench.user("ann", {"comics/new": [both], "comics/similar": [both]}))
    used = (NotFromNew(), *filters.enabled(view.placement.config))
    assert filters.apply(view, used).tolist() == [0, filters.KEPT]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ages_days", "gone"), [((0, 0), False), ((0, 0, 0), True), ((0, 1, 1), True), ((0, 0, 2), False)]
)
def test_what_was_shown_often_enough_is_removed_for_the_user_who_saw_it_alone(
    ages_days: tuple[int, ...], gone: bool
) -> None:
    bench = Bench(MESH.replace("    experiment:", "    filters: {frequency_cap: {shown: 3, days: 2}}\n    experiment:"))
    often, other = bench.content("comics", "often"), bench.content("comics", "other")
    mapped = {"comics/new": [often, other]}
    ann = bench.user("ann", mapped, shown=[("comics", "often", 86400.0 * days) for days in reversed(ages_days)])
    view = bench.view(bench.user("bob", mapped), ann)
    assert by_whom(view) == [None, None, "frequency_cap" if gone else None, None]
    if gone:
        assert reasons(view) == ["the user was shown it 3 times in 2 days; frequency_cap allows 3"]


def test_nothing_is_capped_where_the_placement_does_not_say_so() -> None:
    bench = Bench()
    often = bench.content("comics", "often")
    ann = bench.user("ann", {"comics/new": [often]}, shown=[("comics", "often", 60.0)] * 15)
    assert removed(bench.view(ann)) == {}


def test_every_filter_with_parameters_has_them_in_mesh_yaml_under_its_name() -> None:
    sections = set(type(parse_mesh(MESH).placements["head"].filters).model_fields)
    assert sections <= {each.name for each in filters.FILTERS}
