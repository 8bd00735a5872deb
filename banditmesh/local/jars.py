"""Jars of a server, fetched once by Maven into the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from banditmesh.local import cache
from banditmesh.local.process import TAIL_LINES, DidNotStart

FILES = Path(__file__).with_name("files")
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def fetch(server: str) -> Path:
    """The folder with the jars that ``files/<server>/pom.xml`` names; one folder for each content of that file.

    Raises:
        DidNotStart: of ``server``: there is no Maven, or it failed; carries the end of what it said.
    """
    pom = FILES / server / "pom.xml"

    def build(folder: Path) -> None:
        project = shutil.copy(pom, folder)  # the package's own folder may be read-only
        # -U: after a failed download Maven would otherwise refuse to try that jar again for a day.
        command = [_maven(server), "-q", "-B", "-U", "-f", project, COPY, f"-DoutputDirectory={folder}"]
        run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if run.returncode != 0:
            end = "\n".join((run.stdout + run.stderr).splitlines()[-TAIL_LINES:])
            raise DidNotStart(server, f"Maven could not fetch its jars:\n{end}")

    return cache.once(f"{server}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}", build)


def class_path(folder: Path) -> str:
    """All jars of a folder, in a fixed order: a class archive is only valid for the class path it was trained with."""
    return ":".join(str(jar) for jar in sorted(folder.glob("*.jar")))


def _maven(server: str) -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise DidNotStart(
            server,
            "its jars are not in the cache yet, and there is no Maven to fetch them. Install it: apt-get install maven",
        )
    return maven
