"""What is built out of a checkout: a source distribution, a wheel, and what comes along with each extra."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from banditmesh.protos import FOLDER
from tests.deploy.checkout import ROOT, copy_checkout

pytestmark = pytest.mark.timeout(300)
BARE = {
    "banditmesh.client",
    "banditmesh.provider",
    "banditmesh.bandits.registry",
    "banditmesh.ope",
    "banditmesh.protos",
}
SERVICES = {
    "engine": "crs_engine",
    "importer": "importer",
    "tracker": "tracker",
    "joiner": "joiner",
    "learner": "learner",
}
"""The package of each service, by its extra."""
NEEDS = {
    "engine": {"redis", "hiredis", "boto3", "safetensors", "aiokafka"},  # aiokafka: for sampled decisions
    "importer": {"redis", "hiredis", "boto3", "pyarrow", "fsspec", "hdfs-native", "safetensors"},
    "tracker": {"aiokafka", "boto3"},  # boto3: what AWS's signer of MSK logins stands on
    "joiner": {"redis", "hiredis", "aiokafka", "boto3"},
    "learner": {"aiokafka", "boto3", "safetensors", "pyarrow"},
}
SERVERS_CLIENTS = set().union(*NEEDS.values())


def run(*words: str | Path, cwd: Path) -> str:
    """What a command prints; AssertionError with all that it said when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout: what git knows of this tree, without anything generated."""
    return copy_checkout(tmp_path_factory.mktemp("clean") / "banditmesh")


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a source distribution and of the wheel built out of it, each in its own environment."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "uv", "build", "-q", "--out-dir", folder, checkout, cwd=checkout)
    return folder


@pytest.fixture(scope="module")
def bare(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an empty environment in which `pip install CHECKOUT` was run, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", checkout, cwd=folder)
    return python


def wheel(folder: Path) -> Path:
    (path,) = folder.glob("*.whl")
    return path


def test_a_wheel_has_the_generated_contracts_and_the_protos_they_came_from(built: Path) -> None:
    names = set(zipfile.ZipFile(wheel(built)).namelist())
    for proto in (ROOT / "protos").rglob("*.proto"):
        path = proto.relative_to(ROOT / "protos")
        assert f"banditmesh/contracts/protos/{path}" in names
        generated = f"banditmesh/contracts/{path.relative_to('banditmesh').with_suffix('')}_pb2"
        assert {f"{generated}.py", f"{generated}.pyi"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "tools/", "docs/"))]


def test_a_source_distribution_has_the_protos_and_nothing_generated(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert [name for name in names if name.endswith("events/v1/events.proto")]
    assert not [name for name in names if name.endswith("_pb2.py")]


def test_a_bare_installation_brings_no_client_of_a_server(bare: Path, tmp_path: Path) -> None:
    listed = json.loads(run(bare, "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    installed = {each["name"].lower() for each in listed}
    assert "banditmesh" in installed
    assert not installed & (SERVERS_CLIENTS | {"botocore", "uvloop", "typer", "rich", "pyyaml", "matplotlib"})


@pytest.mark.parametrize("module", sorted(BARE))
def test_a_bare_installation_imports(module: str, bare: Path, tmp_path: Path) -> None:
    where = run(bare, "-I", "-c", f"import {module}; print({module}.__file__)", cwd=tmp_path)
    assert str(bare.parents[1]) in where  # the installed one


def test_the_command_of_a_bare_installation_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    done = subprocess.run([bare.with_name("banditmesh"), "check"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("install it with: pip install 'banditmesh[cli]'\n")
    assert "Traceback" not in done.stderr


def test_the_protos_of_an_installation_are_those_of_the_checkout() -> None:
    def contents(folder: Path) -> dict[Path, bytes]:
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.proto")}

    assert contents(FOLDER) == contents(ROOT / "protos")


@pytest.mark.parametrize("extra", sorted(SERVICES))
def test_a_service_starts_with_what_its_own_lock_has(extra: str, built: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    run(*uv, "venv", "-q", "--python", sys.executable, tmp_path / "venv", cwd=tmp_path)
    lock = ROOT / "deploy" / "docker" / "locks" / f"{extra}.lock"
    run(*uv, "pip", "sync", "-q", "--require-hashes", "--python", python, lock, cwd=tmp_path)
    run(*uv, "pip", "install", "-q", "--no-deps", "--python", python, wheel(built), cwd=tmp_path)
    package = f"services.{SERVICES[extra]}"
    run(python, "-I", "-c", f"import {package}.bootstrap", cwd=tmp_path)
    assert "BANDITMESH_CONFIG" in run(python, "-I", "-m", package, "--help", cwd=tmp_path)
    mesh = ROOT / "banditmesh" / "quickstart" / "mesh.yaml"
    assert "is valid" in run(tmp_path / "venv" / "bin" / "banditmesh", "check", mesh, cwd=tmp_path)


def pins(lock: Path) -> set[str]:
    return {line.split()[0] for line in lock.read_text().splitlines() if "==" in line}


@pytest.mark.parametrize("extra", sorted(SERVICES))
def test_an_image_has_the_versions_that_are_tested_and_the_clients_it_needs(extra: str) -> None:
    locked = pins(ROOT / "deploy" / "docker" / "locks" / f"{extra}.lock")
    assert locked <= pins(ROOT / "requirements.lock"), "run: make lock"
    names = {pin.partition("==")[0] for pin in locked}
    assert names & SERVERS_CLIENTS == NEEDS[extra]


def test_locks_name_no_index_and_have_a_hash_for_each_package() -> None:
    for lock in [ROOT / "requirements.lock", *(ROOT / "deploy" / "docker" / "locks").glob("*.lock")]:
        text = lock.read_text()
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


def test_the_services_extra_is_all_of_them() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["services"] == [f"banditmesh[{','.join(SERVICES)}]"]


def test_the_archive_of_protos_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    script = ROOT / "tools" / "protos_archive.py"
    first = Path(run(sys.executable, script, tmp_path / "a", cwd=ROOT).strip())
    second = Path(run(sys.executable, script, tmp_path / "b", cwd=ROOT).strip())
    assert first.read_bytes() == second.read_bytes()
    shutil.unpack_archive(first, tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    packed = {path.relative_to(folder / "protos") for path in folder.rglob("*.proto")}
    assert packed == {path.relative_to(ROOT / "protos") for path in (ROOT / "protos").rglob("*.proto")}
