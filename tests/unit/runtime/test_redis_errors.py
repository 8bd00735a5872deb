"""What an answer of Redis means: whether the server may be elsewhere, and whether all of it is concerned."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from banditmesh.runtime.redis_errors import in_words, is_of_the_server, may_be_elsewhere


@pytest.mark.parametrize(
    "error",
    [
        ReadOnlyError("You can't write against a read only replica."),
        BusyLoadingError("loading"),
        MasterDownError("link down"),
        ClusterDownError("The cluster is down"),
        InvalidResponse('Protocol error, got "H" as reply type byte'),
        ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_what_a_fail_over_answers_the_server_is_looked_for(error: Exception) -> None:
    assert may_be_elsewhere(error)
    assert is_of_the_server(error)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("invalid username-password pair or user is disabled."),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        TryAgainError("Multiple keys request during rehashing of slot"),
        ResponseError("MISCONF Valkey is configured to save RDB snapshots"),
        ResponseError("BUSY Valkey is busy running a script."),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_everybody_is_told_is_one_outage_of_redis_where_it_is(error: Exception) -> None:
    assert is_of_the_server(error)
    assert not may_be_elsewhere(error)


def test_what_one_command_is_told_is_no_outage_of_redis() -> None:
    for error in (NoPermissionError("no 'set' command"), ResponseError("WRONGTYPE Operation against a key")):
        assert not is_of_the_server(error)


def test_of_a_sentinel_that_does_not_answer_no_client_is_spelt_out() -> None:
    error = ConnectionError(f"No master found for 'm' : {Redis(host='sentinel')!r} - network:ConnectionError")
    assert in_words(error) == "does not answer: ConnectionError: No master found for 'm' : network:ConnectionError"
