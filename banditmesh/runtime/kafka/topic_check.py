"""What the mesh's topics must be like, and whether existing ones are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError, for_code

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.kafka.metadata import TopicState
from banditmesh.runtime.logging import get_logger

log = get_logger(__name__)

DENIED = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
"""What a broker answers to a user that may not do it."""
MIN_MESSAGE_BYTES = 256 * 1024
"""``max.message.bytes`` limits a whole batch; ours have up to 128 KiB, and one record may make a batch of its own. With
less we go on (:mod:`banditmesh.runtime.kafka.sizes`), and what fits in no message is refused or a dead letter."""
LEAST_MESSAGE_BYTES = 16 * 1024
"""With less even ordinary events would not fit."""

MUST = {
    # The broker's time decides every join; a client's clock would let a phone decide it.
    "message.timestamp.type": "LogAppendTime",
    # Each record is an event of its own: compaction would drop all but the newest of a user.
    "cleanup.policy": "delete",
}
SAFE = {
    # A replica that is behind must not become leader: it would forget what was acknowledged. Some brokers do not have
    # the setting (and never elect such a leader), others let nobody set it.
    "unclean.leader.election.enable": "false",
}


@dataclass(frozen=True)
class Topics:
    """Names of the topics of one mesh."""

    impressions: str
    reactions: str
    examples: str
    late_reactions: str
    dead_letters: str
    decisions: str
    """Best effort: without it nothing is sampled, and everything else works."""

    @classmethod
    def named(cls, prefix: str = "") -> Topics:
        """The names with ``kafka.topic_prefix`` of mesh.yaml before each."""
        names = ("impressions", "reactions", "examples", "late-reactions", "dead-letters", "decisions")
        return cls(*(prefix + name for name in names))

    def __iter__(self) -> Iterator[str]:
        return iter(astuple(self))


@dataclass(frozen=True)
class Wanted:
    """What the topics should be like.

    Attributes:
        topics: Their names.
        partitions: Of each topic, when none exists yet; new topics get as many as those that exist.
        replication: Replicas of a new topic; all but one of them must have a record before it is acknowledged.
        min_retention_s: ``join.window + join.slack``: impressions and reactions that forget sooner are refused.
        same_partitions: Refuse topics that have more partitions than ``partitions``, which would have to shrink.
        again: They were there before: what is missing has been lost.
        rests_on: Those whose settings are looked at again; what may not be seen of them, or is risky, is known by then.
    """

    topics: Topics
    partitions: int
    replication: int
    min_retention_s: float = 0.0
    same_partitions: bool = False
    again: bool = False
    rests_on: Collection[str] = ()

    @property
    def asked(self) -> Collection[str]:
        """The topics whose settings are looked at."""
        return self.rests_on if self.again else tuple(self.topics)

    @property
    def min_insync(self) -> int:
        """``min.insync.replicas`` of new topics."""
        return max(1, self.replication - 1)


def check_partitions(found: Mapping[str, TopicState], wanted: Wanted) -> None:
    """Raise ConfigurationError when the topics differ, or would have to shrink."""
    counts = {name: state.partitions for name, state in found.items()}
    if len(set(counts.values())) > 1:
        raise ConfigurationError(
            "the topics differ in their number of partitions:",
            tuple(f"topic {name!r}: {count} partitions" for name, count in sorted(counts.items())),
            hint="a user must have the same partition number everywhere: create them anew with one count",
        )
    count = counts[wanted.topics.impressions]
    if count != wanted.partitions:
        said = f"the topics have {count} partitions, mesh.yaml says kafka.partitions: {wanted.partitions}"
        if wanted.same_partitions and count > wanted.partitions:
            raise ConfigurationError(
                f"{said}; a topic cannot shrink",
                hint=f"set kafka.partitions: {count}, or another kafka.topic_prefix for new topics",
            )
        log.warning(
            "the number of partitions is not what mesh.yaml says; going on with it", partitions=count, said=said
        )


async def check_settings(admin: AIOKafkaAdminClient, wanted: Wanted, found: Mapping[str, TopicState]) -> None:
    """Raise ConfigurationError when a topic has a setting that the mesh cannot work with; warn of what is risky, and of
    what this user may not see."""
    problems: list[str] = []
    topics = wanted.topics
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found if name in wanted.asked]
    for response in await admin.describe_configs(asked) if asked else ():
        for code, message, _kind, name, entries in response.resources:
            if for_code(code) in DENIED:
                if not wanted.again:
                    log.warning(
                        "this Kafka user may not describe the topic, so its settings are not checked",
                        topic=name,
                        hint=f"see to {MUST}, and permit DescribeConfigs (docs/operations.md)",
                    )
                continue
            if code:
                raise for_code(code)(message or name)
            settings = {entry[0]: entry[1] for entry in entries}
            joined = name in (topics.impressions, topics.reactions)
            problems += [
                f"topic {name!r}: {problem}"
                for problem in _problems(settings, wanted.min_retention_s if joined else 0.0)
            ]
            if not wanted.again:
                _warn(name, settings, found[name])
    if problems:
        raise ConfigurationError(
            "topics that exist are not what the mesh needs:",
            tuple(problems),
            hint="change them with kafka-configs.sh --alter, or choose another kafka.topic_prefix",
        )


def _problems(settings: Mapping[str, Any], min_retention_s: float) -> Iterator[str]:
    """What must be changed. A setting that the broker does not have at all is no problem."""
    for setting, must in (MUST | SAFE).items():
        if settings.get(setting, must) != must:
            yield f"{setting} is {settings.get(setting)}, must be {must}"
    retention_ms = int(settings.get("retention.ms", -1))
    if 0 <= retention_ms < min_retention_s * 1000:  # -1: for ever
        wanted_ms = f"{min_retention_s * 1000:.0f}"
        yield f"retention.ms is {retention_ms}, must be at least {wanted_ms} (join.window + join.slack)"
    message_bytes = int(settings.get("max.message.bytes", MIN_MESSAGE_BYTES))
    if message_bytes < LEAST_MESSAGE_BYTES:
        yield f"max.message.bytes is {message_bytes}, must be at least {LEAST_MESSAGE_BYTES}"


def _warn(name: str, settings: Mapping[str, Any], state: TopicState) -> None:
    """Say what may lose acknowledged records, or keep some from being written, and is the operator's to decide."""
    message_bytes = int(settings.get("max.message.bytes", MIN_MESSAGE_BYTES))
    if LEAST_MESSAGE_BYTES <= message_bytes < MIN_MESSAGE_BYTES:
        log.warning(
            "large records do not fit in a message of the topic: they become dead letters, or are refused",
            topic=name,
            max_message_bytes=message_bytes,
            hint=f"set max.message.bytes={MIN_MESSAGE_BYTES} or more",
        )
    if (size := int(settings.get("retention.bytes", -1))) >= 0:
        log.warning(
            "a busy partition forgets records that are younger than retention.ms",
            topic=name,
            retention_bytes=size,
            hint="set retention.bytes=-1, or so much that it holds what comes in retention.ms",
        )
    if state.replicas > 1 and int(settings.get("min.insync.replicas", state.replicas)) < 2:
        log.warning(
            "records are acknowledged when one replica has them; its loss loses them",
            topic=name,
            replicas=state.replicas,
            hint=f"set min.insync.replicas={state.replicas - 1}",
        )
