from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


LOOKS = """
import gc
from banditmesh.runtime.memory import freeze_heap
gc.callbacks.append(lambda phase, info: phase == "stop" and print(info["generation"]))
gc.disable()
freeze_heap()
freeze_heap()
"""


def test_a_process_that_serves_is_not_stopped_to_look_at_all_that_was_built_anew() -> None:
    looked = subprocess.check_output([sys.executable, "-c", LOOKS], env={**os.environ, "PYTHONPATH": "."}, text=True)
    assert looked.split()[:2] == ["2", "1"]


@pytest.mark.parametrize("service", ["importer", "learner"])
def test_services_that_read_with_arrow_take_its_memory_from_glibc_unless_told_otherwise(service: str) -> None:
    look = f"import services.{service}, pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    ours = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    for told, expected in ({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc"):
        env = {**ours, "PYTHONPATH": ".", **told}
        assert subprocess.check_output([sys.executable, "-c", look], env=env, text=True).strip() == expected
