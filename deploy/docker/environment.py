"""Makes what an image gets under ``/out``: an environment with one lock's packages and the wheel, and the SBOM.

Run inside the build by the Dockerfile, in two steps: ``environment.py packages LOCK`` and ``environment.py finish LOCK
[PACKAGE]``. LOCK names a file of ``deploy/docker/locks``, PACKAGE the one package of ``services`` that the image runs;
without it all of them stay.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGET = Path("/opt/banditmesh")
OUT = Path("/out")
NEVER_READ = (
    "pyarrow/*flight*",
    "pyarrow/libarrow_python*.so",  # copies of what has the version in its name; a wheel has no links
    "pyarrow/*.so.*.*",
    "pyarrow/*_cpp_tests*",
    "**/*.pxi",
    "**/tests",
    "**/testing",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.h",
    "**/*.a",
    "**/include",
    "**/src",
)
"""What packages carry for their own tests and for compilers."""
NEVER_CALLED = ("numpy/f2py", "numpy/distutils", "safetensors/torch.py", "pyarrow/flight.py")
STRIPPED = ("pyarrow", "uvloop", "yaml", "hdfs_native", "aiokafka", "hiredis")
"""Packages whose libraries have symbols for a linker. numpy's stay as they are: tools have rewritten them before, and a
library does not always survive the second one."""
KEPT_LEXERS = {"__init__.py", "_mapping.py", "python.py", "special.py"}
"""Of the languages that pygments knows, those that a traceback is written in."""
KEPT_TESTING = ("numpy", "google")  # both import theirs
BOTO_SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
"""S3 itself, and where credentials come from."""


def packages(lock: str) -> None:
    """Install what the lock has, and take out what no image reads."""
    subprocess.run(["python3", "-m", "venv", "--without-pip", TARGET], check=True)
    _install("--require-hashes", "-r", HERE / "locks" / f"{lock}.lock")
    slim(_site())
    _compile(_site())


def finish(lock: str, package: str | None) -> None:
    """Install the wheel, write the SBOM, and lay all of it out as the image has it."""
    _install(*Path("/wheel").glob("*.whl"))
    services = _site() / "services"
    for path in services.iterdir() if package else ():
        if path.is_dir() and path.name != package:
            shutil.rmtree(path)
    _compile(services)
    _compile(_site() / "banditmesh")
    # What was taken out must not be missed.
    imports = [f"services.{package}.bootstrap"] if package else ["services.learner.bootstrap", "banditmesh.demo.run"]
    for module in ("banditmesh.cli", "banditmesh.runtime.mesh", *imports):
        subprocess.run([TARGET / "bin" / "python", "-I", "-B", "-c", f"import {module}"], check=True)
    shutil.copytree(TARGET, OUT / TARGET.relative_to("/"), symlinks=True)
    bill = OUT / "usr/share/banditmesh/sbom.cdx.json"
    bill.parent.mkdir(parents=True)
    sbom = [sys.executable, HERE / "sbom.py", HERE / "locks" / f"{lock}.lock"]
    bill.write_bytes(subprocess.run(sbom, check=True, stdout=subprocess.PIPE).stdout)


def _install(*what: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", TARGET / "bin" / "python"]
    subprocess.run([*pip, "install", "-q", "--no-compile", "--no-deps", *what], check=True)


def _site() -> Path:
    (site,) = TARGET.glob("lib/python*/site-packages")
    return site


def _compile(folder: Path) -> None:
    """With hashes instead of times: the same bytes at each build, and no writing at run time."""
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder, quiet=2, invalidation_mode=unchecked, stripdir="/")


def slim(site: Path) -> None:
    """Take out what no image reads."""
    for pattern in NEVER_READ:
        for path in list(site.glob(pattern)):
            inside = path.relative_to(site).parts
            if path.name == "testing" and inside[0] in KEPT_TESTING:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name in NEVER_CALLED:
        path = site / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in list((site / "pygments" / "lexers").glob("*.py")):
        if path.name not in KEPT_LEXERS:
            path.unlink()
    for package in STRIPPED:
        for path in sorted((site / package).rglob("*.so*")):
            subprocess.run(["strip", "--strip-unneeded", path], check=True)
    data = site / "botocore" / "data"
    for path in data.iterdir() if data.exists() else ():
        if path.is_dir() and path.name not in BOTO_SERVICES:
            shutil.rmtree(path)


if __name__ == "__main__":
    step, name, *rest = sys.argv[1:]
    packages(name) if step == "packages" else finish(name, rest[0] if rest else None)
