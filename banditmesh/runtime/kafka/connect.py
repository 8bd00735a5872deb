"""How aiokafka's clients are opened: the same for every producer, consumer and admin client of the mesh."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from banditmesh.runtime.addresses import HostPort, KafkaAddress
from banditmesh.runtime.errors import ConfigurationError, Unavailable
from banditmesh.runtime.kafka.tokens import token_provider

_ASK_S = 3.0
_LEAVE_S = 1.0
"""What connecting gets to end in order when nobody wants it any more."""


def kafka_address(kafka: KafkaAddress | str) -> KafkaAddress:
    """The address; a text is one of plaintext servers."""
    return KafkaAddress.parse(kafka) if isinstance(kafka, str) else kafka


def client_options(kafka: KafkaAddress | str) -> dict[str, Any]:
    """Arguments for an ``AIOKafkaConsumer``, ``AIOKafkaProducer``, ``AIOKafkaAdminClient`` or ``AIOKafkaClient``.

    Certificates are read anew for each client.

    Raises:
        ConfigurationError: A certificate or key cannot be used, or there is no such token hook.
    """
    address = kafka_address(kafka)
    return {"bootstrap_servers": str(address), **_access_options(address)}


def say_nothing() -> None:
    """Let aiokafka log nothing: for commands, since what it logs while it tries is what they end with."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@asynccontextmanager
async def answering(kafka: KafkaAddress | str, within_s: float, setting: str) -> AsyncIterator[None]:
    """Raise Unavailable when Kafka has not answered within a deadline what it is asked inside, or cannot be reached.

    Args:
        kafka: Who is asked.
        within_s: For all of it.
        setting: Where whoever waits has said which Kafka that is.
    """
    hint = f"see {setting}"
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError as error:
        raise Unavailable(
            f"Kafka at {kafka} did not answer within {within_s:g} s", hint=hint, retry_after_s=1.0, dependency="kafka"
        ) from error
    except (KafkaError, OSError) as error:
        raise Unavailable(
            f"Kafka at {kafka} {await why_not(kafka)}", hint=hint, retry_after_s=1.0, dependency="kafka"
        ) from error


async def why_not(kafka: KafkaAddress | str, *, within_s: float = _ASK_S) -> str:
    """In words that follow on "Kafka at host:port": that it cannot be reached, or does not let us in, and why.

    aiokafka 0.14 raises "Unable to bootstrap" whatever the reason was, so this asks the servers themselves. For
    messages only.
    """
    address = kafka_address(kafka)
    options = _access_options(address)
    found = await asyncio.gather(*(_why_not(server, options, within_s) for server in address.servers))
    refusals = [f"{server}: {each.reason}" for server, each in zip(address.servers, found, strict=True)]
    said = "; ".join(refusals) if len(refusals) > 1 else found[0].reason
    return f"{'does not let us in' if any(each.reached for each in found) else 'cannot be reached'}: {said}"


def _access_options(address: KafkaAddress) -> dict[str, Any]:
    access = address.access
    options: dict[str, Any] = {"security_protocol": access.protocol}
    if access.protocol.endswith("SSL"):
        options["ssl_context"] = _tls(address)
    if access.protocol.startswith("SASL_"):
        options["sasl_mechanism"] = access.mechanism
        if access.mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_provider(access.token or "")
        else:
            options |= {"sasl_plain_username": access.username, "sasl_plain_password": access.password}
    return options


def _tls(address: KafkaAddress) -> ssl.SSLContext:
    access = address.access
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
        if access.certificate_file is not None:
            # A password of b"" instead of None: OpenSSL would otherwise ask for one at the terminal.
            context.load_cert_chain(access.certificate_file, access.key_file, (access.key_password or "").encode())
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"the certificates for Kafka cannot be used: {error}",
            hint="look at BANDITMESH_KAFKA_CA_FILE, _CERTIFICATE_FILE, _KEY_FILE and _KEY_PASSWORD",
        ) from error
    return context


class _Found(NamedTuple):
    reached: bool
    reason: str


async def _why_not(server: HostPort, options: dict[str, Any], within_s: float) -> _Found:
    connection = AIOKafkaConnection(server.host, server.port, **options)
    try:
        async with asyncio.timeout(within_s):
            await connection.connect()
            await connection.send(MetadataRequest([]))  # one that wants a login lets us connect without
    except TimeoutError:
        return _Found(
            connection.connected(), "no answer" + ("" if "ssl_context" in options else " (does it want TLS?)")
        )
    except ssl.SSLCertVerificationError as error:
        return _Found(True, f"its certificate is not trusted: {error.verify_message}")
    except ssl.SSLError as error:
        return _Found(True, f"no TLS: {error.reason or error}")
    except KafkaError as error:
        reason = str(error) or type(error).__name__
        return _Found(True, f"{reason} ({_suspicion(options)})" if "closed" in reason else reason)
    except ConnectionRefusedError:  # asyncio's own text is "Connect call failed" with the address as Python writes it
        return _Found(False, "connection refused, nothing listens there")
    except OSError as error:
        return _Found(False, error.strerror or str(error) or type(error).__name__)
    finally:
        connection.close()
    return _Found(True, "it answers now")


def _suspicion(options: dict[str, Any]) -> str:
    """What a broker probably wants that hangs up without a word."""
    if "ssl_context" not in options:
        return "does it want TLS? BANDITMESH_KAFKA_SECURITY_PROTOCOL"
    if "sasl_mechanism" not in options:
        return "does it want a login or a certificate of ours? BANDITMESH_KAFKA_SECURITY_PROTOCOL"
    return "is that the port for logins?"


async def undisturbed(connecting: Coroutine[Any, Any, None]) -> None:
    """Connect; when that is cancelled, let it come to its end for a moment first. A client of aiokafka 0.14 that is
    cancelled while it opens a connection leaves that open."""
    task = asyncio.ensure_future(connecting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_LEAVE_S)
        task.cancel()
        raise
