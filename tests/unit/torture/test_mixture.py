"""What the mixed run does with a fault that cannot be done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from banditmesh.local.process import DidNotStart
from banditmesh.torture.run import _strike
from banditmesh.torture.scene import Chronicle, Fault, Scene


def fault(error: Exception) -> Fault:
    async def strike(scene: Scene) -> None:
        raise error

    return Fault("store", 5, "plain", strike)


async def test_a_fault_that_is_not_done_to_its_end_is_written_down_and_the_run_goes_on() -> None:
    chronicle = Chronicle()
    scene = cast(Any, SimpleNamespace(note=chronicle.note))
    await _strike(fault(KeyError("Contents")), scene)
    assert [each.what for each in chronicle.happened] == ["store was not done to its end: KeyError: 'Contents'"]


async def test_without_its_servers_the_run_ends() -> None:
    with pytest.raises(DidNotStart):
        await _strike(fault(DidNotStart("kafka", "no room")), cast(Any, None))
