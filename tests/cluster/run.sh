#!/usr/bin/env bash
# Called by `make cluster-test`: a cluster of two nodes, the images in it under two tags, and then the proof.
# CLUSTER is a tool with the verbs `up --nodes N`, `build CONTEXT TAG OPTIONS…` (which also loads the image) and `kubeconfig`.
set -euo pipefail
cd "$(dirname "$0")/../.."

"$CLUSTER" up --nodes 2
KUBECONFIG=$("$CLUSTER" kubeconfig)
helm=$(PYTHONPATH=. "$BIN/python" -c 'from tests.deploy.tools import helm; print(helm())')
export KUBECONFIG PATH="$(dirname "$helm"):$PATH" PYTHONPATH=.
"$BIN/python" deploy/docker/build.py --builder "$CLUSTER" --tag 0.1.0
# The upgrade is to the same code under another tag: what it does to traffic is the question.
"$BIN/python" deploy/docker/build.py --builder "$CLUSTER" --tag 0.1.1
exec "$BIN/python" tests/cluster/prove.py "$@"
