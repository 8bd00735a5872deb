#!/usr/bin/env bash
# Called by `make cluster-test`: a cluster of two nodes, the images in it under two tags, and then the proof.
# CLUSTER is a tool with the verbs `up --nodes N`, `build CONTEXT TAG OPTIONS…` (which also loads the image) and `kubeconfig`.
# PREVIOUS is a git revision with the chart to upgrade from; by default the last one of the chart version before; none: leave it out.
set -euo pipefail
cd "$(dirname "$0")/../.."

"$CLUSTER" up --nodes 2
KUBECONFIG=$("$CLUSTER" kubeconfig)
helm=$(PYTHONPATH=. "$BIN/python" -c 'from tests.deploy.tools import helm; print(helm())')
PATH="$(dirname "$helm"):$(realpath "$BIN"):${CLUSTER_DIR:-/tmp/cluster}/bin:$PATH"
export KUBECONFIG PATH PYTHONPATH=.

"$BIN/python" deploy/docker/build.py --builder "$CLUSTER" --tag 0.1.0
# The upgrade is to the same code under another tag: what it does to traffic is the question.
"$BIN/python" deploy/docker/build.py --builder "$CLUSTER" --tag 0.1.1 importer engine tracker joiner learner
# The foreign client: the packages come from npm here, Node from Debian in the build.
staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
cp -r tests/cluster/load.mjs tests/cluster/node.Dockerfile protos "$staged"
npm install --silent --no-audit --no-fund --prefix "$staged" @grpc/grpc-js@1 @grpc/proto-loader@0.8
"$CLUSTER" build "$staged" banditmesh-load-node:1 -f "$staged/node.Dockerfile"

chart=deploy/helm/banditmesh/Chart.yaml
since=$(git log --format=%H -S"version: $(sed -n 's/^version: //p' "$chart")" -- "$chart" | tail -n 1)
if [ -z "${PREVIOUS-}" ] && git cat-file -e "$since^:$chart" 2> /dev/null; then PREVIOUS=$(git rev-parse "$since^"); fi
[ -n "${PREVIOUS-}" ] || echo "no earlier version of the chart in this clone's history: the upgrade from it is left out"
[ "${PREVIOUS-}" = none ] || set -- ${PREVIOUS:+--previous "$PREVIOUS"} "$@"
"$BIN/python" -m tests.cluster.prove "$@"
