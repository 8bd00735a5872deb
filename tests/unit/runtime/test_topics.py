"""Names and partitions: what other languages' producers must agree about."""

from __future__ import annotations

import pytest

from banditmesh.runtime.kafka.topics import Topics, partition_of

MURMUR2 = {
    # From org.apache.kafka.common.utils.UtilsTest.testMurmur2 of Kafka's Java client.
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), MURMUR2.items())
@pytest.mark.parametrize("partitions", [1, 4, 7, 1024])
def test_a_key_is_in_the_partition_that_the_java_client_chooses(key: bytes, hashed: int, partitions: int) -> None:
    assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


def test_every_name_has_the_prefix_of_the_mesh() -> None:
    assert tuple(Topics.named("jp.")) == (
        "jp.impressions",
        "jp.reactions",
        "jp.examples",
        "jp.late-reactions",
        "jp.dead-letters",
        "jp.decisions",
    )
