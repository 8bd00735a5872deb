"""The mesh's topics: their names, how they are created, and what existing ones must be like.

All topics are keyed by ``user_id`` (UTF-8) and have the same number of partitions, so that everything of a user stands
in one partition number everywhere: the join compares an impressions partition with the reactions partition of the same
number, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code
from aiokafka.partitioner import murmur2

from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

DAY_MS = 86_400_000
MIN_MESSAGE_BYTES = 256 * 1024
"""``max.message.bytes`` limits a whole batch; ours have up to 128 KiB, and one record may make a batch of its own."""
_POLL_S = 0.1

_SETTINGS = {
    # The broker's time decides every join; a client's clock would let a phone decide it.
    "message.timestamp.type": "LogAppendTime",
    # Each record is an event of its own: compaction would drop all but the newest of a user.
    "cleanup.policy": "delete",
    # A replica that is behind must not become leader: it would forget what was acknowledged.
    "unclean.leader.election.enable": "false",
}
_RETENTION_MS = {
    # Read within minutes; a week lets an operator replay through a long weekend.
    "impressions": 7 * DAY_MS,
    "reactions": 7 * DAY_MS,
    # What a model is trained again from.
    "examples": 30 * DAY_MS,
    # What people look at when something went wrong some time ago.
    "late_reactions": 30 * DAY_MS,
    "dead_letters": 30 * DAY_MS,
}


@dataclass(frozen=True)
class Topics:
    """Names of the topics of one mesh."""

    impressions: str
    reactions: str
    examples: str
    late_reactions: str
    dead_letters: str

    @classmethod
    def named(cls, prefix: str = "") -> Topics:
        """The names with ``kafka.topic_prefix`` of mesh.yaml before each."""
        return cls(
            *(prefix + name for name in ("impressions", "reactions", "examples", "late-reactions", "dead-letters"))
        )

    def __iter__(self) -> Iterator[str]:
        return iter(astuple(self))


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as the default partitioner of Kafka's Java client chooses it (murmur2), so that producers
    in other languages agree about where a user is."""
    hashed: int = murmur2(key)
    return (hashed & 0x7FFFFFFF) % partitions


async def ensure_topics(
    bootstrap: str,
    topics: Topics,
    *,
    partitions: int,
    replication: int,
    min_retention_s: float = 0.0,
    deadline_s: float = 30.0,
) -> int:
    """Create the topics that are missing, check those that exist, and return how many partitions each of them has.

    Several services may do this at the same time. New topics get the partition count of those that exist already, else
    ``partitions``.

    Args:
        bootstrap: ``host:port,host:port``.
        topics: Their names.
        partitions: Of each topic, when none exists yet.
        replication: Replicas of a new topic; all but one of them must have a record before it is acknowledged.
        min_retention_s: ``join.window + join.slack``: impressions and reactions that forget sooner are refused.
        deadline_s: For all of it.

    Raises:
        ConfigurationError: A topic has other settings than the mesh needs; names the topic, the setting and its value.
        Unavailable: Kafka did not answer, or refused.
    """
    try:
        async with asyncio.timeout(deadline_s):
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            try:
                await admin.start()
                found = await _create_missing(admin, topics, partitions, replication, min_retention_s)
                _check_partitions(found)
                await _check_settings(admin, topics, min_retention_s)
            finally:
                await admin.close()
    except TimeoutError as error:
        raise Unavailable(
            f"Kafka at {bootstrap} did not create or describe the topics within {deadline_s:g} s"
        ) from error
    except KafkaError as error:
        raise Unavailable(f"Kafka at {bootstrap}: {error or type(error).__name__}", retry_after_s=1.0) from error
    return found[topics.impressions]


async def _create_missing(
    admin: AIOKafkaAdminClient, topics: Topics, partitions: int, replication: int, min_retention_s: float
) -> dict[str, int]:
    """Partition count of each topic, once all of them exist."""
    found = await _partition_counts(admin, topics)
    missing = [name for name in topics if name not in found]
    if missing:
        count = next(iter(found.values()), partitions)
        retention_ms = {
            name: max(by_default, int(min_retention_s * 1000))
            for name, by_default in zip(topics, _RETENTION_MS.values(), strict=True)
        }
        await _create(admin, {name: retention_ms[name] for name in missing}, count, replication)
        log.info("topics created", topics=missing, partitions=count, replication=replication)
    while missing:  # the controller has created them; the other brokers hear of it a moment later
        found = await _partition_counts(admin, topics)
        missing = [name for name in topics if name not in found]
        if missing:
            await asyncio.sleep(_POLL_S)
    return found


async def _create(
    admin: AIOKafkaAdminClient, retention_ms: Mapping[str, int], partitions: int, replication: int
) -> None:
    min_insync = {"min.insync.replicas": str(max(1, replication - 1))}
    wanted = [
        NewTopic(
            name,
            partitions,
            replication,
            topic_configs=_SETTINGS | min_insync | {"retention.ms": str(keep_ms)},
        )
        for name, keep_ms in retention_ms.items()
    ]
    response = await admin.create_topics(wanted)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another service was faster: just as well
            raise ConfigurationError(
                f"topic {name!r} cannot be created with {partitions} partitions and replication {replication}: "
                f"{error.__name__}{': ' + message[0] if message and message[0] else ''}"
            )


async def _partition_counts(admin: AIOKafkaAdminClient, topics: Topics) -> dict[str, int]:
    """Partition count of each topic that exists and whose every partition has a leader."""
    counts: dict[str, int] = {}
    for topic in await admin.describe_topics(list(topics)):
        error = for_code(topic["error_code"])
        if error is UnknownTopicOrPartitionError:
            continue
        if not topic["error_code"] and all(partition["leader"] >= 0 for partition in topic["partitions"]):
            counts[topic["topic"]] = len(topic["partitions"])
        elif not error.retriable:
            raise error(topic["topic"])
    return counts


def _check_partitions(found: Mapping[str, int]) -> None:
    if len(set(found.values())) > 1:
        raise ConfigurationError(
            "the topics differ in their number of partitions:",
            tuple(f"topic {name!r}: {count} partitions" for name, count in sorted(found.items())),
            hint="a user must have the same partition number everywhere: create them anew with one count",
        )


async def _check_settings(admin: AIOKafkaAdminClient, topics: Topics, min_retention_s: float) -> None:
    problems: list[str] = []
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in topics]):
        for code, message, _kind, name, entries in response.resources:
            if code:
                raise for_code(code)(message or name)
            settings = {entry[0]: entry[1] for entry in entries}
            joined = name in (topics.impressions, topics.reactions)
            problems += [
                f"topic {name!r}: {problem}" for problem in _problems(settings, min_retention_s if joined else 0.0)
            ]
    if problems:
        raise ConfigurationError(
            "topics that exist are not what the mesh needs:",
            tuple(problems),
            hint="change them with kafka-configs.sh --alter, or choose another kafka.topic_prefix",
        )


def _problems(settings: Mapping[str, Any], min_retention_s: float) -> Iterator[str]:
    for setting, wanted in _SETTINGS.items():
        if settings.get(setting) != wanted:
            yield f"{setting} is {settings.get(setting)}, must be {wanted}"
    retention_ms = int(settings["retention.ms"])
    if 0 <= retention_ms < min_retention_s * 1000:  # -1: for ever
        wanted_ms = f"{min_retention_s * 1000:.0f}"
        yield f"retention.ms is {retention_ms}, must be at least {wanted_ms} (join.window + join.slack)"
    if int(settings["max.message.bytes"]) < MIN_MESSAGE_BYTES:
        yield f"max.message.bytes is {settings['max.message.bytes']}, must be at least {MIN_MESSAGE_BYTES}"
