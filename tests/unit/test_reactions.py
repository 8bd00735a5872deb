"""Every kind of reaction, in every table: what the contracts name is accepted, stored, joined, paid and remembered."""

from __future__ import annotations

import pytest

from banditmesh.bandits.rewards import NONE, Reaction, RewardSpec
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.contracts.tracker.v1 import tracker_pb2
from banditmesh.lengths import MAX_NAME_BYTES
from banditmesh.reactions import KINDS, WrongReaction, precedence
from banditmesh.runtime.clock import ManualClock
from banditmesh.runtime.kafka.topics import Topics
from banditmesh.runtime.mesh import parse_mesh
from banditmesh.runtime.token import KeyRing
from banditmesh.runtime.user_record import COUNTERS, SECTIONS, UserRecord
from services.joiner.events import read_reaction
from services.joiner.incoming import advance
from services.joiner.join import OUTCOMES, join
from services.learner.examples import decode
from services.tracker.intake import CASES, Accepted, Intake

MESSAGES = {
    "click": events_pb2.Click(),
    "mute": events_pb2.Mute(),
    "target": events_pb2.TargetAction(name="purchase", weight=2.0),
    "dwell": events_pb2.Dwell(seconds=30.0, part=3),
}
"""A valid message of each kind."""
MESH = parse_mesh(
    """
    services: {films: {logics: [similar]}}
    placements:
      home: {sources: [films/similar], rewards: {click: 1.5, mute: -0.5, dwell: 0.02, targets: {purchase: 3.0}}}
    """
)
REWARDS = MESH.placements["home"].rewards
KEYS = KeyRing.parse("1:" + "0a" * 32)
CLOCK = ManualClock()
DECISION = events_pb2.Decision(
    impression_id=bytes(16),
    user_id="ann",
    placement="home",
    service="films",
    content_id="film-1",
    decided_at_ms=int(CLOCK.now_s() * 1000),
)
SOURCE = events_pb2.Source(partition=1, offset=2)


def cases(message: type[events_pb2.Reaction] | type[tracker_pb2.Event]) -> set[str]:
    """The cases of a message's ``kind``."""
    return {field.name for field in message.DESCRIPTOR.oneofs_by_name["kind"].fields}


def test_the_contracts_and_the_registry_name_the_same_kinds() -> None:
    assert cases(events_pb2.Reaction) == {*KINDS, "tick"}
    assert cases(tracker_pb2.Event) == {*KINDS, "shown"} == set(CASES)
    outcomes = {kind.outcome for kind in KINDS.values()}
    assert outcomes == set(events_pb2.Outcome.keys()) - {"OUTCOME_UNSPECIFIED", "OUTCOME_NONE"}
    assert set(OUTCOMES) == {*KINDS, NONE}
    assert MESSAGES.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_goes_all_the_way_from_the_app_to_the_learner(name: str) -> None:
    kind, message = KINDS[name], MESSAGES[name]
    event = tracker_pb2.Event(impression_token=KEYS.sign(DECISION), **{name: message})
    accepted = Intake(MESH, KEYS, Topics.named(), CLOCK).check(event)
    assert isinstance(accepted, Accepted), accepted

    read = read_reaction(5, 1000, accepted.record.value)
    assert read is not None
    assert (read.kind, read.decision.user_id) == (kind, "ann")

    joined = join(DECISION, SOURCE, 0, [read], REWARDS, 2000)
    assert joined.outcome == name
    example = decode(joined.example.SerializeToString(), 2000)
    assert example is not None
    body = example.joined
    assert body.outcome == events_pb2.Outcome.Value(kind.outcome)
    assert list(body.reactions) == [body.outcome]
    assert body.reaction_time_ms == 1000
    earned = kind.reward(REWARDS, read.part)
    assert earned is not None
    assert body.reward == pytest.approx(earned * read.amount)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_remembered_in_the_users_record_once(name: str) -> None:
    kind = KINDS[name]
    reaction = events_pb2.Reaction(schema_version=1, decision=DECISION, **{name: MESSAGES[name]})
    read = read_reaction(5, 60_000, reaction.SerializeToString())
    assert read is not None
    once = advance({"ann": UserRecord.empty()}, [read], 9)
    assert once["ann"].count(kind.counter) >= 1
    assert advance(once, [read], 9) == {}
    assert kind.counter in COUNTERS
    if kind.section:
        (section,) = [each for each in SECTIONS if each.name == kind.section]
        assert once["ann"].entries(section)["time_s"].tolist() == [60]


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_can_be_the_strongest(name: str) -> None:
    spec = REWARDS.model_copy(update={"precedence": precedence([name])})
    came = [Reaction(each, KINDS[each].read(message)[0]) for each, message in MESSAGES.items()]
    assert spec.outcome(came).kind == name


def test_a_precedence_of_before_a_kind_was_added_stays_valid() -> None:
    assert RewardSpec(precedence=("mute", "target", "click")).precedence == precedence(["mute", "target", "click"])
    assert set(precedence([])) == set(KINDS)


def test_the_seconds_of_all_parts_add_up_and_a_part_that_was_sent_twice_counts_once() -> None:
    parts = [(10.0, 0), (10.0, 1), (5.0, 2), (10.0, 1)]
    read = [
        read_reaction(
            offset,
            1000 + offset,
            events_pb2.Reaction(
                schema_version=1, decision=DECISION, dwell=events_pb2.Dwell(seconds=seconds, part=part)
            ).SerializeToString(),
        )
        for offset, (seconds, part) in enumerate(parts)
    ]
    body = join(DECISION, SOURCE, 0, [each for each in read if each], REWARDS, 2000).example.joined
    assert (body.outcome, body.reaction_time_ms) == (events_pb2.OUTCOME_DWELL, 1002)
    assert body.reward == pytest.approx(25 * 0.02)
    record = advance({"ann": UserRecord.empty()}, [each for each in read[:3] if each], 9)["ann"]
    assert (record.count("dwell_s"), record.count("feedback")) == (25, 0)


def test_dwell_does_not_count_where_no_reward_is_configured() -> None:
    assert RewardSpec().outcome([Reaction("dwell", "0", 60.0)]).kind == NONE


@pytest.mark.parametrize(
    "message",
    [
        events_pb2.Dwell(),
        events_pb2.Dwell(seconds=-1.0),
        events_pb2.Dwell(seconds=float("nan")),
        events_pb2.Dwell(seconds=3601.0),
        events_pb2.Dwell(seconds=1.0, part=1000),
    ],
)
def test_a_dwell_beyond_its_limits_is_refused(message: events_pb2.Dwell) -> None:
    with pytest.raises(WrongReaction, match=r"^dwell\.(seconds|part) = "):
        KINDS["dwell"].read(message)


@pytest.mark.parametrize(
    "message",
    [
        events_pb2.TargetAction(),
        events_pb2.TargetAction(name="é" * (MAX_NAME_BYTES // 2 + 1)),
        events_pb2.TargetAction(name="purchase", weight=-1),
        events_pb2.TargetAction(name="purchase", weight=float("nan")),
        events_pb2.TargetAction(name="purchase", weight=1.1e9),
    ],
)
def test_what_is_not_valid_is_refused_where_it_comes_in_and_where_it_is_read(message: events_pb2.TargetAction) -> None:
    with pytest.raises(WrongReaction, match=r"^target\.(name|weight) = "):
        KINDS["target"].read(message)
