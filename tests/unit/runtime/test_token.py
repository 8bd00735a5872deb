"""The impression token: nothing but what we signed comes back, and nothing that is too old."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.token import (
    MAX_FUTURE_S,
    MAX_TOKEN_BYTES,
    TAG_BYTES,
    VERSION,
    KeyRing,
    TokenError,
    TokenFault,
    largest_token_bytes,
)

NOW_S = 1_800_000_000.0
MAX_AGE_S = 3600.0
OLD, NEW = "1:" + "0a" * 32, "2:" + "0b" * 32
KEYS = KeyRing.parse(OLD)


def decision(**changes: object) -> events_pb2.Decision:
    fields: dict[str, object] = {
        "impression_id": bytes(range(16)),
        "user_id": "u-1234567890",
        "placement": "talk-head-jp",
        "service": "comics",
        "content_id": "c-1234567",
        "logic": "new-volume",
        "variant": "linucb",
        "model": "linucb-1a2b3c4d",
        "model_version": 1234,
        "propensity": 0.125,
        "features": events_pb2.Features(ids=[0xFFFF_0000 + n for n in range(30)]),
        "decided_at_ms": int(NOW_S * 1000),
        "origin": events_pb2.ORIGIN_POLICY,
    }
    return events_pb2.Decision(**(fields | changes))  # type: ignore[arg-type]


TOKEN = KEYS.sign(decision())


def verify(token: bytes, keys: KeyRing = KEYS, *, now_s: float = NOW_S) -> events_pb2.Decision:
    return keys.verify(token, now_s=now_s, max_age_s=MAX_AGE_S)


def fault(token: bytes, keys: KeyRing = KEYS, *, now_s: float = NOW_S) -> TokenFault:
    with pytest.raises(TokenError) as refused:
        verify(token, keys, now_s=now_s)
    return refused.value.fault


def signed(body: bytes) -> bytes:
    """A token with any body, signed with our key."""
    head = bytes((VERSION, 1)) + body
    return head + hmac.digest(KEYS.keys[1], head, hashlib.sha256)[:TAG_BYTES]


def test_a_token_carries_its_decision() -> None:
    assert verify(TOKEN) == decision()


def test_a_token_of_a_typical_decision_has_at_most_300_bytes() -> None:
    assert len(TOKEN) <= 300


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_a_token_with_any_bit_flipped_is_refused(bit: int) -> None:
    changed = bytearray(TOKEN)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TokenError):
        verify(bytes(changed))


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_a_flipped_key_number_does_not_help_even_when_that_key_exists(bit: int) -> None:
    all_keys = KeyRing({number: KEYS.keys[1] if number == 1 else bytes(32) for number in range(256)}, signing=1)
    changed = bytearray(TOKEN)
    changed[bit // 8] ^= 1 << bit % 8
    assert fault(bytes(changed), all_keys) in (TokenFault.FORGED, TokenFault.MALFORMED)


@given(st.integers(0, len(TOKEN) - 1))
def test_a_cut_token_is_refused(length: int) -> None:
    assert fault(TOKEN[:length]) in (TokenFault.MALFORMED, TokenFault.FORGED)


@given(st.binary(max_size=400))
def test_no_bytes_of_anybody_are_a_token(garbage: bytes) -> None:
    with pytest.raises(TokenError):
        verify(garbage)


@given(st.binary(max_size=200))
def test_no_signed_body_crashes_the_check(body: bytes) -> None:
    assert fault(signed(body)) in (TokenFault.MALFORMED, TokenFault.EXPIRED)


def test_an_empty_and_an_oversized_token_are_malformed() -> None:
    assert fault(b"") is TokenFault.MALFORMED
    assert fault(TOKEN + bytes(MAX_TOKEN_BYTES)) is TokenFault.MALFORMED


def test_a_token_of_another_version_is_malformed() -> None:
    assert fault(bytes([VERSION + 1]) + TOKEN[1:]) is TokenFault.MALFORMED


def test_a_token_signed_with_another_key_of_the_same_number_is_forged() -> None:
    foreign = KeyRing.parse("1:" + "ff" * 32).sign(decision())
    with pytest.raises(TokenError) as refused:
        verify(foreign)
    assert (refused.value.fault, refused.value.key) == (TokenFault.FORGED, 1)


def test_a_token_with_an_unknown_key_number_says_which_and_names_no_key_of_ours() -> None:
    foreign = KeyRing.parse("77:" + "ff" * 32).sign(decision())
    with pytest.raises(TokenError, match="key 77") as refused:
        verify(foreign)
    assert (refused.value.fault, refused.value.key) == (TokenFault.UNKNOWN_KEY, None)


@pytest.mark.parametrize("wrong", [{"impression_id": b"short"}, {"impression_id": b""}, {"user_id": ""}])
def test_a_signed_decision_without_impression_or_user_is_malformed(wrong: dict[str, object]) -> None:
    assert fault(KEYS.sign(decision(**wrong))) is TokenFault.MALFORMED


def test_a_token_is_good_up_to_its_greatest_age_and_not_a_second_longer() -> None:
    assert verify(TOKEN, now_s=NOW_S + MAX_AGE_S)
    assert fault(TOKEN, now_s=NOW_S + MAX_AGE_S + 1) is TokenFault.EXPIRED


def test_a_token_may_come_from_a_clock_a_little_ahead_and_no_further() -> None:
    assert verify(TOKEN, now_s=NOW_S - MAX_FUTURE_S)
    assert fault(TOKEN, now_s=NOW_S - MAX_FUTURE_S - 1) is TokenFault.EXPIRED


def test_unknown_fields_of_a_newer_engine_survive() -> None:
    newer = decision().SerializeToString() + b"\xa2\x06\x03new"  # field 100, length 3
    assert verify(signed(newer)).SerializeToString() == newer


class TestRotation:
    """Keys are added behind the old one, then put first, then the old one is dropped."""

    def test_a_token_of_the_old_key_is_good_while_the_ring_still_has_it(self) -> None:
        assert verify(TOKEN, KeyRing.parse(f"{NEW},{OLD}"))

    def test_the_first_key_of_the_ring_signs(self) -> None:
        token = KeyRing.parse(f"{NEW},{OLD}").sign(decision())
        assert token[1] == 2
        assert verify(token, KeyRing.parse(f"{OLD},{NEW}"))

    def test_a_service_that_has_not_heard_of_the_new_key_refuses_it_as_unknown(self) -> None:
        assert fault(KeyRing.parse(NEW).sign(decision())) is TokenFault.UNKNOWN_KEY

    def test_a_token_of_a_dropped_key_is_unknown(self) -> None:
        assert fault(TOKEN, KeyRing.parse(NEW)) is TokenFault.UNKNOWN_KEY


class TestKeyRing:
    """Reading the keys from the environment."""

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "part 1: must be number:hex"),
            ("0a0a", "part 1: must be number:hex"),
            ("256:" + "0a" * 32, "part 1: must be number:hex with a number from 0 to 255"),
            ("-1:" + "0a" * 32, "part 1: must be number:hex"),
            (f"{OLD},", "part 2: must be number:hex"),
            ("1:xyz", "part 1: the key is not hexadecimal"),
            ("1:" + "0a" * 15, "part 1: the key has 15 bytes; at least 16"),
            (f"{OLD},{OLD}", "part 2: number 1 stands twice"),
        ],
    )
    def test_a_wrong_ring_is_refused_with_the_part_that_is_wrong(self, text: str, problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            KeyRing.parse(text)

    def test_no_key_is_ever_shown(self) -> None:
        secret = "5e" * 20
        with pytest.raises(ConfigurationError) as refused:
            KeyRing.parse(f"1:{secret},1:{secret}")
        assert secret not in str(refused.value)
        assert secret not in repr(KeyRing.parse(f"1:{secret}")).replace(" ", "")
        assert repr(bytes.fromhex(secret)) not in repr(KeyRing.parse(f"1:{secret}"))

    def test_blanks_around_the_parts_do_not_matter(self) -> None:
        assert KeyRing.parse(f" {NEW} , {OLD} ") == KeyRing.parse(f"{NEW},{OLD}")


def test_the_largest_token_is_as_large_as_a_decision_with_the_longest_of_everything() -> None:
    largest = largest_token_bytes("head", ["weather", "today"], ["linucb-0123456789"], features=20)
    decision = events_pb2.Decision(
        impression_id=bytes(16),
        user_id="u" * 128,
        placement="head",
        service="weather",
        content_id="c" * 256,
        logic="today!!",
        position=49,
        variant="learned",
        model="linucb-0123456789",
        model_version=40,
        propensity=0.1,
        features=events_pb2.Features(ids=range(20), values=[0.1] * 20),
        decided_at_ms=1_700_000_000_000,
        origin=events_pb2.ORIGIN_POLICY,
    )
    size = len(KeyRing.parse("1:" + "ab" * 32).sign(decision))
    assert size <= largest < size + 40
    assert largest_token_bytes("head", ["weather"], ["m"], features=440) <= MAX_TOKEN_BYTES
    assert largest_token_bytes("head", ["weather"], ["m"], features=460) > MAX_TOKEN_BYTES
