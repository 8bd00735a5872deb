#!/usr/bin/env bash
# `buf breaking` of the working tree against the last contracts of main that are not these: called by `make lint`.
set -euo pipefail
cd "$(dirname "$0")/.."

main=$(git rev-parse -q --verify origin/main || git rev-parse -q --verify main || git rev-parse -q --verify HEAD) || {
  echo 'contracts: no commit to compare with yet'
  exit 0
}
base=$(git merge-base "$main" HEAD 2>/dev/null) || base=$main
# On a main without changes of our own, what its last commit did is the question; a shallow clone may not know the answer.
if [ "$base" = "$(git rev-parse HEAD)" ] && git diff --quiet HEAD -- protos; then
  base=$(git rev-parse -q --verify 'HEAD^' || true)
fi
if [ -z "$base" ] || ! git cat-file -e "$base:protos" 2>/dev/null; then
  echo 'contracts: no earlier contracts to compare with'
  exit 0
fi
before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" protos buf.yaml | tar -x -C "$before"
.venv/bin/buf breaking --against "$before"
echo "contracts: nothing broken since ${base:0:10}"
