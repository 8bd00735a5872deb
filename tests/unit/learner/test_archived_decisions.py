"""Sampled decisions, joined with what became of them out of the archived examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from banditmesh.archive.compact import compact
from banditmesh.archive.layout import Folder
from banditmesh.archive.reader import decisions, read
from banditmesh.archive.state import Mark, State, States
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.decisions import encoder
from banditmesh.decisions.columns import values
from banditmesh.decisions.row import parse
from banditmesh.decisions.rules import Effect, Ruled
from banditmesh.decisions.view import View
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.store import Store, open_store
from services.learner.archiving.archiver import Archiver
from services.learner.archiving.decisions import DecisionsFormat, Row
from services.learner.archiving.metrics import ArchiveMetrics
from services.learner.reader import Known, Reader
from tests.support.archive import LOG, NOON, put, rows
from tests.support.examples import Given
from tests.unit.learner.parts import Topic

NOON_MS = int(NOON.timestamp() * 1000)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def text(name: str, *values: str, multi_valued: bool = False) -> events_pb2.NamedFeature:
    return events_pb2.NamedFeature(name=name, values=values, multi_valued=multi_valued)


def sampled(number: int, *, chosen: int = 0, year: float | str = 1999.0) -> Given:
    """A decision made so many seconds after noon; its impression is that of the archive's row of that offset."""
    own = events_pb2.NamedFeature(name="year", number=year) if isinstance(year, float) else text("year", year)
    message = events_pb2.SampledDecision(
        schema_version=1,
        decision=events_pb2.Decision(
            impression_id=number.to_bytes(16, "big"),
            user_id=f"u{number}",
            placement="home",
            service="films",
            content_id=f"c{chosen}",
            propensity=0.25,
            decided_at_ms=NOON_MS + 1000 * number,
            origin=events_pb2.ORIGIN_POLICY,
        ),
        context=[text("age", "20s"), text("tags", "a", "b", multi_valued=True)],
        candidates=[
            events_pb2.SampledCandidate(service="films", content_id=f"c{each}", features=[own], propensity=0.25)
            for each in range(4)
        ],
        chosen=chosen,
        sample=0.5,
    )
    return Given(0, NOON_MS + 1000 * number, message.SerializeToString())


class Rig:
    def __init__(self, topic: Topic, store: Store) -> None:
        self.registry = CollectorRegistry()
        metrics = ArchiveMetrics(self.registry)

        def open_topic(begin: Callable[[Mapping[int, int]], Known]) -> AbstractAsyncContextManager[Reader]:
            return topic.open(begin({0: 100}))

        rows = DecisionsFormat(store, None, metrics, shown_within_s=3600.0)
        self.archiver: Archiver[list[Row]] = Archiver(
            rows, store, open_topic, ManualClock(), metrics, flush_every_s=60.0
        )
        self.topic = topic

    async def archive(self) -> None:
        async with self.archiver._open_reader(lambda logs: {}) as reader:
            states = await States(open_store_of(self.archiver), "decisions").all()
            position = states[100, 0].next if (100, 0) in states else 0
            self.archiver._partitions = {0: await self.archiver._take_over(0, 100, position)}
            records = [each for each in (await reader.read([0], 0.0)).get(0, ()) if each.offset >= position]
            if records:
                self.archiver._add({0: records})
        await self.archiver.flush()

    def passed_over(self, reason: str) -> float:
        labels = {"kind": "decisions", "reason": reason}
        return self.registry.get_sample_value("banditmesh_learner_archive_passed_over_total", labels) or 0.0


def open_store_of(archiver: Archiver[list[Row]]) -> Store:
    return archiver._store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path.as_uri())


async def examples_until(store: Store, shown_ms: int) -> None:
    """Examples of the partition are archived up to impressions of that time."""
    states = States(store, "examples")
    held = await states.get(LOG, 0)
    mark = Mark(shown_ms + 600_000, shown_ms)
    await states.put(LOG, 0, State(100, 100, 0, mark, mark), held)


async def test_a_decision_waits_until_its_impression_can_come_no_more(store: Store) -> None:
    topic = Topic(1)
    topic.append([sampled(3)])
    await put(store, Folder("examples", "home", NOON), rows(3, 4))
    await examples_until(store, NOON_MS + 3600_000)
    one = Rig(topic, store)

    await one.archive()
    assert [batch async for batch in decisions(store, "home", NOON - DAY, NOON + DAY)] == []

    await examples_until(store, NOON_MS + 3_700_000)
    await one.archive()
    ((row,),) = [batch async for batch in decisions(store, "home", NOON - DAY, NOON + DAY)]
    assert (row.user, row.shown, row.propensity, row.reward) == ("u3", 0, 0.25, 0.5)
    assert row.ids == ["c0", "c1", "c2", "c3"]
    assert dict(row.context) == {"age": "20s", "tags": ["a", "b"]}
    assert [dict(each) for each in row.features] == [{"year": 1999.0}] * 4


async def test_what_was_never_shown_and_what_nobody_can_read_make_no_row_and_are_counted(store: Store) -> None:
    topic = Topic(1)
    topic.append([sampled(3), sampled(50), Given(0, NOON_MS + 60_000, b"\xff\xff")])
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)
    one = Rig(topic, store)

    await one.archive()

    assert one.passed_over("never_shown") == one.passed_over("unreadable") == 1
    (batch,) = [each async for each in read(store, "home", NOON, NOON + HOUR, kind="decisions")]
    assert batch.column("decision_offset").to_pylist() == [0]
    assert batch.column("outcome").to_pylist() == ["none"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"decided_at_ms": 2**63 - 1},
        {"decided_at_ms": -1},
        {"decided_at_ms": NOON_MS - 30 * 86_400_000},
        {"position": 2**31},
        {"model_version": 2**63},
        {"placement": "x" * 65},
    ],
    ids=str,
)
async def test_what_no_column_and_no_key_holds_does_not_stop_the_archive(
    store: Store, wrong: dict[str, object]
) -> None:
    topic, given = Topic(1), sampled(2)
    message = events_pb2.SampledDecision.FromString(given.value)
    for name, value in wrong.items():
        setattr(message.decision, name, value)
    topic.append([given._replace(value=message.SerializeToString()), sampled(3)])
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)
    one = Rig(topic, store)

    await one.archive()

    assert one.passed_over("unreadable") == 1
    (batch,) = [each async for each in read(store, "home", NOON, NOON + HOUR, kind="decisions")]
    assert batch.column("decision_offset").to_pylist() == [1]


async def test_a_candidate_that_no_column_holds_does_not_stop_the_archive(store: Store) -> None:
    topic, given = Topic(1), sampled(2)
    message = events_pb2.SampledDecision.FromString(given.value)
    message.rules.add(rule="boost", adds=[2**32 - 1])
    topic.append([given._replace(value=message.SerializeToString()), sampled(3)])
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)
    one = Rig(topic, store)

    await one.archive()

    assert one.passed_over("unreadable") == 1


async def test_a_feature_that_is_a_number_here_and_a_text_there_is_a_text(store: Store) -> None:
    topic = Topic(1)
    topic.append([sampled(1), sampled(2, chosen=2, year="unknown")])
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)

    await Rig(topic, store).archive()

    (found,) = [batch async for batch in decisions(store, "home", NOON, NOON + HOUR)]
    assert [each.features[0]["year"] for each in found] == ["1999.0", "unknown"]
    assert encoder.encode(found, View()).shown.tolist() == [0, 6]


async def test_what_rules_did_is_in_the_row_and_an_older_engine_did_not_say_it(store: Store) -> None:
    topic = Topic(1)
    older, newer = sampled(1), events_pb2.SampledDecision.FromString(sampled(2).value)
    newer.schema_version = 2
    newer.barred.add(service="films", content_id="c9", features=[text("label", "paid")])
    newer.rules.add(rule="quota", adds=[4], drops=[1], shifts=[0.0, 0.0, 0.5, 0.0, 0.0])
    topic.append([older, Given(0, NOON_MS + 2000, newer.SerializeToString())])
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)

    await Rig(topic, store).archive()

    (batch,) = [each async for each in read(store, "home", NOON, NOON + HOUR, kind="decisions")]
    silent, told = (parse(row, 1, "row", ruled=True) for row in values(batch.to_struct_array()))
    assert silent.ruled is None
    assert told.ids == ["c0", "c1", "c2", "c3", "c9"]
    assert told.features[4] == {"label": "paid"}
    assert told.ruled == Ruled(4, [Effect("quota", [4], [1], [0.0, 0.0, 0.5, 0.0, 0.0], [])])


async def test_decisions_of_several_files_are_compacted_into_one_that_reads_the_same(store: Store) -> None:

    topic = Topic(1)
    await put(store, Folder("examples", "home", NOON), rows(0, 10))
    await examples_until(store, NOON_MS + 5_000_000)
    for number, year in ((1, 1999.0), (2, 2000.0)):
        topic.append([sampled(number, year=year)])
        await Rig(topic, store).archive()
    before = [row for batch in [each async for each in decisions(store, "home", NOON, NOON + HOUR)] for row in batch]

    done = await compact(store, "decisions", NOON + 4 * HOUR)

    assert done.files_before == 2
    after = [row for batch in [each async for each in decisions(store, "home", NOON, NOON + HOUR)] for row in batch]
    assert [row._replace(line=0, where="") for row in after] == [row._replace(line=0, where="") for row in before]
