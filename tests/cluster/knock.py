"""Who gets into a mesh with mutual TLS and an access table: run in a pod, one JSON line for each who knocks."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc

from banditmesh.contracts.crs_engine.v1 import crs_engine_pb2, crs_engine_pb2_grpc
from banditmesh.contracts.importer.v1 import importer_pb2, importer_pb2_grpc
from banditmesh.contracts.learner.v1 import learner_pb2, learner_pb2_grpc

CLIENTS = Path("/clients")
ENGINE, IMPORTER, LEARNER = "mesh-engine:50052", "mesh-importer:50051", "mesh-learner:50055"
REFUSED_HANDSHAKE = ["UNAVAILABLE"]


def channel(target: str, who: str | None, name: str | None = None) -> grpc.aio.Channel:
    """Trusts our authority; ``who`` None: shows no certificate. ``name``: what the server must be called."""
    ca = (CLIENTS / "app" / "ca.crt").read_bytes()
    pair: tuple[bytes | None, bytes | None] = (None, None)
    if who is not None:
        pair = ((CLIENTS / who / "tls.key").read_bytes(), (CLIENTS / who / "tls.crt").read_bytes())
    options = [] if name is None else [("grpc.ssl_target_name_override", name)]
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca, *pair), options)


async def select(channel: grpc.aio.Channel) -> Any:
    stub = crs_engine_pb2_grpc.CrsEngineServiceStub(channel)
    return await stub.SelectContent(crs_engine_pb2.SelectContentRequest(placement="hello", user_id="u"), timeout=10)


async def roll_back(channel: grpc.aio.Channel) -> Any:
    request = learner_pb2.RollbackSnapshotRequest(placement="hello", model="linucb", version=1)
    return await learner_pb2_grpc.LearnerServiceStub(channel).RollbackSnapshot(request, timeout=10)


def notify(service: str) -> Any:
    async def call(channel: grpc.aio.Channel) -> Any:
        request = importer_pb2.NotifyMappingRequest(
            service=service,
            logic="greeting" if service == "hello" else "random",
            uri="s3://elsewhere/no.csv",
            version="v",
        )
        return await importer_pb2_grpc.ImporterServiceStub(channel).NotifyMapping(request, timeout=10)

    return call


LET_IN = ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"]
"""What a caller hears who may, about a request that makes no sense."""
CASES: list[tuple[str, str, str | None, str | None, Any, list[str]]] = [
    ("an app selects", ENGINE, "app", None, select, ["OK"]),
    ("no certificate", ENGINE, None, None, select, REFUSED_HANDSHAKE),
    ("a certificate of another authority of the same name", ENGINE, "forged", None, select, REFUSED_HANDSHAKE),
    ("an expired certificate", ENGINE, "expired", None, select, REFUSED_HANDSHAKE),
    ("a certificate whose SAN nobody is known by", ENGINE, "unknown", None, select, ["UNAUTHENTICATED"]),
    ("a server whose SAN is another", ENGINE, "app", "elsewhere.example", select, REFUSED_HANDSHAKE),
    ("an app takes a model back", LEARNER, "app", None, roll_back, ["PERMISSION_DENIED"]),
    ("an app notifies a mapping", IMPORTER, "app", None, notify("hello"), ["PERMISSION_DENIED"]),
    ("a team selects", ENGINE, "greeter", None, select, ["PERMISSION_DENIED"]),
    ("a team notifies another's mapping", IMPORTER, "greeter", None, notify("discover"), ["PERMISSION_DENIED"]),
    ("a team notifies its own, from a bucket that is not allowed", IMPORTER, "greeter", None, notify("hello"), [
        *LET_IN, "PERMISSION_DENIED"]),
    ("an operator takes a model back", LEARNER, "oncall", None, roll_back, ["OK", *LET_IN]),
]  # fmt: skip


async def knock(target: str, who: str | None, name: str | None, call: Any) -> tuple[str, str]:
    async with channel(target, who, name) as opened:
        try:
            await call(opened)
        except grpc.aio.AioRpcError as error:
            return error.code().name, (error.details() or "")[:200]
    return "OK", ""


async def main() -> None:
    """See the module."""
    for what, target, who, name, call, expected in CASES[: 1 if "--once" in sys.argv else None]:
        found, details = await knock(target, who, name, call)
        print(json.dumps({"who": what, "found": found, "expected": expected, "details": details}), flush=True)
    async with grpc.aio.insecure_channel(ENGINE) as plain:
        try:
            await select(plain)
            found = "OK"
        except grpc.aio.AioRpcError as error:
            found = error.code().name
    print(json.dumps({"who": "plaintext", "found": found, "expected": REFUSED_HANDSHAKE, "details": ""}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
