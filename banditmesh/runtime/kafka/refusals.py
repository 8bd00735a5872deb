"""What an error of aiokafka says, with the topic, group or transactional id and the right that is missing, where one
is."""

from __future__ import annotations

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)


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
