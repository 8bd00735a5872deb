"""The news demo without its services: the town, its Data Provider, what is drawn and what is said in the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.demo.news_delays import Delays, served_version
from banditmesh.demo.news_evening import OPENED
from banditmesh.demo.news_provider import NewsProvider
from banditmesh.demo.news_report import NEAR, POPULAR, NewsTally, NewsView, Seen, breaking_shares, draw, verdict
from banditmesh.demo.news_world import NewsWorld, day_of
from banditmesh.demo.report import Examples

LENGTH_S = 60.0


@pytest.fixture(scope="module")
def world() -> NewsWorld:
    return NewsWorld.make(day_of(LENGTH_S), 1)


def lived(world: NewsWorld, near_clicks: float) -> tuple[NewsTally, Examples]:
    """A day of 2 000 impressions; `near` is clicked so often, `popular` one time in ten."""
    tally, examples, rng = NewsTally(), Examples(), np.random.default_rng(1)
    for at in range(2000):
        reader = int(rng.integers(len(world.tastes)))
        variant = (NEAR, POPULAR)[reader % 2]
        at_s = at * LENGTH_S / 2000
        article = int(rng.choice(world.alive(at_s)))
        clicked = bool(rng.random() < (near_clicks if variant == NEAR else 0.1))
        tally.add(Seen(at_s, variant, reader, article, clicked, 0.1, "density"))
        tally.published.setdefault(article, max(at_s - 1, 0))
        key = at.to_bytes(16, "big")
        tally.acknowledged[key] = variant
        decision = events_pb2.Decision(impression_id=key, variant=variant, user_id=f"r{reader}")
        outcome = events_pb2.OUTCOME_CLICK if clicked else events_pb2.OUTCOME_NONE
        examples.add(events_pb2.JoinedImpression(decision=decision, outcome=outcome, reward=float(clicked)))
    return tally, examples


@pytest.mark.parametrize(("clicks", "delay_s", "good"), [(0.3, 2.0, True), (0.1, 2.0, False), (0.3, 9.0, False)])
def test_the_verdict_asks_for_more_clicks_and_a_quick_density(
    world: NewsWorld, clicks: float, delay_s: float, good: bool
) -> None:
    tally, examples = lived(world, clicks)
    delays = Delays([delay_s] * 20, [1000] * 20, 19)
    console = Console(record=True, width=150)
    assert verdict(console, world, tally, examples, delays) is good
    assert "2,000 came out as exactly one example" in console.export_text()
    assert all(0 <= share <= 1 for share in breaking_shares(world, tally).values())


def test_it_is_drawn_and_shown_while_it_runs(world: NewsWorld, tmp_path: Path) -> None:
    tally, examples = lived(world, 0.2)
    draw(world, tally, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    console = Console(record=True, width=150)
    console.print(NewsView(tally, examples, Delays(), LENGTH_S))
    assert "density versions 0" in console.export_text()


async def test_the_provider_says_where_an_article_lies_and_when_it_ends(world: NewsWorld, tmp_path: Path) -> None:
    (tmp_path / "began").write_text("1000.0")
    found = list(await NewsProvider(world, tmp_path / "began").get_contents("news", ["0", "150", "what", "100000"]))
    assert [each.content_id for each in found] == ["0", "150"]
    message = found[1].to_message()
    assert len(message.embedding) == 16
    assert message.expires_at.seconds == int(1000 + world.gone_s[150])


async def test_yesterdays_articles_are_read_by_those_who_like_them_and_stay(world: NewsWorld, tmp_path: Path) -> None:
    (tmp_path / "began").write_text("1000.0")
    (old,) = await NewsProvider(world, tmp_path / "began").get_contents("news", ["0"])
    assert not old.to_message().HasField("expires_at")
    rng = np.random.default_rng(1)
    likes = [world.opened(reader, OPENED, rng) for reader in range(50)]
    assert {len(set(each.tolist())) for each in likes} == {OPENED}
    assert max(each.max() for each in likes) < world.yesterday
    near = [float((world.audience[each] @ world.tastes[reader]).mean()) for reader, each in enumerate(likes)]
    of_all = world.audience[: world.yesterday] @ world.tastes[:50].T
    assert np.mean(near) > of_all.mean() + 0.1
    assert not world.breaking[: world.yesterday].any()


def test_near_readers_click_and_appeal_fades(world: NewsWorld) -> None:
    article = np.array([int(np.argmax(world.appeal))])
    reader = int(np.argmax(world.tastes @ world.audience[article[0]]))
    far = int(np.argmin(world.tastes @ world.audience[article[0]]))
    born_s = float(world.born_s[article[0]])
    assert world.clicks(reader, article, born_s) > 5 * world.clicks(far, article, born_s)
    half = world.clicks(reader, article, born_s + float(world.life_s[article[0]]))
    assert half == pytest.approx(world.clicks(reader, article, born_s) / 2)


def test_a_click_has_arrived_when_the_engine_takes_up_the_version_after_the_one_that_lacked_it() -> None:
    delays = Delays(watermarks_s={3: 100.0, 4: 101.0, 5: 102.5})
    delays.taken_up(3, 103.0)  # version 4 was passed over
    delays.taken_up(5, 104.0)
    delays.taken_up(0, 99.0)  # it had none, so nobody can say what it lacked
    assert delays.seconds == [3.0, 1.5]


def test_the_version_that_an_engine_serves_is_read_from_its_metrics() -> None:
    page = (
        'banditmesh_engine_model_version{model="linucb-1",placement="feed"} 90.0\n'
        'banditmesh_engine_model_version{model="density-1a2b",placement="feed"} 7.0\n'
        'banditmesh_engine_model_version{model="density-1a2b",placement="other"} 8.0\n'
    )
    assert served_version(page, "feed") == 7
    assert served_version(page, "evening") == 0
