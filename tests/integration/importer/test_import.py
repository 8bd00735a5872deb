"""What an import leaves for readers."""

from __future__ import annotations

import ctypes
import json
import resource
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from banditmesh.contracts.importer.v1 import importer_pb2 as pb
from banditmesh.runtime import keys, packing
from tests.support.eventually import eventually_so
from tests.support.importing import Importer, Reader
from tests.support.mapping_files import mapping, weather_keys, write

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def resident() -> int:
    """Bytes of this process that are in memory, by proc(5)'s `statm`."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def lines_of(uri: str) -> list[str]:
    return Path(urlsplit(uri).path).read_text().splitlines()


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "csv.gz", "jsonl.gz"])
async def test_a_mapping_of_any_format_becomes_live(
    importer: Importer, reader: Reader, tmp_path: Path, ending: str
) -> None:
    rows = [{"user_id": f"u{i}", "contents": ["sun", f"c{i}"], "scores": [0.5, 0.25]} for i in range(45)]

    job = await importer.import_mapping(write(tmp_path / f"m.{ending}", rows))

    assert job.state == pb.IMPORT_STATE_SUCCEEDED, job.error
    assert (job.progress.rows, job.progress.rejected_rows, job.progress.new_contents) == (45, 0, 46)
    assert await reader.candidates("u44") == weather_keys("sun", "c44")
    live = await reader.live()
    assert live is not None
    value = await reader.redis.get(keys.candidates(keys.user_tag("u44"), "weather/today", live.slot))
    np.testing.assert_array_equal(packing.unpack_candidates(value)[2], [0.5, 0.25])


async def test_what_is_written_expires(importer: Importer, reader: Reader, tmp_path: Path) -> None:
    await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    names = [name async for name in reader.redis.scan_iter()]

    assert len(names) > 5
    assert [name for name in names if await reader.redis.pttl(name) < 0] == []


async def test_parts_are_read_in_the_order_of_their_numbers_and_the_later_row_wins(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    folder = tmp_path / "parts"
    write(folder / "part-10.jsonl", [{"user_id": "u", "contents": ["newest"]}])
    write(folder / "part-9.csv", [{"user_id": "u", "contents": ["older"]}, {"user_id": "w", "contents": ["wind"]}])
    write(folder / "part-1.parquet", [{"user_id": "u", "contents": ["oldest"]}])
    write(folder / "_SUCCESS.csv", [{"nonsense": 1}])
    (folder / ".part-1.crc").write_bytes(b"\0")

    job = await importer.import_mapping(folder.as_uri())

    assert (job.state, job.progress.parts_total, job.progress.parts_done) == (pb.IMPORT_STATE_SUCCEEDED, 3, 3)
    assert await reader.candidates("u") == weather_keys("newest")
    assert await reader.candidates("w") == weather_keys("wind")


async def test_of_a_user_twice_in_one_batch_the_later_row_wins(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    rows = [{"user_id": "u", "contents": ["sun"]}, {"user_id": "u", "contents": ["rain"]}]

    await importer.import_mapping(write(tmp_path / "m.csv", rows))

    assert await reader.candidates("u") == weather_keys("rain")


async def test_a_user_missing_from_the_new_version_loses_the_old_candidates(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "1.csv", mapping(3, "sun")), "v1")
    await importer.import_mapping(write(tmp_path / "2.csv", mapping(2, "rain")), "v2")
    await importer.import_mapping(write(tmp_path / "3.csv", mapping(1, "snow")), "v3")  # into the slot of v1

    assert await reader.candidates("u0") == weather_keys("snow")
    assert await reader.candidates("u1") is None
    assert await reader.candidates("u2") is None


async def test_logics_of_a_service_have_versions_of_their_own(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "t.csv", mapping(1, "sun")), logic="today")
    await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "rain")), logic="tomorrow")

    assert await reader.candidates("u0", "weather/today") == weather_keys("sun")
    assert await reader.candidates("u0", "weather/tomorrow") == weather_keys("rain")


async def test_what_a_failed_version_wrote_does_not_come_to_life_with_the_next_one(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    broken = write(tmp_path / "1.jsonl", mapping(30, "old"))
    (tmp_path / "1.jsonl").write_bytes((tmp_path / "1.jsonl").read_bytes() + b"{broken\n" * 30)
    assert (await importer.import_mapping(broken, "v1")).error.reason == "too_many_rejects"

    await importer.import_mapping(write(tmp_path / "2.jsonl", mapping(1, "new")), "v2")

    assert await reader.candidates("u0") == weather_keys("new")
    assert await reader.candidates("u1") is None


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
async def test_profiles_of_any_format_become_live(
    importer: Importer, reader: Reader, tmp_path: Path, ending: str
) -> None:
    rows = [{"user_id": "u", "gender": "f", "visits": 3, "used_services": ["weather", "comics"], "country": "jp"}]

    job = await importer.import_profiles(write(tmp_path / f"p.{ending}", rows))

    assert (job.state, job.kind) == (pb.IMPORT_STATE_SUCCEEDED, pb.IMPORT_KIND_PROFILES)
    assert await reader.profile("u") == {
        "gender": "f",
        "visits": 3,
        "used_services": ["weather", "comics"],
        "country": "jp",
    }


async def test_engines_are_told_of_new_contents_and_of_the_live_version(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    await importer.import_mapping(write(tmp_path / "m.csv", mapping(1, "sun")))

    live = await reader.live()
    assert live is not None
    assert await reader.changes() == [
        {b"kind": b"content", b"keys": np.array(weather_keys("sun"), "<u8").tobytes()},
        {b"kind": b"live", b"source": b"weather/today", b"version": b"%d" % live.version, b"slot": b"%d" % live.slot},
    ]


async def test_bad_rows_are_left_out_counted_and_written_to_the_rejects_file(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    uri = write(tmp_path / "m.jsonl", mapping(20, "sun"))
    with (tmp_path / "m.jsonl").open("a") as file:
        file.write('{"user_id": "bad", "contents": "sun"}\n')

    job = await importer.import_mapping(uri)

    assert (job.state, job.progress.rows, job.progress.rejected_rows) == (pb.IMPORT_STATE_SUCCEEDED, 21, 1)
    assert await reader.candidates("bad") is None
    rejects = lines_of(job.rejects_uri)
    assert [json.loads(line) for line in rejects] == [
        {
            "file": uri,
            "row": 21,
            "column": "contents",
            "reason": "contents_not_a_list",
            "raw": "{'user_id': 'bad', 'contents': 'sun'}",
        }
    ]
    assert importer.metric("rejected_rows_total", kind="mapping", reason="contents_not_a_list") == 1


async def test_a_service_without_a_provider_gets_bare_contents(
    importer: Importer, reader: Reader, tmp_path: Path
) -> None:
    job = await importer.notify(write(tmp_path / "m.csv", mapping(1, "manga")), logic="similar", service="comics")
    await importer.ended(job)

    content = await reader.content("manga", "comics")
    assert content is not None
    assert (content.content_id, content.title) == ("manga", "")


async def test_what_a_job_took_of_the_memory_is_given_back(importer: Importer, tmp_path: Path) -> None:
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, 4 << 20)
    library.mallopt(M_TRIM_THRESHOLD, 256 << 20)
    mapping_uri = write(tmp_path / "m.csv", mapping(1, "sun"))
    await importer.import_mapping(mapping_uri)  # what the first job loads stays
    peak = [np.ones(12_500) for _ in range(800)]
    del peak
    before = resident()

    await importer.import_mapping(mapping_uri, version="v2")

    await eventually_so(lambda: resident() < before - (32 << 20))
