"""CPU that each service spends on an event, in a whole mesh of real processes: ``python -m benchmarks.services``.

What `banditmesh capacity` counts with. Visits come through the Python client, which batches by itself; every third one
is clicked. CPU is the whole process, so the figures hold however busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from banditmesh.client import Event, Selected, click
from banditmesh.contracts.importer.v1 import importer_pb2
from banditmesh.demo.imports import import_file
from banditmesh.demo.target import local_target
from banditmesh.local.stack import LocalMesh
from tests.support.whole_mesh import USERS, Traffic, client_of, copies, import_everything, running_mesh

AT_ONCE = 64
ROWS, CANDIDATES = 50_000, 30
WHAT = {"crs_engine": "selection", "tracker": "event", "joiner": "impression with its reactions", "learner": "example"}


def cpu_s(mesh: LocalMesh) -> dict[str, float]:
    """CPU seconds that each service has spent so far."""
    found = {}
    for name, service in mesh.services.items():
        page = urllib.request.urlopen(service.metrics_url, timeout=10).read().decode()
        found[name] = float(re.findall(r"^process_cpu_seconds_total (\S+)", page, re.MULTILINE)[0])
    return found


def reaction(selection: Selected) -> Event | None:
    return click(selection) if selection.impression_id[0] % 3 == 0 else None


async def visits(mesh: LocalMesh, count: int) -> dict[str, float]:
    """CPU µs an event of each service."""
    async with client_of(mesh) as client:
        users = [USERS[number % len(USERS)] for number in range(count)]
        warm = Traffic()
        await warm.run(client, "traffic", USERS[:500], at_once=AT_ONCE)
        await copies(mesh, warm.acknowledged)
        before = cpu_s(mesh)
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(5)
        idle_s = asyncio.get_running_loop().time() - began
        idle = {name: (value - before[name]) / idle_s for name, value in cpu_s(mesh).items()}
        before, began = cpu_s(mesh), asyncio.get_running_loop().time()
        traffic = Traffic()
        await traffic.run(client, "traffic", users, reaction, at_once=AT_ONCE)
        await copies(mesh, traffic.acknowledged)
        took_s = asyncio.get_running_loop().time() - began
        after = cpu_s(mesh)
    events = dict.fromkeys(WHAT, count) | {"tracker": round(count * 4 / 3)}
    return {name: 1e6 * (after[name] - before[name] - idle[name] * took_s) / events[name] for name in WHAT}


async def rows(mesh: LocalMesh, folder: Path) -> float:
    """CPU µs of the importer a row of 30 candidates."""
    contents = [[f"c{(row * 7 + index) % 5000}" for index in range(CANDIDATES)] for row in range(ROWS)]
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"user_id": [f"r{row}" for row in range(ROWS)], "contents": contents}), path)
    before = cpu_s(mesh)["importer"]
    job = await import_file(local_target(mesh), path, "comics", "new-volume", version="capacity")
    assert job.state == importer_pb2.IMPORT_STATE_SUCCEEDED, job
    return 1e6 * (cpu_s(mesh)["importer"] - before) / ROWS


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=4000, help="at most two a user: who clicked all is shown nothing")
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_mesh(Path(folder)) as mesh:
        asyncio.run(import_everything(mesh, Path(folder)))
        found = asyncio.run(visits(mesh, arguments.visits))
        found["importer"] = asyncio.run(rows(mesh, Path(folder)))
    for name, value in found.items():
        what = WHAT.get(name, f"row of {CANDIDATES} candidates")
        if arguments.json:
            print(json.dumps({"name": name, "value": round(value, 1), "unit": f"CPU us/{what}"}))
        else:
            print(f"{name:12} {value:7.0f} CPU µs a {what}")


if __name__ == "__main__":
    main()
