#!/usr/bin/env bash
# Build the server, and for SGX sign its enclave. Results are in dist/Release/bin/: confonnx.manifest.sgx and confonnx.sig
# (the signed enclave), enclave_info.txt (its identity) and enclave.pub.pem (who signed).
#
#   docker/server/build.sh                         Intel SGX
#   TEE=cvm docker/server/build.sh                 a confidential VM (SEV-SNP, TDX), or no TEE at all
#   MODEL_PATH=model.onnx docker/server/build.sh   with this model; by default with the digits of `confonnx demo`
#   DOCKER=podman docker/server/build.sh
#
# The model is part of what is measured, so build_image.sh, which bundles yours, writes enclave_info.txt anew.
# shellcheck source=docker/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/../engine.sh"

export TEE=${TEE:-sgx}
case $TEE in
    sgx) base=GRAMINE_IMAGE ;;
    cvm) base=PYTHON_3_12_IMAGE ;;
    *) fail "TEE: expected sgx or cvm, found '$TEE'" ;;
esac
need_engine
[ "$TEE" != sgx ] || preflight --conf enclave.conf
scratch
pip_secrets
python=$(base_image PYTHON_3_12_IMAGE)
engine_build --file deploy/docker/Dockerfile --target runtime --build-arg "TEE=$TEE" \
    --build-arg "PYTHON_IMAGE=$python" --build-arg "BASE_IMAGE=$(base_image "$base")" \
    --tag "confonnx-server-runtime:$TEE" .

# This image is for a look at the enclave and nobody's product: whatever Debug says, its tag may stand.
MODEL_PATH=$(absolute "${MODEL_PATH:-$PWD/src/confonnx/cli/digits/digits.onnx}") \
    IMAGE_NAME=confonnx-server:$TEE FORCE_DEBUG=1 docker/server/build_image.sh
