"""What an error of aiokafka says, with the topic, group or transactional id and the right that is missing, where one
is."""

from __future__ import annotations

from collections.abc import Callable

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)

from banditmesh.runtime.errors import Unavailable
from banditmesh.runtime.outages import outages


class RefusedTopics:
    """Topics that the user may not write to (any more): an outage each, for the others are taken."""

    def __init__(self) -> None:
        self._topics: set[str] = set()

    def noted(self, error: TopicAuthorizationFailedError, unavailable: Callable[[str], Unavailable]) -> Unavailable:
        """Begin the outages; what to raise. ``unavailable``: the error, by the dependency that it is about."""
        topics = refused_topics(error)
        for topic in topics:
            outages.failed(_dependency(topic), unavailable(_dependency(topic)))
        self._topics.update(topics)
        return unavailable(_dependency(topics[0]))

    def taken(self, topics: set[str]) -> None:
        """Records of these topics were acknowledged: end their outages."""
        for topic in topics & self._topics:
            self._topics.discard(topic)
            outages.well(_dependency(topic))


def in_words(error: Exception, right: str) -> str:
    """Why Kafka did not do it.

    Args:
        error: What aiokafka raised.
        right: What the user needs for it on a topic: ``Read`` or ``Write``.
    """
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, TopicAuthorizationFailedError):
        return _missing(f"topic {' and '.join(refused_topics(error))}", right)
    if isinstance(error, GroupAuthorizationFailedError):
        return _missing(f"group {_named(error)}", "Read")
    if isinstance(error, TransactionalIdAuthorizationFailed):
        return _missing(f"transactional id {_named(error)}", "Write")
    return str(error) or type(error).__name__  # a KafkaError says its own name


def refused_topics(error: TopicAuthorizationFailedError) -> list[str]:
    """Which topics it is about: aiokafka 0.14 names one, or a set of them."""
    named = error.args[0] if error.args else "?"
    return [str(named)] if isinstance(named, str) else sorted(map(str, named))


def _missing(what: str, right: str) -> str:
    return f"this Kafka user lacks the right {right} of {what} (docs/operations.md has all that are needed)"


def _named(error: Exception) -> str:
    return str(error.args[0]) if error.args else "?"


def _dependency(topic: str) -> str:
    """A topic as a dependency in the log."""
    return f"topic {topic}"
