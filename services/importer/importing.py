"""The run of one import job.

Each batch goes in this order: values of users, contents, checkpoint. When all are in: rejects file, live pointer,
announcement, end of the job. What a kill between two of these leaves, and who mends it:

- before a checkpoint: values and contents of one batch that the next importer writes again, the same;
- before the live pointer: a complete version that nobody reads; the next importer reads on from the last checkpoint,
  finds nothing left and goes live;
- after the live pointer, before the announcement or the end: the next importer finds its own version live, announces
  it (engines take that twice without harm) and ends the job.

A job that fails or is cancelled leaves values of a version that never goes live. Its number is not used again, so no
reader takes them; they are overwritten by the next version in that slot or expire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from banditmesh.runtime import packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import MeshError
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.service_options import Importing, Service
from services.importer.changes import Changes
from services.importer.contents import ContentImport
from services.importer.failure import Failure, ImportFailed, JobWarning, merged
from services.importer.job import Job, Kind, Progress, State, Target
from services.importer.jobs import Jobs
from services.importer.lease import Lease
from services.importer.live import LivePointers
from services.importer.mapping import MappingPacker
from services.importer.metrics import ImporterMetrics
from services.importer.profile_fields import FieldType
from services.importer.profiles import ProfilesPacker
from services.importer.provider_calls import ProviderCalls, ProviderFailed, ProviderUnavailable
from services.importer.reading import Source
from services.importer.redis_contents import RedisContents
from services.importer.rejects import RejectsFolder
from services.importer.rows import Packed, Packer
from services.importer.sources.parts import digest, partition_warnings
from services.importer.sources.places import FileAccess
from services.importer.verdict import Verdict
from services.importer.wake_up import WakeUp
from services.importer.writer import UserWriter, candidates_key, profile_key

log = get_logger(__name__)


class Cancelled(Exception):
    """Somebody wants the job to end."""


@dataclass(frozen=True)
class ImportDependencies:
    """What a run needs; built once a process."""

    redis: RedisClient
    jobs: Jobs
    live: LivePointers
    contents: RedisContents
    changes: Changes
    providers: ProviderCalls
    rejects: RejectsFolder
    files: FileAccess
    settings: Importing
    services: Mapping[str, Service]
    profile_types: Mapping[str, FieldType]
    metrics: ImporterMetrics
    clock: Clock
    wake_up: WakeUp


class ImportRun:
    """One importer's work on one job, under one lease."""

    def __init__(self, job: Job, lease: Lease, owner: str, deps: ImportDependencies) -> None:
        self.job = job
        """As last written."""
        self._lease = lease
        self._owner = owner
        self._deps = deps
        self._verdict = Verdict(deps.settings, deps.services, deps.jobs)
        self._ending = False

    async def begin(self) -> None:
        """Enter ourselves as the owner: from here on the record refuses every earlier lease."""
        job = replace(self.job, state=State.RUNNING, owner=self._owner)
        if self.job.state is State.RUNNING:
            job = replace(job, resumed=job.resumed + 1, stalled=job.stalled + 1)
            self._deps.metrics.jobs_resumed.inc()
        await self._save(job)
        log.info(
            "import begins",
            job=job.id,
            uri=job.uri,
            part=job.part,
            row=job.row,
            resumed=job.resumed,
            attempt=job.attempt,
        )

    async def run(self) -> None:
        """Work until the job has ended, in whichever way.

        Raises:
            LeaseLost, Unavailable: The job goes on elsewhere or later, from its last checkpoint.
        """
        try:
            await self._import()
        except Cancelled:
            await self._end(State.CANCELLED, None)
        except ImportFailed as failed:
            await self._end(State.FAILED, failed.failure)
        except ProviderUnavailable as error:
            await self._end(State.FAILED, Failure("provider_unavailable", str(error)))
        except ProviderFailed as error:
            await self._end(State.FAILED, Failure("provider_failed", str(error)))

    async def fail(self, failure: Failure) -> None:
        """End the job as failed, for a reason from outside."""
        await self._end(State.FAILED, failure)

    async def leave(self) -> None:
        """Say in the record that nobody works on it any more, unless its end is being written or already is."""
        if not self._ending:
            await self._save(replace(self.job, owner=""))

    async def _import(self) -> None:
        if await self._deps.jobs.is_cancelled(self.job.id):
            raise Cancelled
        if self.job.target.number and await self._is_live():
            await self._finish_live()
            return
        source = await Source.open(self.job.uri, self.job.options, self._deps.files)
        await self._take_up(source)
        packer, writer = await self._packer(source), self._writer()
        contents = None
        if self.job.kind is Kind.MAPPING:
            await self._deps.contents.announce_leftovers(self.job.service)
            contents = ContentImport(
                self._deps.redis,
                self._deps.contents,
                self._deps.providers,
                self._deps.metrics,
                job_id=self.job.id,
                service=self.job.service,
            )
            await contents.count()
        rows_total = await source.check_parquet(packer)
        for index in range(self.job.part, len(source.parts)):
            part = source.parts[index]
            batch_rows = self._deps.settings.batch_rows
            async with source.read(part, packer, after_row=self.job.row, batch_rows=batch_rows) as batches:
                async for batch in batches:
                    twice = await writer.write(batch, part.uri, self._lease)
                    if contents is not None:
                        await contents.ensure(batch.fresh_contents)
                    await self._checkpoint(batch, contents, twice)
                    self._verdict.give_up_if_hopeless(self.job, rows_total)
            progress = replace(
                self.job.progress, parts_done=index + 1, bytes_done=self.job.progress.bytes_done + part.size
            )
            await self._save(replace(self.job, part=index + 1, row=0, progress=progress))
        await self._verdict.check(self.job)
        await self._go_live()

    async def _take_up(self, source: Source) -> None:
        """Fix what the job writes to, or check that it still reads what it read before."""
        found = digest(source.parts)
        target = self.job.target
        if target.number:
            if target.digest != found:
                raise ImportFailed(
                    Failure(
                        "source_changed",
                        f"the files of {self.job.uri} changed meanwhile; each version needs a place of its own",
                    )
                )
            return
        base = await self._deps.live.read(self.job.source)
        slot = 1 - packing.LiveVersion.unpack(base.encode()).slot if base else 0
        progress = Progress(parts_total=len(source.parts), bytes_total=source.size)
        # The lease has a number of this source that no lease and so no version ever had before.
        target = Target(self._lease.number, slot, base, found)
        warnings = [*source.warnings, *(partition_warnings(source.parts) if self.job.kind is Kind.MAPPING else ())]
        self._count(warnings)
        await self._save(replace(self.job, target=target, progress=progress, warnings=merged((), warnings)))

    async def _packer(self, source: Source) -> Packer:
        number, separator = self.job.target.number, self.job.options.csv.list_separator
        if self.job.kind is Kind.MAPPING:
            most = self._deps.settings.max_candidates
            return MappingPacker(self.job.service, version=number, max_candidates=most, list_separator=separator)
        packer = ProfilesPacker(
            version=number,
            types=self._deps.profile_types,
            services=self._deps.services,
            list_separator=separator,
        )
        if not self.job.types:
            await source.check_parquet(packer)
            await source.survey(packer)
            await self._save(replace(self.job, types=packer.types))
        packer.types = dict(self.job.types)
        return packer

    def _writer(self) -> UserWriter:
        slot = self.job.target.slot
        key_of = profile_key(slot) if self.job.kind is Kind.PROFILES else candidates_key(self.job.source, slot)
        return UserWriter(
            self._deps.redis,
            key_of,
            version=self.job.target.number,
            ttl_s=self._deps.settings.mapping_ttl,
            resumed=bool(self.job.part or self.job.row),
        )

    def _count(self, warnings: Sequence[JobWarning]) -> None:
        for warning in warnings:
            self._deps.metrics.warnings.labels(kind=self.job.kind.value, reason=warning.reason).inc(warning.count)

    async def _checkpoint(self, batch: Packed, contents: ContentImport | None, twice: Sequence[JobWarning]) -> None:
        """Note that a batch is in, together with what was rejected of it."""
        before = self.job.progress
        progress = replace(
            before, rows=before.rows + batch.rows, rejected_rows=before.rejected_rows + len(batch.rejects)
        )
        if contents is not None:
            progress = replace(progress, new_contents=contents.new, missing_contents=contents.missing)
        self._deps.metrics.rows.labels(kind=self.job.kind.value).inc(batch.rows)
        for reject in batch.rejects:
            self._deps.metrics.rejected_rows.labels(kind=self.job.kind.value, reason=reject.reason).inc()
        warnings = [*batch.warnings, *twice, *(contents.take_warnings() if contents else ())]
        self._count(warnings)
        job = replace(
            self.job,
            row=batch.last_row,
            progress=progress,
            stalled=0,
            warnings=merged(self.job.warnings, warnings),
            first_reject=self.job.first_reject or min(batch.rejects, key=lambda each: each.row, default=None),
        )
        if await self._save(job, batch):
            raise Cancelled

    async def _go_live(self) -> None:
        if await self._deps.jobs.is_cancelled(self.job.id):
            raise Cancelled
        await self._save(replace(self.job, rejects_uri=await self._write_rejects()))
        await self._deps.live.go_live(self._lease, self.job.target.base, self._version())
        await self._finish_live()

    async def _finish_live(self) -> None:
        await self._deps.changes.live(self.job.source, self._version())
        self._deps.metrics.live_version.labels(source=self.job.source).set(self._deps.clock.now_s())
        await self._end(State.SUCCEEDED, None)

    async def _is_live(self) -> bool:
        return await self._deps.live.read(self.job.source) == self._version().pack().decode()

    def _version(self) -> packing.LiveVersion:
        return packing.LiveVersion(self.job.target.number, self.job.target.slot, self.job.version)

    async def _end(self, state: State, failure: Failure | None) -> None:
        rejects_uri = self.job.rejects_uri or await self._write_rejects()
        self._ending = True
        await self._save(replace(self.job, state=state, failure=failure, owner="", rejects_uri=rejects_uri))
        reason = failure.reason if failure else ""
        self._deps.metrics.jobs_ended.labels(kind=self.job.kind.value, state=state.value, reason=reason).inc()
        progress = self.job.progress
        log.info(
            "import ended",
            job=self.job.id,
            state=state.value,
            reason=reason,
            rows=progress.rows,
            rejected=progress.rejected_rows,
        )

    async def _write_rejects(self) -> str:
        """Write the rejects file. That it cannot be written does not make the mapping wrong: its rows stay in Redis,
        and the log says so.
        """
        try:
            return await self._deps.rejects.write(self.job)
        except MeshError as error:
            log.error("the rejects file cannot be written", job=self.job.id, error=str(error))
            return ""

    async def _save(self, job: Job, batch: Packed | None = None) -> bool:
        job = replace(job, updated_at_ms=int(self._deps.clock.now_s() * 1000))
        cancelled = await self._deps.jobs.save(job, self._lease, batch.rejects if batch else ())
        self.job = job
        self._deps.wake_up.wake_all()
        return cancelled
