#!/usr/bin/env bash
# Bundle a model with the server that build.sh built, and for SGX measure and sign both together. Writes
# dist/Release/bin/enclave_info.txt anew: it is of this model now.
#
#   MODEL_PATH=model.onnx IMAGE_NAME=model-server docker/server/build_image.sh
#   MODEL_PATH=directory …     a model with external data
#   CONFIG_DIR=directory …     server.toml, and files that it names (as /app/config/…), such as hashes of API keys
#   TEE=cvm …                  as for build.sh
#   FORCE_DEBUG=1 …            a debug enclave under a tag that does not say `debug`
# shellcheck source=docker/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/../engine.sh"

TEE=${TEE:-sgx}
IMAGE_NAME=${IMAGE_NAME:-model-server}
[ -n "${MODEL_PATH:-}" ] || fail "MODEL_PATH is not set: MODEL_PATH=model.onnx IMAGE_NAME=$IMAGE_NAME $0"
MODEL_PATH=$(absolute "${MODEL_PATH%/}")
name=$(basename "$MODEL_PATH")
[[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] ||
    fail "MODEL_PATH: a model's name has letters, digits and _ . - only, found '$name'; rename it"
checks=(--model "$MODEL_PATH" --image "$IMAGE_NAME")
[ "$TEE" != sgx ] || checks+=(--conf enclave.conf)
[ -z "${FORCE_DEBUG:-}" ] || checks+=(--force-debug)
preflight "${checks[@]}"
need_engine
"$DOCKER" image inspect "confonnx-server-runtime:$TEE" >/dev/null 2>&1 ||
    fail "there is no server for TEE=$TEE yet: run TEE=$TEE docker/server/build.sh first"

scratch
context=$SCRATCH/context
mkdir -p "$context/model" "$context/config"
cp -rL "$MODEL_PATH" "$context/model/$name"
if [ -n "${CONFIG_DIR:-}" ]; then
    CONFIG_DIR=$(absolute "$CONFIG_DIR")
    [ -f "$CONFIG_DIR/server.toml" ] || fail "CONFIG_DIR: there is no $CONFIG_DIR/server.toml"
    cp -rL "$CONFIG_DIR/." "$context/config"
else
    : >"$context/config/server.toml"
fi
cp enclave.conf deploy/gramine/confonnx.manifest.template "$context"
chmod -R u=rwX,go=rX "$context"

artefacts=(/app/enclave_info.txt)
if [ "$TEE" = sgx ]; then
    source docker/server/signing_key.sh
    BUILD_OPTIONS+=(--secret "id=enclave_key,src=enclave.pem")
    artefacts+=(/opt/enclave/confonnx.manifest.sgx /opt/enclave/confonnx.sig)
fi
engine_build --file deploy/docker/Dockerfile.model --target "$TEE" --tag "$IMAGE_NAME" \
    --build-arg "RUNTIME_IMAGE=confonnx-server-runtime:$TEE" --build-arg "MODEL_NAME=$name" "$context"
copy_out "$IMAGE_NAME" "${artefacts[@]}" dist/Release/bin
[ "$TEE" != sgx ] || cp enclave.pub.pem dist/Release/bin
echo "image $IMAGE_NAME, dist/Release/bin/enclave_info.txt:"
cat dist/Release/bin/enclave_info.txt
