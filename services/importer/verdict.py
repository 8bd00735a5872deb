"""Whether what a job has read may go live."""

from __future__ import annotations

from collections.abc import Mapping

from banditmesh.runtime import packing
from banditmesh.runtime.service_options import Importing, Service
from services.importer.failure import Failure, ImportFailed
from services.importer.job import Job, Kind, job_id
from services.importer.jobs import Jobs
from services.importer.reasons import in_words

FEWEST_ROWS_TO_JUDGE = 1000
"""So many rows are read before a job is given up for its rejects ahead of its end."""


class Verdict:
    """Judges jobs; every method raises ImportFailed."""

    def __init__(self, settings: Importing, services: Mapping[str, Service], jobs: Jobs) -> None:
        self._settings = settings
        self._services = services
        self._jobs = jobs

    def give_up_if_hopeless(self, job: Job, rows_total: int | None) -> None:
        """Fail a job ahead of its end when its rejects are too many of all rows, where the number of these is known."""
        if rows_total is not None and job.progress.rows >= FEWEST_ROWS_TO_JUDGE:
            self._check_rejected(job, max(rows_total, job.progress.rows))

    async def check(self, job: Job) -> None:
        """Judge a job whose rows have all been read. Raises Unavailable too."""
        self._check_rejected(job, job.progress.rows)
        if not job.progress.valid_rows:
            raise ImportFailed(
                Failure(
                    f"empty_{job.kind.value}",
                    f"{job.uri} holds no valid rows; it would take away what all users have",
                    file=job.uri,
                )
            )
        await self._check_shrinkage(job)

    def _check_rejected(self, job: Job, rows: int) -> None:
        rejected, most = job.progress.rejected_rows, self._settings.max_rejected
        if rejected <= most * rows:
            return
        message = f"{rejected} of {rows} rows are broken (importing.max_rejected is {most:g})"
        first = job.first_reject
        if first is None:
            raise ImportFailed(Failure("too_many_rejects", f"{message}; see the rejects file"))
        column = f", column {first.column}" if first.column else ""
        read = f"; it reads {first.raw}" if first.raw else ""
        raise ImportFailed(
            Failure(
                "too_many_rejects",
                f"{message}; the first is row {first.row} of {first.file}{column}: {in_words(first.reason)}"
                f"{read}; see the rejects file",
                first.file,
                first.row,
                first.column,
            )
        )

    async def _check_shrinkage(self, job: Job) -> None:
        """Fail when so many users would lose what they have that the file is likely to be cut."""
        profiles = job.kind is Kind.PROFILES
        most = self._settings.profiles_max_missing if profiles else self._services[job.service].mapping_max_missing
        if most is None or not job.target.base:
            return
        live = packing.LiveVersion.unpack(job.target.base.encode())
        before = await self._jobs.get(job_id(job.kind, job.service, job.logic, live.name))
        if before is None or before.id == job.id:
            return
        rows, rows_before = job.progress.valid_rows, before.progress.valid_rows
        if rows < (1 - most) * rows_before:
            raise ImportFailed(
                Failure(
                    "too_few_rows",
                    f"{rows} valid rows where the live version {live.name!r} has {rows_before}; fewer than "
                    f"{most:.0%} may be missing (mapping_max_missing, profiles_max_missing)",
                    file=job.uri,
                )
            )
