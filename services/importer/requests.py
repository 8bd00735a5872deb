"""What callers may ask of import jobs, checked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from banditmesh.lengths import MAX_NAME_BYTES, MAX_PROFILE_FIELDS
from banditmesh.runtime import packing
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from banditmesh.runtime.limits import check_text
from banditmesh.runtime.service_options import Service
from services.importer.job import Job, Kind, State, job_id
from services.importer.jobs import Jobs
from services.importer.live import LivePointers
from services.importer.sources.allowed import AllowedUris
from services.importer.sources.filesystems import parse_uri
from services.importer.sources.formats import CsvOptions, FileOptions, encoding_problem
from services.importer.wake_up import WakeUp

MAX_JOB_ID_BYTES = 256
MAX_COLUMNS = 1 + MAX_PROFILE_FIELDS
DEFAULT_PAGE = 50
MAX_PAGE = 500
WATCH_POLL_S = 0.5
"""How late a watcher sees what another importer does; what this one does it sees at once."""
_AS_NAMED = FileOptions()
_VERSION = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, eq=False)
class ImportRequests:
    """Starts, shows and cancels import jobs. Every method may raise Unavailable."""

    services: Mapping[str, Service]
    jobs: Jobs
    live: LivePointers
    allowed: AllowedUris
    wake_up: WakeUp
    clock: Clock

    async def notify_mapping(
        self, service: str, logic: str, uri: str, version: str, options: FileOptions = _AS_NAMED
    ) -> Job:
        """Return the job of this version, started by this call or an earlier one.

        Of a version that has been live for a while it is imported again, so that it goes on living.

        Raises:
            InvalidArgument: A field is empty, too long or misspelled.
            NotFound: There is no such service or logic.
            PermissionDenied: The uri is not below ``importing.allowed_uris``.
            AlreadyExists: This version was asked for with another uri.
        """
        self.check_service(service)
        check_known("logic", logic, self.services[service].logics, owner=f"the service {service!r}")
        return await self._notify(Kind.MAPPING, service, logic, uri, version, options)

    async def notify_profiles(self, uri: str, version: str, options: FileOptions = _AS_NAMED) -> Job:
        """Return the job of this version of the profiles; raises as :meth:`notify_mapping`."""
        return await self._notify(Kind.PROFILES, "", "", uri, version, options)

    async def get(self, job_id: str) -> Job:
        """Return a job. Raises InvalidArgument or NotFound."""
        check_text("job_id", job_id, MAX_JOB_ID_BYTES)
        job = await self.jobs.get(job_id)
        if job is None:
            raise NotFound(
                "there is no such import job",
                field="job_id",
                value=job_id,
                hint="ListImportJobs shows those of the last 30 days",
            )
        return job

    async def recent(self, service: str, page_size: int) -> list[Job]:
        """Return the newest jobs, of one service unless that is empty. Raises InvalidArgument or NotFound."""
        if service:
            self.check_service(service)
        if page_size > MAX_PAGE:
            raise InvalidArgument(f"page_size is at most {MAX_PAGE}", field="page_size", value=page_size)
        return await self.jobs.recent(service, page_size or DEFAULT_PAGE)

    async def watch(self, job_id: str) -> AsyncIterator[Job]:
        """Yield the job as it stands and after each change, until it has ended. Raises InvalidArgument or NotFound."""
        signal = self.wake_up.next_wake_up()
        job = await self.get(job_id)
        yield job
        while not job.state.ended:
            await self.wake_up.wait(signal, WATCH_POLL_S)
            signal = self.wake_up.next_wake_up()
            now = await self.get(job_id)
            if now != job:
                job = now
                yield job

    async def cancel(self, job_id: str) -> Job:
        """Make a job end; returns it as it stands now.

        Raises:
            InvalidArgument, NotFound: There is no such job.
            FailedPrecondition: It has succeeded or failed already.
        """
        job = await self.get(job_id)
        if job.state in (State.SUCCEEDED, State.FAILED):
            raise FailedPrecondition(
                f"the job has {job.state.value} already",
                field="job_id",
                value=job_id,
                hint="to go back to an older mapping notify it under a new version",
            )
        if job.state is not State.CANCELLED:
            await self.jobs.request_cancel(job_id)
            self.wake_up.wake_all()
        return job

    def check_service(self, service: str) -> None:
        """Raise InvalidArgument or NotFound unless ``mesh.yaml`` has this service."""
        check_known("service", service, self.services, owner="mesh.yaml")

    async def _notify(self, kind: Kind, service: str, logic: str, uri: str, version: str, options: FileOptions) -> Job:
        self.allowed.check(parse_uri(uri))
        if not _VERSION.fullmatch(version):
            raise InvalidArgument(
                "the version has 1 to 64 characters of A-Z a-z 0-9 . _ : -",
                field="version",
                value=version,
                hint='such as "2026-11-22"',
            )
        check_options(options)
        now_ms = int(self.clock.now_s() * 1000)
        name = job_id(kind, service, logic, version)
        wanted = Job(name, kind, service, logic, uri, version, now_ms, now_ms, options=options)
        job = await self.jobs.create(wanted)
        while job.state in (State.FAILED, State.CANCELLED) or (
            job.options == options and job.uri == uri and await self._must_be_renewed(job)
        ):
            # What did not go live may be asked for again, also from another place.
            again = job.again(wanted)
            job = again if await self.jobs.restart(job, again) else await self.get(job.id)
        if (job.uri, job.options) != (uri, options):
            how = "" if job.uri != uri else ", with another format"
            raise AlreadyExists(
                f"version {version!r} of {job.source} is imported from {job.uri!r}{how}, not from {uri!r}",
                field="version",
                value=version,
                hint="give the other file a version of its own",
            )
        self.wake_up.wake_all()
        return job

    async def _must_be_renewed(self, job: Job) -> bool:
        """Whether a version that is notified again without a change is to be imported again, because its values would
        expire: it is the live one and has been so for a while, or nothing is live any more.
        """
        if job.state is not State.SUCCEEDED:
            return False
        live = await self.live.read(job.source)
        if not live:
            return True
        ours = packing.LiveVersion(job.target.number, job.target.slot, job.version)
        age_s = self.clock.now_s() - job.updated_at_ms / 1000
        return packing.LiveVersion.unpack(live.encode()) == ours and age_s >= self.live.renew_after_s


def check_options(options: FileOptions) -> None:
    """Raise InvalidArgument unless a CSV can be written as a caller says."""
    csv = options.csv
    if options.format not in (None, "csv") and csv != CsvOptions():
        raise InvalidArgument("csv options are for CSV files", field="csv", hint="leave them out, or correct format")
    for name, text, least in (
        ("delimiter", csv.delimiter, 0),
        ("list_separator", csv.list_separator, 1),
        ("escape", csv.escape, 0),
    ):
        if not least <= len(text) <= 1 or text in ('"', "\n", "\r"):
            raise InvalidArgument(
                "one character, and neither a quote nor a line break",
                field=f"csv.{name}",
                value=text,
                hint='such as ";"',
            )
    if csv.list_separator == (csv.delimiter or ","):
        raise InvalidArgument(
            "the delimiter and the list separator are the same", field="csv.list_separator", value=csv.list_separator
        )
    if csv.escape and csv.escape in (csv.list_separator, csv.delimiter or ","):
        raise InvalidArgument("the escape separates already", field="csv.escape", value=csv.escape, hint='such as "\\"')
    if problem := encoding_problem(csv.encoding):
        raise InvalidArgument(problem, field="csv.encoding", value=csv.encoding)
    if len(csv.columns) > MAX_COLUMNS or any(not 1 <= len(name.encode()) <= MAX_NAME_BYTES for name in csv.columns):
        raise InvalidArgument(
            f"1 to {MAX_COLUMNS} names of 1 to {MAX_NAME_BYTES} bytes", field="csv.columns", value=list(csv.columns)
        )


def check_known(field: str, name: str, known: Iterable[str], *, owner: str) -> None:
    """Raise InvalidArgument or NotFound unless ``name`` is one of the known ones."""
    check_text(field, name, MAX_NAME_BYTES)
    if name not in known:
        raise NotFound(
            f"{owner} has no {field} {name!r}", field=field, value=name, hint=f"there is: {', '.join(sorted(known))}"
        )
