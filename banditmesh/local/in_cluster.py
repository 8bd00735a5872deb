"""One server of a mesh that somebody tries out in an empty cluster: a pod's main process, with its data in ``/data``.

``python -m banditmesh.local.in_cluster kafka|valkey|s3``. Kafka's address for clients comes from ``ADVERTISED``, the S3
store's keys from ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``. For evaluation: one node, no TLS.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from banditmesh.local import java, s3, valkey
from banditmesh.local.kafka import CLUSTER_ID, cluster_configuration

DATA, SCRATCH = Path("/data"), Path("/tmp")
JARS = Path("/opt/kafka")
BUCKET = "banditmesh"
S3_PORT = 8333
_TRY_EVERY_S = 0.5


def kafka() -> list[str]:
    """Format the data folder the first time, and return the broker's command line."""
    configuration = SCRATCH / "server.properties"
    configuration.write_text(cluster_configuration(str(DATA / "kafka"), advertised=os.environ["ADVERTISED"]))
    runtime = java.find("kafka")
    base = [str(runtime.path), *java.SMALL, f"-Dlog4j2.configurationFile={JARS / 'log4j2.properties'}"]
    class_path = ["-cp", f"{JARS}/*"]
    tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(configuration), "--ignore-formatted"]
    os.environ.update(java.ENVIRONMENT)
    subprocess.run([*base, "-Xmx64m", *class_path, *tool], check=True)
    return [*base, "-Xmx384m", *class_path, "kafka.Kafka", str(configuration)]


def redis() -> list[str]:
    """Return the server's command line."""
    options = {
        "bind": "* -::*",
        "protected-mode": "no",
        "port": "6379",
        "dir": str(DATA),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    return [str(valkey.binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def store() -> list[str]:
    """Return the server's command line; the bucket is made as soon as it answers."""
    identity = {
        "name": "mesh",
        "credentials": [
            {"accessKey": os.environ["AWS_ACCESS_KEY_ID"], "secretKey": os.environ["AWS_SECRET_ACCESS_KEY"]}
        ],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities = SCRATCH / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    threading.Thread(target=_make_bucket, daemon=True).start()
    options = {
        "dir": DATA,
        "ip": "127.0.0.1",
        "ip.bind": "0.0.0.0",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "master.electionTimeout": "500ms",
        "volume.max": 0,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.localSocket": SCRATCH / "filer.sock",
        "s3": "true",
        "s3.port": S3_PORT,
        "s3.localSocket": SCRATCH / "s3.sock",
        "s3.config": identities,
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
    }
    os.environ["WEED_MASTER_VOLUME_GROWTH_COPY_1"] = "1"
    return [s3.weed(), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]


def _make_bucket() -> None:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{S3_PORT}")
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
        except client.exceptions.BucketAlreadyOwnedByYou:
            return
        except (BotoCoreError, ClientError):
            time.sleep(_TRY_EVERY_S)
        else:
            return


SERVERS: dict[str, Callable[[], list[str]]] = {"kafka": kafka, "valkey": redis, "s3": store}


def main() -> int:
    """Run the server until it ends; SIGTERM is handed on, so that it ends in order."""
    child = subprocess.Popen(SERVERS[sys.argv[1]]())
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
