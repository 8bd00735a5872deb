"""Where the tokens of SASL/OAUTHBEARER come from.

``BANDITMESH_KAFKA_TOKEN`` names it:

- ``aws-msk-iam``: signed by AWS's own signer from the usual AWS credentials (region from ``AWS_REGION``);
- ``file:///var/run/secrets/kafka/token``: a file that somebody keeps fresh, such as a projected service account token;
- ``package.module:function``: called without arguments, in a thread; returns the token, or the token and when it
  expires in seconds since 1970.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from banditmesh.runtime.errors import ConfigurationError

MSK_IAM = "aws-msk-iam"
_EARLY_S = 60.0
"""A token is asked for anew so long before it expires."""
_UNKNOWN_LIFE_S = 60.0
"""How long a token is used that does not say when it expires."""

Token = tuple[str, float]
"""The token, and when it expires, in seconds since 1970."""


class HookedTokens(AbstractTokenProvider):  # type: ignore[misc]
    """Asks a hook in a thread, and keeps its token for as long as it is good."""

    def __init__(self, name: str, hook: Callable[[], str | Token]) -> None:
        self._name, self._hook = name, hook
        self._kept: Token = ("", 0.0)
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        """A token that is good for a while. Raises KafkaConnectionError with the reason, which is all that aiokafka
        takes for a failed login; anything else would end its tasks."""
        async with self._asking:
            if time.time() > self._kept[1] - _EARLY_S:
                try:
                    answer = await asyncio.to_thread(self._hook)
                except Exception as error:  # whatever a hook of somebody else raises
                    raise KafkaConnectionError(
                        f"no token from {self._name}: {type(error).__name__}: {error}"
                    ) from error
                self._kept = answer if isinstance(answer, tuple) else (answer, time.time() + _EARLY_S + _UNKNOWN_LIFE_S)
            return self._kept[0]


def token_provider(name: str) -> HookedTokens:
    """The provider that a setting names. Raises ConfigurationError when there is none of that name."""
    if name == MSK_IAM:
        return HookedTokens(name, _msk_iam())
    if name.startswith("file://"):
        path = Path(unquote(urlsplit(name).path))
        return HookedTokens(name, lambda: path.read_text().strip())
    module, colon, function = name.partition(":")
    if not colon:
        raise _wrong(name, f"expected {MSK_IAM}, file:///path or package.module:function")
    try:
        hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise _wrong(name, str(error)) from error
    return HookedTokens(name, hook)


def _msk_iam() -> Callable[[], Token]:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise _wrong(MSK_IAM, "AWS_REGION is not set")
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
    except ImportError as error:
        raise _wrong(MSK_IAM, "the package aws-msk-iam-sasl-signer-python is not installed") from error

    def sign() -> Token:
        token, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
        return token, expires_ms / 1000

    return sign


def _wrong(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"BANDITMESH_KAFKA_TOKEN = {name!r}: {reason}")
