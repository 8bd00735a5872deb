#!/usr/bin/env bash
# Known vulnerabilities of what the images have, lock by lock: `make audit`. Exit 1 when there is one, 3 when the advisory data (PyPI's, then
# OSV's) cannot be had from this machine: then nothing was audited, which is no good news.
set -euo pipefail
cd "$(dirname "$0")/.."

audit() { # audit LOCK SERVICE: pip-audit's table on stdout
  .venv/bin/uv tool run -q pip-audit==2.9.0 --require-hashes --no-deps --disable-pip --progress-spinner off -s "$2" -r "$1" 2>&1
}

found=0 silent=0
for lock in requirements.lock deploy/docker/locks/*.lock; do
  for service in pypi osv; do
    said=$(audit "$lock" "$service") && code=0 || code=$?
    grep -q 'could not be audited\|Error\|error' <<< "$said" || break
    code=3
  done
  case $code in
    0) echo "$lock: no known vulnerability" ;;
    3) echo "$lock: not audited, the advisory data cannot be had here"; silent=1 ;;
    *) echo "$lock:"; echo "$said"; found=1 ;;
  esac
  [ "$code" != 3 ] || break # the others would not be heard either
done
[ "$found" = 0 ] || exit 1
[ "$silent" = 0 ] || exit 3
