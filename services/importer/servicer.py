"""``importer.v1.ImporterService``: from messages to the importer's own types and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.contracts.importer.v1 import importer_pb2_grpc
from banditmesh.runtime.access import require_service
from banditmesh.runtime.clock import Clock
from banditmesh.runtime.errors import InvalidArgument
from services.importer.job import Job, Kind, State
from services.importer.refresh import Refresher, check_content_ids
from services.importer.requests import ImportRequests
from services.importer.sources.formats import CsvOptions, FileOptions, Format

MAX_SHOWN_ID = 256
MOST_LISTED_BYTES = 3 << 20
"""Of the jobs of a list: an answer of more than 4 MiB is refused by gRPC's clients."""
Context: TypeAlias = grpc.aio.ServicerContext

_KINDS = {Kind.MAPPING: pb.IMPORT_KIND_MAPPING, Kind.PROFILES: pb.IMPORT_KIND_PROFILES}
_STATES = {
    State.PENDING: pb.IMPORT_STATE_PENDING,
    State.RUNNING: pb.IMPORT_STATE_RUNNING,
    State.SUCCEEDED: pb.IMPORT_STATE_SUCCEEDED,
    State.FAILED: pb.IMPORT_STATE_FAILED,
    State.CANCELLED: pb.IMPORT_STATE_CANCELLED,
}

_FORMATS: Mapping[int, Format | None] = {
    pb.FILE_FORMAT_UNSPECIFIED: None,
    pb.FILE_FORMAT_PARQUET: "parquet",
    pb.FILE_FORMAT_CSV: "csv",
    pb.FILE_FORMAT_JSON_LINES: "jsonl",
}


class ImporterServicer(importer_pb2_grpc.ImporterServiceServicer):
    """Answers gRPC calls."""

    def __init__(self, requests: ImportRequests, refresher: Refresher, clock: Clock) -> None:
        self._requests = requests
        self._refresher = refresher
        self._clock = clock

    async def NotifyMapping(self, request: pb.NotifyMappingRequest, context: Context) -> pb.NotifyMappingResponse:
        job = await self._requests.notify_mapping(
            request.service, request.logic, request.uri, request.version, _options(request)
        )
        return pb.NotifyMappingResponse(job=job_message(job))

    async def NotifyProfiles(self, request: pb.NotifyProfilesRequest, context: Context) -> pb.NotifyProfilesResponse:
        job = await self._requests.notify_profiles(request.uri, request.version, _options(request))
        return pb.NotifyProfilesResponse(job=job_message(job))

    async def GetImportJob(self, request: pb.GetImportJobRequest, context: Context) -> pb.GetImportJobResponse:
        job = await self._requests.get(request.job_id)
        require_service(job.service)
        return pb.GetImportJobResponse(job=job_message(job))

    async def ListImportJobs(self, request: pb.ListImportJobsRequest, context: Context) -> pb.ListImportJobsResponse:
        jobs = await self._requests.recent(request.service, request.page_size)
        found = pb.ListImportJobsResponse()
        size = 0
        for message in map(job_message, jobs):
            size += message.ByteSize()
            if size > MOST_LISTED_BYTES:
                break
            found.jobs.append(message)
        return found

    async def WatchImportJob(
        self, request: pb.WatchImportJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchImportJobResponse]:
        async for job in self._requests.watch(request.job_id):
            require_service(job.service)
            yield pb.WatchImportJobResponse(job=job_message(job))

    async def CancelImportJob(self, request: pb.CancelImportJobRequest, context: Context) -> pb.CancelImportJobResponse:
        return pb.CancelImportJobResponse(job=job_message(await self._requests.cancel(request.job_id)))

    async def RefreshContents(self, request: pb.RefreshContentsRequest, context: Context) -> pb.RefreshContentsResponse:
        self._requests.check_service(request.service)
        content_ids = check_content_ids(request.content_ids)
        began_s = self._clock.monotonic_s()
        done = await self._refresher.refresh(request.service, content_ids, drop_missing=request.drop_missing)
        elapsed = Duration()
        elapsed.FromNanoseconds(int((self._clock.monotonic_s() - began_s) * 1e9))
        return pb.RefreshContentsResponse(
            requested=done.requested,
            changed=done.changed,
            missing=done.missing,
            rejected=done.rejected,
            elapsed=elapsed,
            kept=done.kept,
            rejections=[
                pb.RejectedContent(content_id=each.content_id[:MAX_SHOWN_ID], reason=each.reason)
                for each in done.rejections
            ],
        )


def _options(request: pb.NotifyMappingRequest | pb.NotifyProfilesRequest) -> FileOptions:
    if request.format not in _FORMATS:
        raise InvalidArgument("no such format", field="format", value=request.format, hint="see FileFormat")
    csv = request.csv
    defaults = CsvOptions()
    return FileOptions(
        _FORMATS[request.format],
        CsvOptions(
            csv.delimiter,
            csv.list_separator or defaults.list_separator,
            csv.encoding or defaults.encoding,
            csv.escape,
            tuple(csv.columns),
        ),
    )


def job_message(job: Job) -> pb.ImportJob:
    """Return a job as callers see it."""
    progress = job.progress
    message = pb.ImportJob(
        job_id=job.id,
        kind=_KINDS[job.kind],
        service=job.service,
        logic=job.logic,
        uri=job.uri,
        version=job.version,
        state=_STATES[job.state],
        progress=pb.ImportProgress(
            parts_total=progress.parts_total,
            parts_done=progress.parts_done,
            bytes_total=progress.bytes_total,
            bytes_done=progress.bytes_done,
            rows=progress.rows,
            rejected_rows=progress.rejected_rows,
            new_contents=progress.new_contents,
            missing_contents=progress.missing_contents,
        ),
        created_at=_timestamp(job.created_at_ms),
        updated_at=_timestamp(job.updated_at_ms),
        owner=job.owner,
        resumed=job.resumed,
        rejects_uri=job.rejects_uri,
        warnings=[
            pb.ImportWarning(reason=each.reason, message=each.message, count=each.count, file=each.file, row=each.row)
            for each in job.warnings
        ],
    )
    if (failure := job.failure) is not None:
        message.error.CopyFrom(
            pb.ImportError(
                reason=failure.reason,
                message=failure.message,
                file=failure.file,
                row=failure.row,
                column=failure.column,
            )
        )
    return message


def _timestamp(at_ms: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(at_ms)
    return stamp
