"""What differs between two installations of the learner."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from pydantic import Field, SecretStr

from banditmesh.runtime.errors import ConfigurationError
from banditmesh.runtime.settings import ServiceSettings, UsesKafka, UsesStore


class LearnerSettings(ServiceSettings, UsesKafka, UsesStore):
    """Settings of the learner."""

    replicas: int = Field(1, ge=1, description="how many learners share the models")
    ordinal: int | None = Field(
        None, ge=0, description="which of them this is, from 0; by default the number that the host's name ends with"
    )
    snapshots_kept: int = Field(20, ge=2, description="versions of each model that stay in the store")
    model_cache: Path | None = Field(
        None, description="folder for downloaded snapshots; by default they stay in memory"
    )
    archive_key: SecretStr | None = Field(
        None, description="key of the pseudonyms that archive.user_ids: keyed wants, at least 16 bytes in hexadecimal"
    )


def ordinal_of(settings: LearnerSettings, hostname: str | None = None) -> int:
    """This replica's number: as set, else from the name that a StatefulSet gives its pods (``learner-2``).

    Raises:
        ConfigurationError: It cannot be told, or is not below ``replicas``.
    """
    if settings.replicas == 1 and settings.ordinal is None:
        return 0
    ordinal = settings.ordinal
    if ordinal is None:
        name = hostname if hostname is not None else socket.gethostname()
        match = re.search(r"-(\d+)$", name.partition(".")[0])
        if match is None:
            raise ConfigurationError(
                f"the host's name {name!r} does not end with a number, so this learner cannot tell which one it is",
                hint="set BANDITMESH_ORDINAL, or run the learner as a StatefulSet",
            )
        ordinal = int(match[1])
    if ordinal >= settings.replicas:
        raise ConfigurationError(
            f"this learner is number {ordinal}, counted from 0, of {settings.replicas}",
            hint="set BANDITMESH_REPLICAS to how many there are",
        )
    return ordinal
