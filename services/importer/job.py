"""An import job: what is imported, how far it is, how it ended."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from banditmesh.runtime import keys
from banditmesh.runtime.errors import FailedPrecondition
from services.importer.failure import Failure, JobWarning, Reject
from services.importer.profile_fields import FieldType
from services.importer.sources.formats import FileOptions


class Kind(StrEnum):
    """What is imported."""

    MAPPING = "mapping"
    PROFILES = "profiles"


class State(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class Progress:
    """How far a job is; ``importer.v1.ImportProgress``."""

    parts_total: int = 0
    parts_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    rows: int = 0
    rejected_rows: int = 0
    new_contents: int = 0
    missing_contents: int = 0

    @property
    def valid_rows(self) -> int:
        """Rows that were taken."""
        return self.rows - self.rejected_rows


@dataclass(frozen=True)
class Target:
    """Where a job writes; fixed when it is first taken up, so that whoever resumes it goes on with the same.

    Attributes:
        number: Of the version, as the values carry it; from 1, unique for the source. 0: not taken up yet.
        slot: 0 or 1, the one that is not live.
        base: The live pointer at that time, as text; empty: there was none.
        digest: Of the parts' names and sizes.
    """

    number: int = 0
    slot: int = 0
    base: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Job:
    """One import. Immutable; ``dataclasses.replace`` makes the next state.

    Attributes:
        id: See :func:`job_id`.
        part: Index of the part to read next: the checkpoint, together with ``row``.
        row: Rows (lines) of that part that are in already.
        attempt: Counts up when a job that failed or was cancelled is asked for again.
        owner: The importer that has the lease; empty when none has.
        resumed: How often it was taken up again after its importer had died or stopped.
        stalled: How often in a row that happened without a checkpoint in between.
        options: What the caller said of the files.
        types: Of the profiles' fields, as the files show them; found before a row is written.
        warnings: What is not as it should be, one each reason.
        first_reject: The first row that was left out.
    """

    id: str
    kind: Kind
    service: str
    logic: str
    uri: str
    version: str
    created_at_ms: int
    updated_at_ms: int
    state: State = State.PENDING
    attempt: int = 1
    target: Target = field(default_factory=Target)
    part: int = 0
    row: int = 0
    progress: Progress = field(default_factory=Progress)
    failure: Failure | None = None
    owner: str = ""
    resumed: int = 0
    stalled: int = 0
    rejects_uri: str = ""
    options: FileOptions = field(default_factory=FileOptions)
    types: dict[str, FieldType] = field(default_factory=dict)
    warnings: tuple[JobWarning, ...] = ()
    first_reject: Reject | None = None

    @property
    def source(self) -> str:
        """What has versions: ``service/logic``, or ``profiles``."""
        return f"{self.service}/{self.logic}" if self.kind is Kind.MAPPING else keys.PROFILES

    def again(self, wanted: Job) -> Job:
        """Return the job as it starts anew, as it is wanted now."""
        return replace(wanted, attempt=self.attempt + 1)

    def to_json(self) -> bytes:
        """Return the job as Redis keeps it."""
        return _ADAPTER.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> Job:
        """Read a job that Redis keeps. Raises UnreadableJob."""
        try:
            return _ADAPTER.validate_json(data)
        except ValidationError as error:
            raise UnreadableJob(str(error).splitlines()[-1].strip()) from error


_ADAPTER = TypeAdapter(Job)


class UnreadableJob(FailedPrecondition):
    """A record that is no job to this release: a newer one may have written it, and will go on with it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the job's record cannot be read by this release: {why}", hint="see the release that wrote it"
        )


def job_id(kind: Kind, service: str, logic: str, version: str) -> str:
    """Return the id of a job: readable, safe in paths and Redis keys, and the same for the same request.

    Examples:
        >>> job_id(Kind.MAPPING, "weather", "today", "2026-11-22")
        'mapping-weather-today-2026-11-22-7f3ff349'
    """
    parts = [kind.value, service, logic, version]
    check = hashlib.blake2b("\n".join(parts).encode(), digest_size=4).hexdigest()
    readable = "-".join(part for part in parts if part)
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', readable)}-{check}"
