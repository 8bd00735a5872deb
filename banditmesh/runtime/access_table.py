"""The ``access`` section of ``mesh.yaml``: callers, how they are known, and their roles."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from banditmesh.runtime.wrong_keys import WrongKeys

APP: Final = "app"
SERVICE: Final = "service"
OPERATOR: Final = "operator"
_ROLE = re.compile(rf"{APP}|{OPERATOR}|{SERVICE}:[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")


def _role(value: str) -> str:
    if not _ROLE.fullmatch(value):
        raise ValueError(f"{value!r} is no role; there are app, service:NAME and operator")
    return value


def _digest(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("is no SHA-256 in 64 small hexadecimal digits; `printf %s KEY | sha256sum` prints it")
    return value


class Caller(BaseModel):
    """Somebody who calls, known by any one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    roles: list[Annotated[str, AfterValidator(_role)]] = Field(
        min_length=1,
        description="app: select and track. service:NAME: notify and refresh that service. operator: everything.",
    )
    spiffe: list[Annotated[str, Field(pattern=r"^spiffe://.+$")]] = Field(
        default=[], description="SPIFFE ids of client certificates."
    )
    dns: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default=[], description="DNS names (SAN) of client certificates, letter by letter."
    )
    key_sha256: list[Annotated[str, AfterValidator(_digest)]] = Field(
        default=[], description="SHA-256 of keys that are sent as `authorization: Bearer KEY`."
    )
    calls_per_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Calls a second; absent: no limit of its own."
    )

    @model_validator(mode="after")
    def _known_by_something(self) -> Self:
        if not (self.spiffe or self.dns or self.key_sha256):
            raise ValueError("nothing to know it by: name spiffe, dns or key_sha256")
        return self


class AccessTable(BaseModel):
    """Who may call what; absent: everybody everything."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    callers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], Caller] = Field(min_length=1)

    def identities(self) -> dict[tuple[str, str], str]:
        """The caller by (``spiffe``, ``dns`` or ``key``; value)."""
        return {identity: name for name, caller in self.callers.items() for identity in _identities(caller)}

    @model_validator(mode="after")
    def _one_identity_one_caller(self) -> Self:
        seen: dict[tuple[str, str], str] = {}
        wrong: dict[str, str] = {}
        for name, caller in self.callers.items():
            for kind, value in _identities(caller):
                other = seen.setdefault((kind, value), name)
                if other != name:
                    wrong[f"callers.{name}"] = f"{kind} {value[:80]!r} is {other}'s already"
        if wrong:
            raise WrongKeys(wrong)
        return self


def _identities(caller: Caller) -> list[tuple[str, str]]:
    named = (("spiffe", caller.spiffe), ("dns", caller.dns), ("key", caller.key_sha256))
    return [(kind, value) for kind, values in named for value in values]
