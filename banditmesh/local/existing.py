"""Servers that exist already: used instead of embedded ones, and asked first whether they are there.

A service that cannot reach its Kafka keeps trying, as it must; who has mistyped an address should hear it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from banditmesh.runtime.addresses import KafkaAddress, RedisAddress, parse_store, shown
from banditmesh.runtime.errors import FailedPrecondition, InvalidArgument, MeshError, Unavailable
from banditmesh.runtime.kafka.connect import client_options, say_nothing, why_not
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.settings import UsesKafka, UsesRedis, load_settings
from banditmesh.runtime.store import connect

ANSWER_WITHIN_S = 5.0

Ask = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Existing:
    """Addresses of servers that are there already, as the services' settings take them; None: embed one."""

    kafka: str | None = None
    redis: str | None = None
    store: str | None = None

    def check(self) -> None:
        """Ask each of them, all together.

        Raises:
            InvalidArgument: Something is no address.
            FailedPrecondition: One answers, but cannot be used (a bucket that does not exist, say).
            Unavailable: One does not answer within five seconds; says which and why.
        """
        asyncio.run(self._ask_all())

    def _given(self) -> Iterator[tuple[str, str, Ask]]:
        asks: dict[str, tuple[str | None, Ask]] = {
            "kafka": (self.kafka, _ask_kafka),
            "redis": (self.redis, _ask_redis),
            "store": (self.store, _ask_store),
        }
        for name, (address, ask) in asks.items():
            if address is not None:
                yield name, address, ask

    async def _ask_all(self) -> None:
        answers = await asyncio.gather(
            *(_answer(name, address, ask) for name, address, ask in self._given()), return_exceptions=True
        )
        for error in answers:
            if isinstance(error, BaseException):
                raise error


async def _answer(name: str, address: str, ask: Ask) -> None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await ask(address)
    except ValueError as error:
        raise InvalidArgument(f"--{name} {shown(address)}: {error}") from error
    except TimeoutError as error:
        raise Unavailable(f"--{name} {shown(address)}: nothing answers there within {ANSWER_WITHIN_S:g} s") from error
    except Unavailable as error:
        raise Unavailable(f"--{name} {shown(address)}: {error.message}", hint=error.hint) from error
    except MeshError as error:
        raise FailedPrecondition(f"--{name} {shown(address)}: {error.message}", hint=error.hint) from error


async def _ask_kafka(address: str) -> None:
    KafkaAddress.parse(address)
    say_nothing()
    # Login and certificates stand in the environment, as for the services.
    kafka = load_settings(UsesKafka, {"kafka": address}).kafka
    client = AIOKafkaClient(**client_options(kafka))
    try:
        await client.bootstrap()
    except (KafkaError, OSError) as error:
        raise Unavailable(f"Kafka {await why_not(kafka)}") from error
    finally:
        await client.close()


async def _ask_redis(address: str) -> None:
    RedisAddress.parse(address)
    redis = RedisClient(load_settings(UsesRedis, {"redis": address}).redis, timeout_s=ANSWER_WITHIN_S)
    try:
        await redis.ping()
    finally:
        await redis.close()


async def _ask_store(address: str) -> None:
    store = connect(parse_store(address))
    try:
        await store.ping()
    finally:
        await store.close()
