#!/bin/sh
# What a server image runs. Without a word it serves from a TEE or stops: only CONFONNX_TEE=simulated runs unprotected.
# `exec`: the server is process 1 and gets SIGTERM itself.
set -eu

if [ "${CONFONNX_TEE:-}" = simulated ]; then
    exec python3 -B -P -s -S -m confonnx.cli.app serve "$@"
fi
if [ ! -e /opt/enclave/confonnx.manifest.sgx ]; then
    exec python3 -B -P -s -S -m confonnx.cli.app serve --require-tee "$@"
fi

if [ "$#" -gt 0 ]; then
    echo "error: the arguments of an enclave are measured, so it takes none here: put options into server.toml and build" \
        "the image again; found: $*" >&2
    exit 2
fi
for device in /dev/sgx_enclave /dev/sgx_provision; do
    if [ ! -e "$device" ]; then
        echo "error: this image runs in Intel SGX, and $device is not in this container: run it with" \
            "--device=/dev/sgx_enclave --device=/dev/sgx_provision on a machine with SGX," \
            "or with -e CONFONNX_TEE=simulated to run without protection" >&2
        exit 2
    fi
done
# Quotes come from Intel's architectural enclave service: the host's, where its socket is mounted, else one in here. It
# sees reports and quotes, no data and no key of ours.
aesm=/opt/intel/sgx-aesm-service/aesm
if [ ! -S /var/run/aesmd/aesm.socket ]; then
    AESM_PATH=$aesm LD_LIBRARY_PATH=$aesm "$aesm/aesm_service" --no-syslog
fi
unset PYTHONPATH LD_LIBRARY_PATH
exec gramine-sgx /opt/enclave/confonnx
