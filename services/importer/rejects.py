"""The rejects file of a job: JSON lines, one for each row that was left out."""

from __future__ import annotations

import json
from typing import Any

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from banditmesh.runtime.store import Store
from services.importer.job import Job
from services.importer.jobs import MAX_KEPT_REJECTS


class RejectsFolder:
    """Where rejects files are written.

    While a job runs its rejects wait in Redis, written together with the checkpoint, so that a row is in the file
    once however often the job was resumed. The file is written when the job ends; killed before the job's end is
    recorded, the next importer writes the same again.
    """

    def __init__(self, redis: RedisClient, store: Store, prefix: str) -> None:
        """``prefix``: put before the names, such as ``rejects/``."""
        self._redis = redis
        self._commands: Any = redis.client
        self._store = store
        self._prefix = prefix

    async def write(self, job: Job) -> str:
        """Write the file of a job and return its URI; empty when the job rejected nothing. Raises what the store
        raises.
        """
        name = keys.job_rejects(job.id)
        async with self._redis.guarded(name):
            lines: list[bytes] = await self._commands.lrange(name, 0, -1)
        if not lines:
            return ""
        if job.progress.rejected_rows > MAX_KEPT_REJECTS:
            lines.append(json.dumps({"reason": "more", "rows": job.progress.rejected_rows - len(lines)}).encode())
        key = f"{self._prefix}{job.id}.jsonl"
        await self._store.put(key, b"\n".join(lines) + b"\n")
        where = self._store.location.partition(" at ")[0]  # an S3 store also says at which endpoint
        return f"{where.rstrip('/')}/{key}"
