"""Packed Redis values: byte layouts that numpy reads without a loop.

All numbers are little-endian. A value starts with a version so that a reader knows whether it belongs to the live
mapping.

=============  =========================================================================================================
candidates     ``u32 version``, then ``n`` x ``u64 content key``, then ``n`` x ``f16 score`` (best first)
profile        ``u32 version``, then JSON: ``{"field": "value" | number | ["several", …]}``
state          :data:`STATE_HEADER`, then ``n_clicks + n_mutes`` x :data:`EVENT`, newest first
live pointer   ``"<version>:<slot>:<name>"``; version counts up from 1, slot is 0 or 1, name is the caller's
content        a serialised ``provider.v1.Content`` behind ``u16 length`` and the service's name
=============  =========================================================================================================
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

VERSION: Final = struct.Struct("<I")
CANDIDATE_BYTES: Final = 10
_LENGTH: Final = struct.Struct("<H")

STATE_HEADER: Final = np.dtype(
    [
        # The partition's offset of the last reaction that is in here: work done again after a crash is recognised by
        # it.
        ("offset", "<i8"),
        ("feedback", "<u4"),
        ("clicks", "<u4"),
        ("mutes", "<u4"),
        ("n_clicks", "<u2"),
        ("n_mutes", "<u2"),
    ]
)
EVENT: Final = np.dtype([("time_s", "<u4"), ("content", "<u8"), ("service", "<u8"), ("placement", "<u8")])

# How many events a state remembers of each kind. 20 clicks and 12 mutes are 920 bytes at the very most; few users have
# that many.
MAX_CLICKS: Final = 20
MAX_MUTES: Final = 12

_NO_CANDIDATES: Final = VERSION.pack(0)
_HEAD: Final = struct.Struct("<qIIIHH")  # STATE_HEADER for one user
_NO_STATE: Final = (0, 0, 0, 0, 0, 0)

Profile = dict[str, str | float | list[str]]


def pack_candidates(version: int, contents: NDArray[np.uint64], scores: NDArray[np.float32] | None = None) -> bytes:
    """Pack the candidates of one user.

    Args:
        version: Of the mapping, from 1.
        contents: ``uint64[n]``, content keys, the best first.
        scores: ``float32[n]``, what the service's logic thinks of them; absent: all 0.
    """
    half = np.zeros(len(contents), "<f2") if scores is None else np.asarray(scores, "<f2")
    return VERSION.pack(version) + np.asarray(contents, "<u8").tobytes() + half.tobytes()


def pack_candidate_rows(
    version: int, offsets: NDArray[np.int64], contents: NDArray[np.uint64], scores: NDArray[np.float16]
) -> list[bytes]:
    """Pack the candidates of many users, each as :func:`pack_candidates` does.

    Args:
        version: Of the mapping, from 1.
        offsets: ``int64[n_users + 1]``; user i owns ``contents[offsets[i]:offsets[i + 1]]``.
        contents: ``uint64[n]``, content keys, the best first.
        scores: ``float16[n]``.
    """
    header = VERSION.pack(version)
    keys, halves = np.asarray(contents, "<u8").tobytes(), np.asarray(scores, "<f2").tobytes()
    bounds = pairwise(offsets.tolist())
    return [header + keys[8 * start : 8 * end] + halves[2 * start : 2 * end] for start, end in bounds]


def candidate_count(value: bytes) -> int:
    """Return how many candidates a packed value holds."""
    return (len(value) - VERSION.size) // CANDIDATE_BYTES


def unpack_candidates(value: bytes) -> tuple[int, NDArray[np.uint64], NDArray[np.float16]]:
    """Return the version, ``uint64[n]`` content keys and ``float16[n]`` scores of a packed value, without a copy."""
    n = candidate_count(value)
    keys = np.frombuffer(value, "<u8", n, VERSION.size)
    scores = np.frombuffer(value, "<f2", n, VERSION.size + 8 * n)
    return VERSION.unpack_from(value)[0], keys, scores


def unpack_candidate_batch(
    values: Sequence[bytes | None], versions: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Unpack many values of candidates at once; what is missing, or of another version than wanted, holds none.

    Args:
        values: ``n`` packed values.
        versions: ``uint32[n]``, the version wanted of each.

    Returns:
        ``int64[n]``, the number of candidates in each value, and ``uint64[sum]``, their content keys one after the
        other.
    """
    present = [value if value is not None and len(value) >= VERSION.size else _NO_CANDIDATES for value in values]
    found = np.frombuffer(b"".join([value[: VERSION.size] for value in present]), "<u4")
    counts = (np.fromiter(map(len, present), np.int64, len(present)) - VERSION.size) // CANDIDATE_BYTES
    counts[found != versions] = 0
    ends = (counts * 8 + VERSION.size).tolist()
    keys = b"".join([value[VERSION.size : end] for value, end in zip(present, ends, strict=True)])
    return counts, np.frombuffer(keys, "<u8")


def pack_profile(version: int, profile: Profile) -> bytes:
    """Pack the profile of one user; keys are sorted so that equal profiles are equal bytes."""
    text = json.dumps(profile, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)
    return VERSION.pack(version) + text.encode()


def unpack_profile(value: bytes) -> tuple[int, Profile]:
    """Return the version and the profile of a packed value."""
    profile: Profile = json.loads(value[VERSION.size :])
    return VERSION.unpack_from(value)[0], profile


def pack_content(service: str, content: bytes) -> bytes:
    """Pack a content.

    Args:
        service: Its service; a content key is a hash, and this is where the names are found again.
        content: A serialised ``provider.v1.Content``.
    """
    name = service.encode()
    return _LENGTH.pack(len(name)) + name + content


def unpack_content(value: bytes) -> tuple[str, bytes]:
    """Return the service and the serialised ``provider.v1.Content`` of a packed value."""
    end = _LENGTH.size + _LENGTH.unpack_from(value)[0]
    return value[_LENGTH.size : end].decode(), value[end:]


@dataclass(frozen=True)
class LiveVersion:
    """Which version of a source (or of the profiles) readers must use."""

    version: int
    slot: int
    name: str

    def pack(self) -> bytes:
        """Return the pointer's value."""
        return f"{self.version}:{self.slot}:{self.name}".encode()

    @classmethod
    def unpack(cls, value: bytes) -> LiveVersion:
        """Read a pointer's value."""
        version, slot, name = value.decode().split(":", 2)
        return cls(int(version), int(slot), name)


@dataclass(frozen=True)
class UserState:
    """What the joiner keeps of a user. Immutable; :meth:`apply` returns the next one.

    Attributes:
        offset: Offset (in the user's reactions partition) of the last reaction that is in here; -1: none.
        feedback: Reactions ever.
        clicks: Clicks ever.
        mutes: Mutes ever.
        recent_clicks: ``EVENT[≤ MAX_CLICKS]``, the newest first.
        recent_mutes: ``EVENT[≤ MAX_MUTES]``, the newest first.
    """

    offset: int
    feedback: int
    clicks: int
    mutes: int
    recent_clicks: NDArray[np.void]
    recent_mutes: NDArray[np.void]

    @classmethod
    def empty(cls) -> UserState:
        """Return the state of a user who never reacted."""
        none = np.empty(0, EVENT)
        return cls(-1, 0, 0, 0, none, none)

    def pack(self) -> bytes:
        """Return the packed value."""
        header = np.zeros((), STATE_HEADER)
        header["offset"], header["feedback"] = self.offset, self.feedback
        header["clicks"], header["mutes"] = self.clicks, self.mutes
        header["n_clicks"], header["n_mutes"] = len(self.recent_clicks), len(self.recent_mutes)
        return header.tobytes() + self.recent_clicks.tobytes() + self.recent_mutes.tobytes()

    @classmethod
    def unpack(cls, value: bytes) -> UserState:
        """Read a packed value, without a copy of the events."""
        header = np.frombuffer(value, STATE_HEADER, 1)[0]
        n_clicks, n_mutes = int(header["n_clicks"]), int(header["n_mutes"])
        events = np.frombuffer(value, EVENT, n_clicks + n_mutes, STATE_HEADER.itemsize)
        return cls(
            int(header["offset"]),
            int(header["feedback"]),
            int(header["clicks"]),
            int(header["mutes"]),
            events[:n_clicks],
            events[n_clicks:],
        )

    def apply(self, offset: int, kind: str, event: NDArray[np.void]) -> UserState:
        """Return the state with one more reaction in it, or this state when it is in already.

        Args:
            offset: The reaction's offset in its partition.
            kind: ``click``, ``mute`` or ``target``.
            event: One :data:`EVENT`.
        """
        if offset <= self.offset:
            return self
        click, mute = kind == "click", kind == "mute"
        return UserState(
            offset,
            self.feedback + 1,
            self.clicks + click,
            self.mutes + mute,
            _newest(event, self.recent_clicks, MAX_CLICKS) if click else self.recent_clicks,
            _newest(event, self.recent_mutes, MAX_MUTES) if mute else self.recent_mutes,
        )


@dataclass(frozen=True, slots=True, eq=False)
class UserStates:
    """The states of a batch of users, flat.

    Attributes:
        feedback, clicks, mutes: ``int64[n_users]``, reactions of any kind, clicks and mutes ever.
        click_owners: ``int64[n_click_events]``, the user of each remembered click.
        click_events: ``EVENT[n_click_events]``, a user's newest first.
        mute_owners: ``int64[n_mute_events]``.
        mute_events: ``EVENT[n_mute_events]``.
    """

    feedback: NDArray[np.int64]
    clicks: NDArray[np.int64]
    mutes: NDArray[np.int64]
    click_owners: NDArray[np.int64]
    click_events: NDArray[np.void]
    mute_owners: NDArray[np.int64]
    mute_events: NDArray[np.void]


def unpack_states(values: Sequence[bytes | None]) -> UserStates:
    """Unpack the states of ``n`` users at once. None, or a value whose length is not what its header says, is an empty
    state."""
    # `struct` a user, numpy for what remembers something: most users remember little, and a structured array is slow.
    heads = [_NO_STATE if value is None else _head(value) for value in values]
    events = [
        (owner, n_clicks, n_mutes) for owner, (_, _, _, _, n_clicks, n_mutes) in enumerate(heads) if n_clicks or n_mutes
    ]
    counts = np.array([head[1:4] for head in heads], np.int64).reshape(-1, 3)
    clicks = b"".join(
        [values[owner][_HEAD.size : _HEAD.size + n * EVENT.itemsize] for owner, n, _ in events]  # type: ignore[index]
    )
    mutes = b"".join([values[owner][_HEAD.size + n * EVENT.itemsize :] for owner, n, _ in events])  # type: ignore[index]
    owners = np.array([owner for owner, _, _ in events], np.int64)
    return UserStates(
        counts[:, 0],
        counts[:, 1],
        counts[:, 2],
        owners.repeat([n for _, n, _ in events]),
        np.frombuffer(clicks, EVENT),
        owners.repeat([n for _, _, n in events]),
        np.frombuffer(mutes, EVENT),
    )


def _head(value: bytes) -> tuple[int, ...]:
    """The header of a state: offset, feedback, clicks, mutes, n_clicks, n_mutes; zeros when the value is broken."""
    if len(value) < _HEAD.size:
        return _NO_STATE
    head = _HEAD.unpack_from(value)
    return head if len(value) == _HEAD.size + (head[4] + head[5]) * EVENT.itemsize else _NO_STATE


def _newest(event: NDArray[np.void], events: NDArray[np.void], most: int) -> NDArray[np.void]:
    return np.concatenate([np.atleast_1d(event), events[: most - 1]])
