"""The join's rules, on plain values."""

from __future__ import annotations

from banditmesh.bandits.rewards import RewardSpec
from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.reactions import KINDS
from services.joiner.events import ReadReaction
from services.joiner.join import Joined, belongs, is_closed, join

T = 1_700_000_000_000
WINDOW = 600_000
DECISION = events_pb2.Decision(impression_id=bytes(16), user_id="ann", placement="home")
SOURCE = events_pb2.Source(partition=3, offset=42)
SPEC = RewardSpec(click=1.0, none=0.5, mute=0.0, targets={"purchase": 3.0, "signup": 2.0})


def came(kind: str, after_ms: int = 1000, *, weight: float = 1.0, offset: int | None = None) -> ReadReaction:
    name, _, part = kind.partition(":")
    at = T + after_ms
    value = f"{kind} {after_ms}".encode()
    return ReadReaction(at if offset is None else offset, at, KINDS.get(name), part, weight, DECISION, value)


def joined(*reactions: ReadReaction, spec: RewardSpec = SPEC, window_ms: int = WINDOW) -> Joined:
    return join(DECISION, SOURCE, T, reactions, spec, window_ms)


def test_an_impression_without_reactions_was_ignored() -> None:
    example = joined().example
    assert example.source == SOURCE
    assert example.joined == events_pb2.JoinedImpression(
        decision=DECISION, outcome=events_pb2.OUTCOME_NONE, reward=0.5, impression_time_ms=T
    )


def test_a_reaction_counts_up_to_the_last_millisecond_of_the_window() -> None:
    assert joined(came("click", WINDOW)).outcome == "click"
    assert joined(came("click", WINDOW + 1)).outcome == "none"


def test_a_reaction_that_stands_before_its_impression_counts() -> None:
    assert joined(came("click", -5000)).outcome == "click"


def test_a_reaction_after_the_window_is_late_and_not_dropped() -> None:
    late = came("mute", WINDOW + 1)
    assert joined(came("click"), late).late == (late,)


def test_late_ones_come_out_in_the_order_of_their_times() -> None:
    early, later = came("mute", WINDOW + 1), came("click", WINDOW + 2)
    assert joined(later, early).late == joined(early, later).late == (early, later)


def test_of_several_reactions_the_strongest_counts_and_all_are_named() -> None:
    body = joined(came("click", 1), came("mute", 2), came("target:purchase", 3)).example.joined
    assert body.outcome == events_pb2.OUTCOME_MUTE
    assert body.reward == 0.0
    assert body.reaction_time_ms == T + 2
    assert list(body.reactions) == [events_pb2.OUTCOME_CLICK, events_pb2.OUTCOME_MUTE, events_pb2.OUTCOME_TARGET]


def test_a_late_mute_does_not_outrank_a_click_in_time() -> None:
    body = joined(came("click"), came("mute", WINDOW + 1)).example.joined
    assert body.outcome == events_pb2.OUTCOME_CLICK
    assert list(body.reactions) == [events_pb2.OUTCOME_CLICK]


def test_the_placements_precedence_decides() -> None:
    spec = RewardSpec(precedence=("click", "mute", "target"))
    assert joined(came("click"), came("mute"), spec=spec).outcome == "click"


def test_a_target_actions_weight_multiplies_its_reward() -> None:
    body = joined(came("target:signup", 7), came("target:purchase", 9, weight=0.5)).example.joined
    assert (body.target, body.reward, body.reaction_time_ms) == ("signup", 2.0, T + 7)
    body = joined(came("target:signup", 7), came("target:purchase", 9, weight=2.5)).example.joined
    assert (body.target, body.reward, body.reaction_time_ms) == ("purchase", 7.5, T + 9)


def test_a_target_action_that_is_not_configured_earns_nothing() -> None:
    body = joined(came("target:unheard"), came("click", 5)).example.joined
    assert (body.outcome, body.reaction_time_ms) == (events_pb2.OUTCOME_CLICK, T + 5)


def test_a_reward_beyond_the_cap_is_clipped_and_says_so() -> None:
    result = joined(came("target:purchase", weight=1e6))
    assert (result.example.joined.reward, result.clipped) == (30.0, True)
    assert not joined(came("target:purchase")).clipped


def test_a_reaction_of_a_kind_that_is_not_known_is_passed_over_and_counted() -> None:
    result = joined(came("of tomorrow"), came("click"))
    assert (result.outcome, result.unknown, result.late) == ("click", 1, ())


def test_a_reaction_of_a_kind_that_is_not_known_can_be_late_all_the_same() -> None:
    late = came("of tomorrow", WINDOW + 1)
    result = joined(came("click"), late)
    assert (result.outcome, result.unknown, result.late) == ("click", 0, (late,))


def test_of_two_copies_the_first_by_offset_counts() -> None:
    first = came("target:purchase", 1, weight=2.0, offset=4)
    second = came("target:purchase", 2, weight=9.0, offset=5)
    assert joined(second, first).example.joined.reward == 6.0


def test_the_order_in_which_reactions_are_found_changes_no_byte() -> None:
    reactions = [came("click", 3), came("target:purchase", 2), came("mute", 1)]
    forwards, backwards = joined(*reactions).example, joined(*reversed(reactions)).example
    assert forwards.SerializeToString(deterministic=True) == backwards.SerializeToString(deterministic=True)


def test_an_impression_is_closed_only_after_its_due_time() -> None:
    # At the due time itself another reaction of the same millisecond may follow.
    assert not is_closed(T, WINDOW, T + WINDOW)
    assert is_closed(T, WINDOW, T + WINDOW + 1)


def test_whatever_belongs_has_been_read_when_the_impression_is_closed() -> None:
    for watermark in range(T + WINDOW - 2, T + WINDOW + 3):
        unread = watermark  # a record that follows is not older than the watermark
        assert not (is_closed(T, WINDOW, watermark) and belongs(unread, T, WINDOW))
