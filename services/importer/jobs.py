"""Jobs in Redis: a hash for each, and two sorted sets, of all and of those that have not ended.

A job is a hash: ``record`` (JSON), ``fence`` (the number of the last lease that wrote it) and, once asked for,
``cancel``. It is written before the sets. Killed between the two, the job is in no set yet and nobody works on it; its
caller got no answer, asks again, and that puts it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from banditmesh.runtime import keys
from banditmesh.runtime.logging import get_logger
from banditmesh.runtime.redis import RedisClient
from services.importer.failure import Reject
from services.importer.job import Job, UnreadableJob
from services.importer.lease import Lease, LeaseLost

log = get_logger(__name__)

JOB_TTL_S = 30 * 86400.0
MAX_KEPT_REJECTS = 10_000
"""Rejected rows that are kept for the rejects file; more are counted, but by then the first ones tell what is wrong."""

_CREATE = """
local record = redis.call('HGET', KEYS[1], 'record')
if record then return record end
redis.call('HSET', KEYS[1], 'record', ARGV[1], 'fence', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return false
"""
_RESTART = """
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2])
redis.call('HDEL', KEYS[1], 'cancel')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return 1
"""
_SAVE = """
if (tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') or 0) > tonumber(ARGV[1]) then return -1 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'record', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 5, #ARGV do
  if redis.call('LLEN', KEYS[2]) < tonumber(ARGV[4]) then redis.call('RPUSH', KEYS[2], ARGV[i]) end
end
if #ARGV >= 5 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
return redis.call('HEXISTS', KEYS[1], 'cancel')
"""
_CANCEL = "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end redis.call('HSET', KEYS[1], 'cancel', '1') return 1"
_CLOSE = (
    "if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then return redis.call('ZREM', KEYS[1], ARGV[1]) end return 0"
)
_TTL_MS = int(JOB_TTL_S * 1000)


@dataclass(frozen=True)
class Listed:
    """A job of a sorted set, with the score under which it stands there."""

    job: Job
    score: float


class Jobs:
    """The job records. Every method may raise Unavailable; those that return one job, UnreadableJob."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._told: set[bytes] = set()
        self._commands: Any = redis.client

    async def create(self, job: Job) -> Job:
        """Store a new job and return it, or the one that has its id already."""
        async with self._redis.guarded(keys.job(job.id)):
            found = await self._commands.eval(_CREATE, 1, keys.job(job.id), job.to_json(), _TTL_MS)
        kept = job if found is None else Job.from_json(found)
        if not kept.state.ended:
            await self._list(kept)
        return kept

    async def restart(self, old: Job, new: Job) -> bool:
        """Replace a job that has ended by its next attempt; False when it is not ``old`` any more."""
        names = (
            keys.job(new.id),
            keys.job_rejects(new.id),
            *(keys.job_contents(new.id, outcome) for outcome in ("new", "missing")),
        )
        async with self._redis.guarded(*names):
            done = await self._commands.eval(_RESTART, len(names), *names, old.to_json(), new.to_json(), _TTL_MS)
        if done:
            await self._list(new)
        return bool(done)

    async def get(self, job_id: str) -> Job | None:
        """Return a job, None when there is none."""
        async with self._redis.guarded(keys.job(job_id)):
            record = await self._commands.hget(keys.job(job_id), "record")
        return None if record is None else Job.from_json(record)

    async def recent(self, service: str, most: int) -> list[Job]:
        """Return the newest jobs of a service, or of all when it is empty."""
        jobs: list[Job] = []
        start, page = 0, max(most, 100)
        while len(jobs) < most:
            async with self._redis.guarded(keys.JOBS):
                ids = await self._commands.zrange(keys.JOBS, start, start + page - 1, desc=True)
            found = await self._records([job_id.decode(errors="replace") for job_id in ids])
            jobs += [job for job in found if isinstance(job, Job) and service in ("", job.service)]
            start += page
            if len(ids) < page:
                break
        return jobs[:most]

    async def unended(self) -> list[Listed]:
        """Return the jobs to be done, the oldest first; those that have ended meanwhile are struck off."""
        async with self._redis.guarded(keys.OPEN_JOBS):
            listed = await self._commands.zrange(keys.OPEN_JOBS, 0, -1, withscores=True)
        found = await self._records([job_id.decode(errors="replace") for job_id, _ in listed])
        jobs = []
        for (job_id, score), job in zip(listed, found, strict=True):
            if isinstance(job, UnreadableJob):  # another release does it, beside the others
                if job_id not in self._told:
                    self._told.add(job_id)
                    log.warning("an import job is left to another release", job_id=job_id.decode(), reason=job.message)
            elif job is None or job.state.ended:
                await self._close(job_id, score)
            else:
                jobs.append(Listed(job, score))
        return jobs

    async def save(self, job: Job, lease: Lease, rejects: Sequence[Reject] = ()) -> bool:
        """Write a job's next state, and with it (all or nothing) the rejected rows that led to it; return whether it
        should be cancelled.

        Raises:
            LeaseLost: Somebody with a later lease has written it.
        """
        lease.check()
        lines = [reject.line() for reject in rejects[:MAX_KEPT_REJECTS]]
        names = (keys.job(job.id), keys.job_rejects(job.id))
        async with self._redis.guarded(*names):
            reply = await self._commands.eval(
                _SAVE, len(names), *names, lease.number, job.to_json(), _TTL_MS, MAX_KEPT_REJECTS, *lines
            )
        if reply < 0:
            raise LeaseLost(f"the job {job.id} has another owner")
        if job.state.ended:
            await self._close(job.id.encode(), float(job.created_at_ms))
        return bool(reply)

    async def request_cancel(self, job_id: str) -> None:
        """Leave word for whoever works on the job."""
        async with self._redis.guarded(keys.job(job_id)):
            await self._commands.eval(_CANCEL, 1, keys.job(job_id))

    async def is_cancelled(self, job_id: str) -> bool:
        """Whether somebody wants the job to end."""
        async with self._redis.guarded(keys.job(job_id)):
            return bool(await self._commands.hexists(keys.job(job_id), "cancel"))

    async def _records(self, job_ids: Sequence[str]) -> list[Job | UnreadableJob | None]:
        if not job_ids:
            return []
        pipeline = self._redis.pipeline()
        for job_id in job_ids:
            pipeline.hget(keys.job(job_id), "record")
        async with self._redis.guarded(*map(keys.job, job_ids)):
            records = await pipeline.execute()
        return [None if record is None else _read(record) for record in records]

    async def _list(self, job: Job) -> None:
        pipeline = self._redis.pipeline()
        for name in (keys.OPEN_JOBS, keys.JOBS):
            pipeline.zadd(name, {job.id: job.created_at_ms})
            pipeline.pexpire(name, _TTL_MS)
        pipeline.zremrangebyscore(keys.JOBS, "-inf", job.created_at_ms - _TTL_MS)
        async with self._redis.guarded(keys.OPEN_JOBS, keys.JOBS):
            await pipeline.execute()

    async def _close(self, job_id: bytes, score: float) -> None:
        # Only under the score that was seen: a job that is asked for anew at this moment stands there under another.
        async with self._redis.guarded(keys.OPEN_JOBS):
            await self._commands.eval(_CLOSE, 1, keys.OPEN_JOBS, job_id, f"{score:.0f}")


def _read(record: bytes) -> Job | UnreadableJob:
    """What one of several records is: that it cannot be read is no matter of the others."""
    try:
        return Job.from_json(record)
    except UnreadableJob as error:
        return error
