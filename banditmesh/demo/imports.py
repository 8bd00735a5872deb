"""The service teams' side of the Importer: notify it of files, and wait until they are live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.demo.movielens import Ratings
from banditmesh.demo.target import Target
from banditmesh.demo.teams import Proposals, write_mapping, write_profiles
from banditmesh.runtime.channels import failed_call
from banditmesh.runtime.errors import FailedPrecondition

_TIMEOUT_S = 60.0
_TRY_AGAIN_S = 0.5


class ImportFailed(FailedPrecondition):
    """An import job did not succeed; the message is the importer's own."""


async def import_profiles(target: Target, folder: Path, ratings: Ratings, version: str) -> None:
    """Import the profiles of all people.

    Raises:
        ImportFailed: The job failed.
    """
    path = await asyncio.to_thread(write_profiles, folder / version, ratings)
    async with target.channel(target.importer) as channel:
        stub = _stub(channel)
        request = importer_pb2.NotifyProfilesRequest(uri=await target.publish(path), version=version)

        async def notify() -> importer_pb2.ImportJob:
            answer = await stub.NotifyProfiles(request, timeout=_TIMEOUT_S, metadata=target.metadata)
            return answer.job  # type: ignore[no-any-return] # the stub has no types for asyncio

        await _finished(stub, target, notify)


async def import_mappings(
    target: Target,
    folder: Path,
    proposals: dict[tuple[str, str], Proposals],
    version: str,
    done: Callable[[str], None],
) -> None:
    """Import what the teams propose, all together; ``done`` is told of each job in words.

    Raises:
        ImportFailed: A job failed.
    """

    async def one(logic: tuple[str, str], rows: Proposals) -> None:
        path = await asyncio.to_thread(write_mapping, folder / version, logic, rows)
        job = await import_file(target, path, *logic, version=version)
        done(f"{path.name}: {job.progress.rows:,} rows, {job.progress.new_contents:,} new contents")

    try:
        async with asyncio.TaskGroup() as group:
            for logic, rows in proposals.items():
                group.create_task(one(logic, rows))
    except ExceptionGroup as failed:  # one is enough to say
        raise failed.exceptions[0] from None


async def import_file(target: Target, path: Path, service: str, logic: str, *, version: str) -> importer_pb2.ImportJob:
    """Import one mapping file; return the job at its end. Raises ImportFailed."""
    async with target.channel(target.importer) as channel:
        stub = _stub(channel)
        request = importer_pb2.NotifyMappingRequest(
            service=service, logic=logic, uri=await target.publish(path), version=version
        )

        async def notify() -> importer_pb2.ImportJob:
            answer = await stub.NotifyMapping(request, timeout=_TIMEOUT_S, metadata=target.metadata)
            return answer.job  # type: ignore[no-any-return] # the stub has no types for asyncio

        return await _finished(stub, target, notify)


def _stub(channel: grpc.aio.Channel) -> importer_pb2_grpc.ImporterServiceAsyncStub:
    return importer_pb2_grpc.ImporterServiceStub(channel)  # type: ignore[return-value] # it fits the channel


async def _finished(
    stub: importer_pb2_grpc.ImporterServiceAsyncStub,
    target: Target,
    notify: Callable[[], Awaitable[importer_pb2.ImportJob]],
) -> importer_pb2.ImportJob:
    """Notify and wait; if the importer goes away meanwhile, once more: the same request is the same job."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            job = await notify()
            watch = importer_pb2.WatchImportJobRequest(job_id=job.job_id)
            async for update in stub.WatchImportJob(watch, timeout=_TIMEOUT_S, metadata=target.metadata):
                job = update.job
            break
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise failed_call(error, "importer", target.importer, "--importer, --endpoints") from error
        await asyncio.sleep(_TRY_AGAIN_S)
    if job.state != importer_pb2.IMPORT_STATE_SUCCEEDED:
        raise ImportFailed(f"import {job.job_id}: {importer_pb2.ImportState.Name(job.state)}: {job.error.message}")
    return job
