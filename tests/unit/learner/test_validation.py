"""Progressive validation: a model that predicts the newest examples worse than the published one is held back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from banditmesh.bandits.batch import Examples, SparseRows
from banditmesh.bandits.policy import Policy
from banditmesh.bandits.registry import build
from banditmesh.runtime.learning_options import ValidationLimits
from banditmesh.runtime.store import Store, open_store
from services.learner.validation import Validation
from tests.support.examples import T0_MS, Given, closing, example
from tests.unit.learner.parts import LINUCB, Topic, rig


def examples(rewards: list[float]) -> Examples:
    n = len(rewards)
    keys = np.arange(n, dtype=np.uint64) % 2
    features = SparseRows(np.arange(n + 1), (keys + 1).astype(np.uint32), np.ones(n, np.float32))
    return Examples.checked(keys, keys, keys, features, rewards, [0.5] * n, [0.0] * n, [False] * n)


def linear(*batches: Examples) -> Policy:
    policy = build("linear", {})
    for each in batches:
        policy.learn(each)
    return policy


GOOD, FLIPPED = examples([0.0, 1.0] * 50), examples([1.0, 0.0] * 50)


@pytest.mark.parametrize("metric", ["reward", "log_loss"])
def test_a_model_that_has_learned_the_contrary_is_worse(metric: str) -> None:
    limits = ValidationLimits.model_validate({"examples": 20, metric: 0.1})
    one = Validation(limits, 0.0, 1.0)
    one.publish(linear(GOOD))

    one.see(linear(*[FLIPPED] * 9), GOOD)
    assert list(one.worse()) == [metric]

    one.see(linear(GOOD), GOOD)
    assert not one.worse()


def test_a_model_that_expects_too_much_is_out_of_calibration() -> None:
    one = Validation(ValidationLimits(examples=20, calibration=0.2), 0.0, 1.0)
    one.publish(linear(GOOD))
    one.see(linear(*[examples([1.0, 1.0] * 50)] * 5), GOOD)
    assert list(one.worse()) == ["calibration"]


def test_without_a_published_model_or_with_few_examples_nothing_is_held_back() -> None:
    one = Validation(ValidationLimits(examples=101, log_loss=0.0), 0.0, 1.0)
    one.see(linear(FLIPPED), GOOD)
    assert one.quality() is None
    one.publish(linear(GOOD))
    one.see(linear(*[FLIPPED] * 9), GOOD)
    assert not one.worse()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


def traffic(first: int, n: int, *, flipped: bool) -> list[Given]:
    """Examples of two contents, one of which earns everything; flipped: the other one."""
    records = []
    for number in range(first, first + n):
        reward = float((number % 2 == 0) != flipped)
        one = example(
            source=(0, number), content=f"c{number % 2}", reward=reward, ids=[number % 2 + 1], time_ms=T0_MS + number
        )
        records.append(Given(0, T0_MS + 100 * number, one.SerializeToString()))
    return records + closing(1, T0_MS + 100 * (first + n) + 2000)


async def test_what_is_worse_is_not_published_until_it_is_better_again(store: Store, logs: list[Any]) -> None:
    topic = Topic(1)
    topic.append(traffic(0, 200, flipped=False))
    async with rig(topic, store) as one:
        shard = one.linucb
        shard.validation = Validation(ValidationLimits(examples=50, log_loss=0.2), 0.0, 1.0)
        await one.until(200)
        await one.publisher.publish_all()
        good = shard.tensors()

        # The model goes bad, by whatever; the examples are as before.
        before = shard._state
        shard._state = shard._load({**good, "moment": -good["moment"]})
        topic.append(traffic(300, 60, flipped=False))
        await one.until(260)
        for _ in range(3):  # it is counted once, however long no example comes
            await one.publisher.publish_all()
        assert (await one.publisher._snapshots.versions(*LINUCB)) == [1]
        assert one.metric("snapshots_withheld_total", placement="home", model=LINUCB.model, metric="log_loss") == 1
        topic.append(traffic(370, 20, flipped=False))
        await one.until(280)
        await one.publisher.publish_all()
        assert one.metric("snapshots_withheld_total", placement="home", model=LINUCB.model, metric="log_loss") == 2
        assert [each["event"] for each in logs].count("snapshot withheld: worse than the one before") == 1

        shard._state = before
        topic.append(traffic(400, 60, flipped=False))
        await one.until(340)
        await one.publisher.publish_all()
        assert (await one.publisher._snapshots.versions(*LINUCB)) == [1, 2]
    (published,) = (each for each in logs if each.get("after_withheld"))
    assert (published["event"], published["after_withheld"]) == ("snapshot published", 2)
