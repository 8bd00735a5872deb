"""What a reader makes of a broker that does not answer in the middle of its work."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, OffsetOutOfRangeError

from banditmesh.runtime.errors import Unavailable
from services.learner.reader import KafkaReader


class Overtaken:
    """A consumer whose position retention has overtaken, at a broker that says no more."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def getmany(self, *tps: Any, **options: Any) -> Any:
        raise OffsetOutOfRangeError({tps[0]: 5})

    async def beginning_offsets(self, tps: Any) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [TimeoutError(), KafkaConnectionError()], ids=repr)
async def test_retention_that_overtakes_it_while_the_broker_does_not_answer_is_an_outage(error: Exception) -> None:
    reader = KafkaReader("127.0.0.1:1", "examples", "learner-0", {})
    reader._consumer = Overtaken(error)
    with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1"):
        await reader.read([0], 0.1)
