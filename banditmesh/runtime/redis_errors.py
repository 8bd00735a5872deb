"""What an error of redis-py means: whether the servers may be elsewhere by now, and in which words to say it."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    MasterDownError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from banditmesh.runtime.addresses import RedisAddress

FAILURES: Final = (RedisError, RedisClusterException, OSError)
"""What a command may raise. In redis-py 8.1 what a Cluster's client says of its map, such as that none of the nodes can
be reached, is no RedisError."""

_CLIENT = re.compile(r"<redis\.asyncio\.client\.Redis.*?>\)>\)> - ")
"""A client with all that it was made with, as errors of Sentinels name each that was asked."""

_ELSEWHERE = (
    ReadOnlyError,  # a primary that was demoted, with its connections left open
    BusyLoadingError,  # a node that comes back, and need not be the primary any more
    MasterDownError,
    ClusterDownError,
    MovedError,  # to a node that the client did not find
    AskError,
    RedisClusterException,
    InvalidResponse,  # what answers there is no Redis
    ConnectionError,
    TimeoutError,
    OSError,
)
_DEMOTED = "UNBLOCKED"
"""What a read that waits is told when its primary becomes a replica; redis-py 8.1 has no class for it."""
_FOR_ALL = ("BUSY", "MISCONF", "NOREPLICAS")
"""How answers begin that everybody gets alike, whatever the command is about."""
_HERE = (MaxConnectionsError, AuthenticationError)
"""Kinds of ConnectionError that say nothing about where the server is."""


def may_be_elsewhere(error: Exception) -> bool:
    """Whether a fail-over may be behind it, so that the name should be looked up again."""
    if isinstance(error, ResponseError) and str(error).startswith(_DEMOTED):
        return True
    return isinstance(error, _ELSEWHERE) and not isinstance(error, _HERE)


def is_of_the_server(error: Exception) -> bool:
    """Whether the whole server is concerned. What refuses one command, or one key, may well serve the others."""
    everybody = AuthenticationError | OutOfMemoryError | TryAgainError
    return may_be_elsewhere(error) or isinstance(error, everybody) or str(error).startswith(_FOR_ALL)


def in_words(error: Exception) -> str:
    """What the server did, to follow its name: ``refuses the login: …``."""
    said = f"{type(error).__name__}: {_CLIENT.sub('', str(error))}"
    if isinstance(error, MaxConnectionsError):
        return f"is not asked: all connections are in use ({said})"
    if isinstance(error, AuthenticationError):
        return f"refuses the login: {error}"
    if isinstance(error, NoPermissionError):
        return f"does not permit it: {error}"
    if isinstance(error, ReadOnlyError):
        return f"takes no writes, it is a replica: {error}"
    if isinstance(error, OutOfMemoryError):
        return f"is full and takes no writes: {error}"
    if isinstance(error, ResponseError) and not isinstance(error, MasterDownError | ClusterDownError):
        return f"refuses: {said}"
    return f"does not answer: {said}"


def hint(error: Exception, address: RedisAddress) -> str | None:
    """What an operator can do, where it is not to wait."""
    if isinstance(error, MovedError | AskError) and not address.cluster:
        return "this is a node of a Cluster: begin BANDITMESH_REDIS with redis+cluster:// or rediss+cluster://"
    if isinstance(error, RedisClusterException) and "mode is not enabled" in str(error):
        return "this is no Cluster: begin BANDITMESH_REDIS with redis:// or rediss://"
    if isinstance(error, AuthenticationError):
        return "look at user and password in BANDITMESH_REDIS, or at BANDITMESH_REDIS_USERNAME and _PASSWORD"
    if isinstance(error, NoPermissionError):
        return "docs/operations.md has the ACL that the mesh needs"
    return None
