"""An experiment's report over the wire, from a real Kafka and a real store."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from banditmesh.contracts.learner.v1 import learner_pb2
from banditmesh.runtime.stops import Entry, Stops
from banditmesh.runtime.store import open_store
from tests.integration.learner.running import Running, running, settings
from tests.support.examples import T0_MS, ExamplesTopic, Given, closing, example


def shown(numbers: range) -> list[Given]:
    """Impressions of as many users; every third of ``ucb`` and every sixth of ``chance`` clicks."""
    records = []
    for number in numbers:
        variant = ("ucb", "chance")[number % 2]
        clicked = number // 2 % 3 == 0 if variant == "ucb" else number // 2 % 6 == 0
        one = example(source=(number % 3, number), user=f"u{number}", variant=variant, reward=1.0 if clicked else 0.5)
        records.append(Given(number % 3, T0_MS + number, one.SerializeToString()))
    return records


async def until_counted(learner: Running, n: int) -> learner_pb2.GetExperimentReportResponse:
    request = learner_pb2.GetExperimentReportRequest(placement="home")
    while True:
        await learner.turn()  # the first one ends after the tally was restored
        answer: learner_pb2.GetExperimentReportResponse = await learner.stub.GetExperimentReport(request)
        if sum(each.impressions for each in answer.variants) >= n:
            return answer


async def test_the_report_is_right_and_goes_on_after_a_restart(
    topic: ExamplesTopic, any_store: str, tmp_path: Path
) -> None:
    config = settings(tmp_path, topic.bootstrap, any_store, topic.prefix)
    await topic.send([*shown(range(600)), *closing(3, T0_MS + 5000)])
    async with running(config) as learner:
        await until_counted(learner, 600)
    await topic.send([Given(each.partition, T0_MS + 6000, each.value) for each in shown(range(600, 1200))])
    await topic.send(closing(3, T0_MS + 9000))
    async with running(config) as learner:
        answer = await until_counted(learner, 1200)
        ucb, chance = answer.variants
        assert (ucb.users, ucb.impressions, ucb.clicks) == (600, 600, 200)
        assert (chance.users, chance.impressions, chance.clicks) == (600, 600, 100)
        assert (answer.control, answer.eras, answer.sample_ratio.mismatch) == ("ucb", 1, False)
        (rate,) = (each for each in chance.metrics if each.metric == "click_rate")
        assert rate.verdict == "worse"
        assert rate.difference_lower < -1 / 6 < rate.difference_upper < 0
        assert rate.lift == pytest.approx(-0.5)
        assert rate.lift_lower < -0.5 < rate.lift_upper < 0


async def test_a_stopped_variant_is_resumed_by_one_call(topic: ExamplesTopic, any_store: str, tmp_path: Path) -> None:
    store = open_store(any_store)
    await Stops(store).stop("home", [Entry("chance", "stopped", T0_MS, "guardrail mute_rate", "it was worse")])
    config = settings(tmp_path, topic.bootstrap, any_store, topic.prefix)
    async with running(config) as learner:
        answer = await until_counted(learner, 0)
        assert (answer.variants[1].share, answer.variants[1].stopped.why) == (0.0, "it was worse")
        request = learner_pb2.ResumeVariantRequest(placement="home", variant="chance", why="looked into it")
        assert (await learner.stub.ResumeVariant(request)).was.who == "guardrail mute_rate"
        answer = await until_counted(learner, 0)
        assert (answer.variants[1].share, answer.eras) == (0.5, 2)
        assert [each.why for each in answer.changes] == ["it was worse", "looked into it"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await learner.stub.ResumeVariant(request)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    await store.close()
