"""A list of jobs fits into an answer, whatever the jobs say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.runtime.clock import ManualClock
from services.importer.failure import Failure
from services.importer.job import Job, Kind
from services.importer.servicer import ImporterServicer


class Recent:
    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs

    async def recent(self, service: str, page_size: int) -> list[Job]:
        return self.jobs


async def listed(jobs: list[Job]) -> pb.ListImportJobsResponse:
    servicer = ImporterServicer(cast(Any, Recent(jobs)), cast(Any, None), ManualClock())
    return await servicer.ListImportJobs(pb.ListImportJobsRequest(), cast(Any, None))


async def test_jobs_that_say_much_make_a_shorter_list() -> None:
    job = Job("one", Kind.MAPPING, "news", "top", "file:///" + "d" * 5000, "v1", 1, 1)
    jobs = [replace(job, id=f"job-{number}", failure=Failure("internal", "m" * 2000)) for number in range(500)]

    answer = await listed(jobs)

    assert 300 < len(answer.jobs) < 500
    assert answer.jobs[0].job_id == "job-0"
    assert answer.ByteSize() < 4 << 20
    assert len((await listed(jobs[:50])).jobs) == 50
