"""What a connection says that was closed beneath a command; what servers do is in the integration tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from banditmesh.runtime.redis_connect import _Plain


class Closed:
    """A writer over a transport that was closed, as uvloop has it."""

    def writelines(self, lines: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    def close(self) -> None:
        pass


def connection() -> _Plain:
    made = _Plain(socket_timeout=1.0)
    made._reader = cast(Any, object())
    made._writer = cast(Any, Closed())
    return made


def sent(made: _Plain) -> Awaitable[None]:
    return made.send_command("PING", check_health=False)


def sent_now(made: _Plain) -> Awaitable[None]:
    return made.send_now([b"PING"])


@pytest.mark.parametrize("send", [sent, sent_now])
async def test_a_connection_that_was_closed_is_an_outage_and_no_bug(send: Callable[[_Plain], Awaitable[None]]) -> None:
    with pytest.raises((RedisConnectionError, OSError), match="is closed"):
        await send(connection())


async def test_one_that_another_task_closes_meanwhile_is_the_same() -> None:
    made = connection()
    made._writer = None
    with pytest.raises(OSError, match="is closed"):
        await made._send_packed_command([b"PING"])
