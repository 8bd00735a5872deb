"""What a user was shown of late is told apart by user, content, service and day."""

from __future__ import annotations

from services.crs_engine.pipeline.fatigue import content_shown, service_shown
from tests.support.engine_batch import NOW_S, Bench

DAY_S = 86400.0


def test_each_candidate_has_the_count_of_its_own_user_content_and_service() -> None:
    bench = Bench()
    c1, c2, rain = bench.content("comics", "c1"), bench.content("comics", "c2"), bench.content("weather", "rain")
    mapped = {"weather/today": [rain], "comics/new": [c1, c2]}
    shown = [
        ("comics", "c2", 9 * DAY_S),  # forgotten
        ("weather", "rain", DAY_S),
        ("comics", "c1", DAY_S),
        ("comics", "c1", 60.0),
        ("comics", "c2", 30.0),
    ]
    view = bench.view(bench.user("nobody", {}), bench.user("ann", mapped, shown=shown), bench.user("bob", mapped))
    assert view.pool.contents.tolist() == [rain, c1, c2] * 2
    assert content_shown(view.users, view.pool, NOW_S).tolist() == [1, 2, 1, 0, 0, 0]
    assert service_shown(view.users, view.pool, NOW_S).tolist() == [0, 2, 2, 0, 0, 0]


def test_what_was_shown_and_is_no_candidate_disturbs_nobody() -> None:
    bench = Bench()
    content = bench.content("comics", "c1")
    ann = bench.user("ann", {"comics/new": [content]}, shown=[("comics", "other", 60.0), ("news", "n", 60.0)])
    view = bench.view(ann)
    assert content_shown(view.users, view.pool, NOW_S).tolist() == [0]
    assert service_shown(view.users, view.pool, NOW_S).tolist() == [1]
