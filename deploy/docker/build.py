"""Builds every image and prints its size: ``make images``, or ``build.py --tag 0.1.0 --builder PROGRAM [TARGET…]``.

``--builder`` is ``docker``, ``buildah``, or a program that takes ``build CONTEXT TAG OPTIONS…``, as the one that
runs the cluster test does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from banditmesh import __version__
from banditmesh.demo.movielens import movielens
from banditmesh.local import cache, jars

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
STAGED = ROOT / "deploy/docker/staged"
TARGETS = ("engine", "importer", "tracker", "joiner", "learner", "tools", "evaluation")


def stage() -> None:
    """Put what the evaluation image has besides Python packages into the context: Kafka's jars, the demo's ratings."""
    shutil.rmtree(STAGED, ignore_errors=True)
    movielens(cache.folder())
    (STAGED / "kafka").mkdir(parents=True)
    for jar in jars.fetch("kafka").glob("*.jar"):
        shutil.copy2(jar, STAGED / "kafka")
    shutil.copy2(jars.FILES / "kafka" / "log4j2.properties", STAGED / "kafka")
    shutil.copytree(cache.folder() / "ml-100k", STAGED / "ml-100k")


def build(builder: str, target: str, tag: str, base: str | None) -> None:
    """Build one image."""
    name = f"banditmesh-{target}:{tag}"
    arguments = {"VERSION": tag, "REVISION": revision(), **({"BASE": base} if base else {})}
    options = ["-f", str(DOCKERFILE), "--target", target]
    for key, value in arguments.items():
        options += ["--build-arg", f"{key}={value}"]
    known = {"docker": ["docker", "build", "-q"], "buildah": ["buildah", "bud", "-q", "--layers", "--format", "docker"]}
    if builder in known:
        command = [*known[builder], *options, "-t", name, str(ROOT)]
    else:
        command = [builder, "build", str(ROOT), name, *options]
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)


def revision() -> str:
    """The commit that is built."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def size_mb(builder: str, name: str) -> float:
    """Megabytes of an image's layers, as the builder itself counts them."""
    if builder == "docker":
        words = ["docker", "image", "inspect", "--format", "{{.Size}}", name]
    else:
        words = ["buildah", *os.environ.get("BUILDAH_STORE", "").split(), "inspect", "--type", "image", "--format"]
        words += ["{{.Docker.Size}}", name]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() or 0) / 1e6


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", default=__version__)
    parser.add_argument("--builder", default="docker" if shutil.which("docker") else "buildah")
    parser.add_argument("--base", help="another base than python:3.11-slim, with the same Python")
    parser.add_argument("targets", nargs="*", default=TARGETS, help=f"some of {', '.join(TARGETS)}")
    arguments = parser.parse_args()
    if "evaluation" in arguments.targets:
        stage()
    for target in arguments.targets:
        build(arguments.builder, target, arguments.tag, arguments.base)
        name = f"banditmesh-{target}:{arguments.tag}"
        if arguments.builder in ("docker", "buildah"):
            print(f"{name} {size_mb(arguments.builder, name):.0f} MB")


if __name__ == "__main__":
    main()
