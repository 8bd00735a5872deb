"""The impression token: what a decision was made from, signed, on its round trip through the app.

Layout: ``version (1 byte) | key number (1 byte) | body | tag (16 bytes)``; the body is a serialised
``events.v1.Decision``, the tag the
first 128 bits of HMAC-SHA256 (RFC 2104, truncated as its section 5 allows) over all that precedes it. Apps treat it as
opaque bytes.

Keys rotate: the first key of the ring signs, every key of it verifies. To rotate, add the new key behind the old one
everywhere, then put it first, and drop the old one when ``token.max_age`` has passed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from google.protobuf.message import DecodeError

from banditmesh.contracts.events.v1 import events_pb2
from banditmesh.lengths import MAX_CONTENT_ID_BYTES, MAX_USER_ID_BYTES
from banditmesh.runtime.errors import ConfigurationError

VERSION = 1
TAG_BYTES = 16
MIN_KEY_BYTES = 16
MAX_TOKEN_BYTES = 4096
IMPRESSION_ID_BYTES = 16
MOST_LABELS = 8
"""What an impression is counted by beside its content, at most (``Decision.counted_by``)."""
NEAR_TOKEN_BYTES = MAX_TOKEN_BYTES * 3 // 4
"""From here on the engine counts tokens, before one is too large."""
MAX_FUTURE_S = 60.0
"""A decision may seem this far in the future: clocks of engines and trackers differ."""

_OVERHEAD = 2 + TAG_BYTES


class TokenFault(Enum):
    """Why a token was refused."""

    MALFORMED = "it is empty, cut, or not an impression token"
    FORGED = "its signature does not fit; hand the bytes back exactly as they came with the content"
    UNKNOWN_KEY = "it was signed with a key that this mesh does not have (any more)"
    EXPIRED = "it is older than token.max_age, or from the future"


class TokenError(Exception):
    """A token that cannot be trusted; ``key`` is the number of the known key that it names, if it names one."""

    def __init__(self, fault: TokenFault, detail: str, key: int | None = None) -> None:
        super().__init__(f"impression token: {detail}")
        self.fault = fault
        self.key = key


def largest_token_bytes(
    placement: str, names: Collection[str], models: Collection[str], features: int, labels: int = 0
) -> int:
    """How large the token of a decision can become, every text as long as it may be.

    Args:
        placement: Its name.
        names: Of services, logics and variants that may stand in it.
        models: Names of the placement's models.
        features: How many a decision has at most.
        labels: How many keys an impression is counted by at most.
    """
    longest = max((len(name.encode()) for name in names), default=0)
    decision = events_pb2.Decision(
        impression_id=bytes(IMPRESSION_ID_BYTES),
        user_id="u" * MAX_USER_ID_BYTES,
        placement=placement,
        service="s" * longest,
        content_id="c" * MAX_CONTENT_ID_BYTES,
        logic="l" * longest,
        position=2**31,
        variant="v" * longest,
        model="m" * max((len(name.encode()) for name in models), default=0),
        model_version=2**63,
        propensity=0.5,
        features=events_pb2.Features(ids=[2**32 - 1] * features, values=[0.5] * features),
        counted_by=[2**64 - 1] * labels,
        decided_at_ms=2**62,
        origin=events_pb2.ORIGIN_POLICY,
    )
    return _OVERHEAD + decision.ByteSize()


@dataclass(frozen=True)
class KeyRing:
    """The keys of a mesh: ``keys[number]``, and the one that signs. Immutable, so it is safe to share between tasks.

    Attributes:
        keys: Key by number, 0 to 255; a number is never used again for another key.
        signing: Number of the key that signs.
    """

    keys: dict[int, bytes]
    signing: int

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read ``number:hex,number:hex``; the first one signs.

        Raises:
            ConfigurationError: A part is not ``number:hex``, a number stands twice or is above 255, or a key is
            shorter than 16 bytes. The
                message never shows a key.
        """
        keys: dict[int, bytes] = {}
        for position, part in enumerate(text.split(",")):
            number, _, digits = part.strip().partition(":")
            where = f"token keys: part {position + 1}"
            if not number.isdecimal() or int(number) > 255:
                raise ConfigurationError(f"{where}: must be number:hex with a number from 0 to 255")
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                raise ConfigurationError(f"{where}: the key is not hexadecimal") from None
            if len(key) < MIN_KEY_BYTES:
                raise ConfigurationError(
                    f"{where}: the key has {len(key)} bytes; at least {MIN_KEY_BYTES} are needed (openssl rand -hex 32)"
                )
            if int(number) in keys:
                raise ConfigurationError(f"{where}: number {number} stands twice")
            keys[int(number)] = key
        return cls(keys, next(iter(keys)))

    def __repr__(self) -> str:
        return f"KeyRing(numbers={sorted(self.keys)}, signing={self.signing})"

    def sign(self, decision: events_pb2.Decision) -> bytes:
        """Return the token of a decision."""
        return self.seal(decision.SerializeToString())

    def seal(self, body: bytes) -> bytes:
        """Return the token of a serialised decision."""
        head = bytes((VERSION, self.signing)) + body
        return head + _tag(self.keys[self.signing], head)

    def verify(self, token: bytes, *, now_s: float, max_age_s: float) -> events_pb2.Decision:
        """Return the decision that a token carries; see :meth:`read`."""
        return self.read(token, now_s=now_s, max_age_s=max_age_s)[0]

    def read(self, token: bytes, *, now_s: float, max_age_s: float) -> tuple[events_pb2.Decision, int]:
        """Return the decision that a token carries, and the number of the key that signed it.

        Args:
            token: As the app sent it.
            now_s: The present, seconds since the Unix epoch.
            max_age_s: How old a decision may be.

        Raises:
            TokenError: It cannot be trusted; ``fault`` says why.
        """
        if not _OVERHEAD < len(token) <= MAX_TOKEN_BYTES or token[0] != VERSION:
            raise TokenError(TokenFault.MALFORMED, f"{TokenFault.MALFORMED.value} ({len(token)} bytes)")
        number = token[1]
        key = self.keys.get(number)
        if key is None:
            raise TokenError(TokenFault.UNKNOWN_KEY, f"{TokenFault.UNKNOWN_KEY.value} (key {number})")
        head, tag = token[:-TAG_BYTES], token[-TAG_BYTES:]
        if not hmac.compare_digest(_tag(key, head), tag):
            raise TokenError(TokenFault.FORGED, TokenFault.FORGED.value, number)
        try:
            decision = events_pb2.Decision.FromString(head[2:])
        except DecodeError as error:
            raise TokenError(TokenFault.MALFORMED, TokenFault.MALFORMED.value, number) from error
        # Signed by us, so these hold unless another program has the key; whoever reads the decision relies on them.
        if len(decision.impression_id) != IMPRESSION_ID_BYTES or not decision.user_id:
            raise TokenError(TokenFault.MALFORMED, "it carries no impression id of 16 bytes, or no user id", number)
        age_s = now_s - decision.decided_at_ms / 1000
        if not -MAX_FUTURE_S <= age_s <= max_age_s:
            detail = f"{TokenFault.EXPIRED.value} (its age is {age_s:.0f} s, allowed are {max_age_s:.0f} s)"
            raise TokenError(TokenFault.EXPIRED, detail, number)
        return decision, number


def _tag(key: bytes, head: bytes) -> bytes:
    # hmac.digest is the one-shot C path: half the time of an HMAC object.
    return hmac.digest(key, head, hashlib.sha256)[:TAG_BYTES]
