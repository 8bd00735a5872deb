#!/usr/bin/env bash
# Makes .venv with everything in it, on a machine that may have little: called by `make setup`.
# As root on Debian and Ubuntu it installs the system packages that are missing; else it says which ones to install.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "make setup: $1"; exit 1; }

refreshed=
apt_install() { # as root on Debian and Ubuntu; false elsewhere
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  say "Installing $* (apt-get)"
  [ "$refreshed" ] || apt-get -qq update >&2
  refreshed=1
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >&2 </dev/null
}

find_python() { # prints the first Python >= 3.11 that runs
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

make_venv() { # make_venv PYTHON
  if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    local version
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "python$version-venv" || true
  fi
  if "$1" -c 'import ensurepip, venv' 2>/dev/null; then
    "$1" -m venv --clear .venv
  elif command -v uv >/dev/null; then
    uv venv -q --clear --seed --python "$1" .venv
  elif "$1" -c 'import virtualenv' 2>/dev/null; then
    "$1" -m virtualenv -q --clear .venv
  else
    fail "this Python ($1) cannot make virtual environments. Install the package python3-venv (or uv), and try again."
  fi
}

if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
  python=$(find_python) || { apt_install python3 && python=$(find_python); } ||
    fail 'Python 3.11 or newer is needed. Install it, or name it: make setup PYTHON=/path/to/python3'
  say "Making .venv with $python"
  make_venv "$python"
fi

# What only servers of the demo and the tests need: reported here, but nothing else depends on it.
if ! command -v mvn >/dev/null; then
  apt_install maven || say 'Note: no Maven (mvn) here. The local Kafka needs it once, to fetch its jars: apt-get install maven'
fi

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@" >&2 </dev/null; }
say 'Installing the locked requirements'
pip install -q --require-hashes --no-deps --use-pep517 -r requirements.lock
# The build generates the contracts; without isolation, so that it does so with the locked tools.
pip install -q --no-deps --no-build-isolation -e .
