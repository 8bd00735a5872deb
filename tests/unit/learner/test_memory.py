"""What a flush of the archive leaves behind in the learner's allocators: bytes that they hold, not what is resident."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FLUSH = """
import asyncio, ctypes, json, sys
import services.learner  # first, as `python -m services.learner` has it
import numpy as np, pyarrow as pa
from banditmesh.runtime.memory import freeze_heap
from banditmesh.runtime.store import open_store
from tests.support.examples import T0_MS, Given, tick
from tests.unit.learner.test_archiver import Rig, topic_of

class Mallinfo2(ctypes.Structure):  # malloc.h
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
found = {"pool": pa.default_memory_pool().backend_name}

async def flush():
    rig = Rig(topic_of(200), open_store(sys.argv[1]))
    following = asyncio.create_task(rig.archiver._follow())
    while not rig._has(200):
        await asyncio.sleep(0)
    found["rows"] = pa.total_allocated_bytes()
    peak = [np.ones(12_500) for _ in range(400)]
    del peak
    found["free_before"] = mallinfo2().keepcost
    await rig.clock.advance(61)
    while not rig.topic.reported:
        await asyncio.sleep(0)
    rig.topic.append([Given(0, T0_MS + 8_000_000, tick().SerializeToString())])
    while rig.archiver._partitions[0].end < len(rig.topic.records[0]):  # it reads on once all is done
        await asyncio.sleep(0)
    following.cancel()

freeze_heap()
asyncio.run(flush())
found |= {
    "rows_after": pa.total_allocated_bytes(),
    "free_after": mallinfo2().keepcost,
    "mimalloc": pa.mimalloc_memory_pool().max_memory(),
}
print(json.dumps(found))
"""


def test_a_flush_of_the_archive_leaves_nothing_in_the_allocators(tmp_path: Path) -> None:
    said = subprocess.check_output(
        [sys.executable, "-c", FLUSH, tmp_path.as_uri()], env={**os.environ, "PYTHONPATH": "."}, text=True
    )
    found = json.loads(said.splitlines()[-1])

    assert found["pool"] == "system"
    assert found["mimalloc"] == 0
    assert found["rows"] > 0
    assert found["rows_after"] == 0
    assert found["free_before"] > 32 << 20
    assert found["free_after"] < 1 << 20
