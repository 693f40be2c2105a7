#!/usr/bin/env bash
# Run a server image here, with as few rights as it needs, until Ctrl-C.
#
#   docker/server/run.sh                                            in the TEE that the image was built for
#   CONFONNX_TEE=simulated docker/server/run.sh                     without protection, to try it
#   IMAGE_NAME=model-server PORT=8888 DOCKER=podman docker/server/run.sh
#
# CONFONNX_… variables are passed on; an SGX enclave does not see them, since its options are measured. Without one of
# your own, CONFONNX_DEPLOYMENT is the digest of the image, so that the attested statement says which one this is.
# shellcheck source=docker/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/../engine.sh"

IMAGE_NAME=${IMAGE_NAME:-model-server}
PORT=${PORT:-8888}
need_engine
tee=$("$DOCKER" image inspect --format '{{ index .Config.Labels "org.confonnx.tee" }}' "$IMAGE_NAME" 2>/dev/null) ||
    fail "there is no image $IMAGE_NAME here: MODEL_PATH=model.onnx IMAGE_NAME=$IMAGE_NAME docker/server/build_image.sh"

options=(--rm --read-only --cap-drop=ALL --security-opt=no-new-privileges --tmpfs=/tmp --publish="$PORT:8888")
if [ -z "${CONFONNX_DEPLOYMENT:-}" ]; then
    # Of the registry it was pushed to or pulled from; an image that never left this machine has its own.
    digest=$("$DOCKER" image inspect \
        --format '{{ if .RepoDigests }}{{ index .RepoDigests 0 }}{{ else }}{{ .Id }}{{ end }}' "$IMAGE_NAME")
    digest=${digest##*@}
    export CONFONNX_DEPLOYMENT="sha256:${digest#sha256:}"
fi
while IFS= read -r variable; do
    options+=(--env "$variable")
done < <(compgen -e | grep '^CONFONNX_' || true)

if [ "${CONFONNX_TEE:-}" = simulated ]; then
    options+=(--user=10001:10001)
elif [ "$tee" = sgx ]; then
    for device in /dev/sgx_enclave /dev/sgx_provision; do
        [ -e "$device" ] || fail "$device is missing: this machine has no SGX, or its driver is not loaded." \
            "To run without protection: CONFONNX_TEE=simulated $0"
        options+=(--device="$device")
    done
    if [ -S /var/run/aesmd/aesm.socket ]; then
        options+=(--volume=/var/run/aesmd:/var/run/aesmd)
    else
        options+=(--tmpfs=/var/run/aesmd --tmpfs=/var/opt/aesmd)
    fi
else
    # What a confidential VM attests with is root's: container root without a single capability can open it.
    options+=(--user=0:0)
    found=
    for device in /dev/sev-guest /dev/tdx_guest /dev/tpmrm0 /dev/nsm; do
        [ ! -e "$device" ] || found=1 options+=(--device="$device")
    done
    [ ! -d /sys/kernel/config/tsm/report ] || found=1 options+=(--volume=/sys/kernel/config:/sys/kernel/config)
    [ -n "$found" ] || fail "this machine has none of /sys/kernel/config/tsm/report, /dev/sev-guest, /dev/tdx_guest," \
        "/dev/tpmrm0 and /dev/nsm, so it is no confidential VM. To run without protection: CONFONNX_TEE=simulated $0"
fi
exec "$DOCKER" run "${options[@]}" "${RUN_OPTIONS[@]}" "$IMAGE_NAME" "$@"
