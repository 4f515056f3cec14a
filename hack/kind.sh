#!/usr/bin/env bash
# For machines with Docker and kind: builds the three images, makes a kind cluster, installs the chart, applies the
# examples. Not run where this project is built and tested (there is no Docker engine there); hack/demo is.
#
# Needs docker, kind, kubectl, helm, and the right to write /var/lib/motet. Safe to run again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || { echo "kind.sh: $program is not installed" >&2; exit 1; }
done

python="$(hack/venv dev)/bin/python"
# A tag of its own for each state of the sources, so that pods roll.
tag=$(git rev-parse --short HEAD)$(git diff --quiet HEAD || date +-%s)

echo "== model and adapters"
PYTHONPATH="$root/api/src:$root/hack" "$python" - <<'PYTHON'
from demo_lib.material import Material, prepare_model, put_into_volumes, train_adapters

model = prepare_model()
put_into_volumes(Material(model, train_adapters(model)))
PYTHON

echo "== images motet-{operator,gateway,runtime}:$tag"
for part in operator gateway runtime; do
  docker build --file "$part/Dockerfile" --tag "motet-$part:$tag" .
done

echo "== cluster"
kind get clusters | grep -qx motet || kind create cluster --config kind-config.yaml
kind load docker-image --name motet "motet-operator:$tag" "motet-gateway:$tag" "motet-runtime:$tag"

echo "== chart"
kubectl --context kind-motet apply --server-side -f charts/motet/crds/
helm upgrade motet charts/motet --install --kube-context kind-motet --namespace motet-system --create-namespace --wait \
  --set "operator.image.tag=$tag,gateway.image.tag=$tag,runtime.image.tag=$tag"

echo "== examples"
kubectl --context kind-motet apply -f examples/
kubectl --context kind-motet wait --for=condition=Ready --namespace demo --timeout=300s modeldeployments,loraadapters --all
kubectl --context kind-motet get mdep,lora --namespace demo
echo "kubectl --context kind-motet port-forward --namespace motet-system service/motet-gateway 8080:80"
