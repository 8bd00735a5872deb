"""The mesh's topics: their names, how they are created, and what existing ones must be like.

All topics are keyed by ``user_id`` (UTF-8) and have the same number of partitions, so that everything of a user stands
in one partition number everywhere: the join compares an impressions partition with the reactions partition of the same
number, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    InvalidConfigurationError,
    KafkaConnectionError,
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    for_code,
)
from murmurhash2 import murmurhash2

from banditmesh.runtime.addresses import KafkaAddress
from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.kafka.connect import client_options, kafka_address, why_not
from banditmesh.runtime.kafka.metadata import TopicState, ask_topics
from banditmesh.runtime.kafka.topic_check import (
    DENIED,
    MIN_MESSAGE_BYTES,
    MUST,
    SAFE,
    Topics,
    Wanted,
    check_partitions,
    check_settings,
)
from banditmesh.runtime.logging import get_logger

__all__ = ["MIN_MESSAGE_BYTES", "Topics", "ensure_topics", "partition_of"]

log = get_logger(__name__)

DAY_MS = 86_400_000
_POLL_S = 0.1

_RETENTION_MS = {
    # Read within minutes; a week lets an operator replay through a long weekend.
    "impressions": 7 * DAY_MS,
    "reactions": 7 * DAY_MS,
    # What a model is trained again from.
    "examples": 30 * DAY_MS,
    # What people look at when something went wrong some time ago.
    "late_reactions": 30 * DAY_MS,
    "dead_letters": 30 * DAY_MS,
    # Archived within hours.
    "decisions": 7 * DAY_MS,
}


_KAFKAS_SEED: Final = 0x9747B28C


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as the default partitioner of Kafka's Java client chooses it (murmur2), so that producers
    in other languages agree about where a user is."""
    return (murmurhash2(key, _KAFKAS_SEED) & 0x7FFFFFFF) % partitions


async def ensure_topics(
    kafka: KafkaAddress | str,
    topics: Topics,
    *,
    partitions: int,
    replication: int,
    min_retention_s: float = 0.0,
    same_partitions: bool = False,
    again: bool = False,
    rests_on: Collection[str] = (),
    deadline_s: float = 30.0,
) -> int:
    """Create the topics that are missing, check those that exist, and return how many partitions each of them has.

    Several services may do this at the same time. What the Kafka user may not do is done without where it is no must: a
    user that may not create topics finds them created, one that may not describe their settings goes on with a word
    in the log. For the arguments see :class:`Wanted`; ``deadline_s`` is for all of it.

    Raises:
        ConfigurationError: A topic has other settings than the mesh needs; names the topic, the setting and its value.
        Unavailable: Kafka did not answer or does not let us in, or topics are missing that this user may not create.
    """
    wanted = Wanted(topics, partitions, replication, min_retention_s, same_partitions, again, rests_on)
    address = kafka_address(kafka)
    try:
        async with asyncio.timeout(deadline_s):
            admin = AIOKafkaAdminClient(**client_options(address))
            try:
                await admin.start()
                found = await _create_missing(admin, wanted)
                if not again:
                    check_partitions(found, wanted)
                await check_settings(admin, wanted, found)
            finally:
                await admin.close()
    except TimeoutError as error:
        raise Unavailable(
            f"Kafka at {address} did not create or describe the topics within {deadline_s:g} s",
            hint="see BANDITMESH_KAFKA",
            retry_after_s=1.0,
            dependency="kafka",
        ) from error
    except KafkaConnectionError as error:
        raise Unavailable(
            f"Kafka at {address} {await why_not(address)}",
            hint="see BANDITMESH_KAFKA",
            retry_after_s=1.0,
            dependency="kafka",
        ) from error
    except KafkaError as error:
        raise Unavailable(
            f"Kafka at {address}: {error or type(error).__name__}", retry_after_s=1.0, dependency="kafka"
        ) from error
    return found[topics.impressions].partitions


async def _create_missing(admin: AIOKafkaAdminClient, wanted: Wanted) -> dict[str, TopicState]:
    """The state of each topic, once all of them exist and have leaders."""
    states = await ask_topics(admin._client, list(wanted.topics))
    denied = [name for name, state in states.items() if state.denied]
    if wanted.topics.impressions in denied:
        raise Unavailable(
            f"this Kafka user may not describe topic {wanted.topics.impressions!r}",
            hint="permit Describe (docs/operations.md)",
            retry_after_s=5.0,
        )
    if denied and not wanted.again:
        log.info("topics that this kafka user may not describe are not looked at", topics=denied)
    needed = [name for name in wanted.topics if name not in denied]
    found = _led(states)
    missing = [name for name in needed if name not in found]
    if missing:
        partitions = next((state.partitions for state in found.values() if state.partitions), wanted.partitions)
        done_without = await _create(admin, wanted, missing, partitions)
        needed = [name for name in needed if name not in done_without]
    while len(found) < len(needed):  # the other brokers hear of it a moment later
        await asyncio.sleep(_POLL_S)
        found = _led(await ask_topics(admin._client, needed))
    return found


def _led(states: Mapping[str, TopicState]) -> dict[str, TopicState]:
    return {name: state for name, state in states.items() if state.partitions}


async def _create(admin: AIOKafkaAdminClient, wanted: Wanted, missing: list[str], partitions: int) -> list[str]:
    """Create topics; where the broker refuses settings that are no must, without those. Returns those that the mesh
    does without."""
    # By time alone: a broker's own log.retention.bytes would let busy partitions forget what is not joined yet.
    safe = {**SAFE, "min.insync.replicas": str(wanted.min_insync), "retention.bytes": "-1"}
    for settings in (MUST | safe, MUST):
        refused = await _try_to_create(admin, wanted, missing, partitions, settings)
        names = [
            name for name, (error, _) in refused.items() if error in (InvalidConfigurationError, PolicyViolationError)
        ]
        if not names:
            break
        missing = names
        log.warning("the broker refuses settings for new topics; creating them without", settings=safe, topics=missing)
    denied = [name for name, (error, _) in refused.items() if error in DENIED]
    if denied == [wanted.topics.decisions]:
        if not wanted.again:
            log.warning("this Kafka user may not create the topic, so no decisions are sampled", topic=denied[0])
        return denied
    if denied:
        must = ", ".join(f"{setting}={value}" for setting, value in MUST.items())
        raise Unavailable(
            f"topics are missing, and this Kafka user may not create them: {', '.join(denied)}",
            hint=f"create each with {partitions} partitions and {must}, or permit Create (docs/operations.md)",
            retry_after_s=5.0,
        )
    for name, (error, message) in refused.items():
        raise ConfigurationError(
            f"topic {name!r} cannot be created with {partitions} partitions and replication {wanted.replication}: "
            f"{error.__name__}{': ' + message if message else ''}"
        )
    return []


async def _try_to_create(
    admin: AIOKafkaAdminClient, wanted: Wanted, names: list[str], partitions: int, settings: Mapping[str, str]
) -> dict[str, tuple[type[KafkaError], str]]:
    """Which of the topics the broker refuses to create, and why."""
    retention_ms = {
        name: max(by_default, int(wanted.min_retention_s * 1000))
        for name, by_default in zip(wanted.topics, _RETENTION_MS.values(), strict=True)
    }
    new = [
        NewTopic(
            name,
            partitions,
            wanted.replication,
            topic_configs={**settings, "retention.ms": str(retention_ms[name])},
        )
        for name in names
    ]
    response = await admin.create_topics(new)
    refused: dict[str, tuple[type[KafkaError], str]] = {}
    made = [name for name, code, *_ in response.topic_errors if not code]
    if made and wanted.again:
        log.error("topics that were there are gone, with all that stood in them; they are made anew", topics=made)
    elif made:
        log.info("topics created", topics=made, partitions=partitions, replication=wanted.replication)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another service was faster: just as well
            refused[name] = error, (message[0] or "") if message else ""
    return refused
