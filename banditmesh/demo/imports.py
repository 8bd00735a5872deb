"""The service teams' side of the Importer: notify it of files, and wait until they are live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc

from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.demo.movielens import Ratings
from banditmesh.demo.teams import Proposals, write_mapping, write_profiles

_TIMEOUT_S = 60.0


class ImportFailed(Exception):
    """An import job did not succeed; the message is the importer's own."""


async def import_profiles(address: str, folder: Path, ratings: Ratings, version: str) -> None:
    """Import the profiles of all people.

    Raises:
        ImportFailed: The job failed.
    """
    path = write_profiles(folder, ratings)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = _stub(channel)
        request = importer_pb2.NotifyProfilesRequest(uri=path.absolute().as_uri(), version=version)
        answer = await stub.NotifyProfiles(request, timeout=_TIMEOUT_S)
        await _finished(stub, answer.job.job_id)


async def import_mappings(
    address: str, folder: Path, proposals: dict[tuple[str, str], Proposals], version: str, done: Callable[[str], None]
) -> None:
    """Import what the teams propose, all together; ``done`` is told of each job in words.

    Raises:
        ImportFailed: A job failed.
    """

    async def one(logic: tuple[str, str], rows: Proposals) -> None:
        path = await asyncio.to_thread(write_mapping, folder / version, logic, rows)
        request = importer_pb2.NotifyMappingRequest(
            service=logic[0], logic=logic[1], uri=path.absolute().as_uri(), version=version
        )
        answer = await stub.NotifyMapping(request, timeout=_TIMEOUT_S)
        job = await _finished(stub, answer.job.job_id)
        done(f"{path.name}: {job.progress.rows:,} rows, {job.progress.new_contents:,} new contents")

    async with grpc.aio.insecure_channel(address) as channel:
        stub = _stub(channel)
        async with asyncio.TaskGroup() as group:
            for logic, rows in proposals.items():
                group.create_task(one(logic, rows))


def _stub(channel: grpc.aio.Channel) -> importer_pb2_grpc.ImporterServiceAsyncStub:
    return importer_pb2_grpc.ImporterServiceStub(channel)  # type: ignore[return-value] # it fits the channel


async def _finished(stub: importer_pb2_grpc.ImporterServiceAsyncStub, job_id: str) -> importer_pb2.ImportJob:
    job = importer_pb2.ImportJob()
    async for update in stub.WatchImportJob(importer_pb2.WatchImportJobRequest(job_id=job_id), timeout=_TIMEOUT_S):
        job = update.job
    if job.state != importer_pb2.IMPORT_STATE_SUCCEEDED:
        raise ImportFailed(f"import {job_id}: {importer_pb2.ImportState.Name(job.state)}: {job.error.message}")
    return job
