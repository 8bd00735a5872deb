from __future__ import annotations

import os
import subprocess
import sys

BATCHES = """
import resource, sys
import numpy as np
if "settled" in sys.argv:
    from banditmesh.runtime.memory import freeze_heap
    assert freeze_heap()
def batch():
    arrays = [np.ones(40_000) for _ in range(16)]
for _ in range(3):
    batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_settled_process_has_the_memory_of_the_next_batch_already() -> None:
    as_it_is, settled = (
        int(subprocess.check_output([sys.executable, "-c", BATCHES, how], env={**os.environ, "PYTHONPATH": "."}))
        for how in ("as it is", "settled")
    )
    assert settled < as_it_is / 50
