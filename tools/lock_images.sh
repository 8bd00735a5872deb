#!/usr/bin/env bash
# One lock file an image, in deploy/docker/locks: the versions of requirements.lock, of that image's extra alone. Called by `make lock`.
set -euo pipefail
cd "$(dirname "$0")/.."

locks=deploy/docker/locks
mkdir -p "$locks"
resolve() { # resolve NAME WORDS…: uv's arguments for what goes into NAME.lock
  .venv/bin/uv pip compile -q "${@:2}" --constraint requirements.lock --generate-hashes --no-annotate --no-header \
    --universal --python-version 3.11 -o "$locks/$1.lock"
}

for service in engine importer tracker joiner learner tools; do
  resolve "$service" pyproject.toml --extra "$service"
done
resolve evaluation pyproject.toml --extra local
# What the wheel is built with: [build-system] of pyproject.toml, and pip itself is in the base.
.venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
  resolve build -
