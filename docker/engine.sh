# shellcheck shell=bash
# Sourced by the build scripts: the container engine, base images, and what `pip` needs inside a build.
# DOCKER=podman chooses another engine; BUILD_OPTIONS and RUN_OPTIONS add options to its `build` and `run`.

set -euo pipefail
CALLED_FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DOCKER=${DOCKER:-docker}
read -ra BUILD_OPTIONS <<<"${BUILD_OPTIONS:-}"
read -ra RUN_OPTIONS <<<"${RUN_OPTIONS:-}"

fail() {
    echo "error: $*" >&2
    exit 2
}

# $1, which the caller may have given relative to where the script was called from.
absolute() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$CALLED_FROM/$1" ;;
    esac
}

# The engine is there and answers.
need_engine() {
    command -v "$DOCKER" >/dev/null || fail "the container engine '$DOCKER' is not installed:" \
        "install Docker, or Podman and set DOCKER=podman"
    local answer
    answer=$("$DOCKER" info 2>&1 >/dev/null) || fail "'$DOCKER info' failed: is its service running, and may you use it?" \
        "It said: $(tail -n 1 <<<"$answer")"
}

is_podman() {
    "$DOCKER" --version | grep -qi podman
}

# `python3 -m confonnx.measure.preflight`, from the source tree and with nothing installed.
preflight() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "python3 is missing or older than 3.11; it checks the inputs of the build"
    PYTHONPATH=src python3 -B -m confonnx.measure.preflight "$@"
}

# Print the pinned base image named $1: the variable of that name, else deploy/docker/images.env.
base_image() {
    local pinned
    pinned=$(sed -n "s/^$1=//p" deploy/docker/images.env)
    pinned=${!1:-$pinned}
    [ -n "$pinned" ] || fail "deploy/docker/images.env has no $1; set $1 to an image, with its digest"
    echo "$pinned"
}

# The directory of the build's temporary files: private, and gone when the script ends.
scratch() {
    SCRATCH=$(mktemp -d)
    trap 'rm -rf "$SCRATCH"' EXIT
}

# Secrets for `pip` inside a build, from this shell's pip variables. As secrets they reach no layer and no history.
pip_secrets() {
    local bundle=${PIP_CERT:-${SSL_CERT_FILE:-}}
    : >"$SCRATCH/ca_bundle"
    {
        echo "[global]"
        if [ -n "$bundle" ]; then
            cat "$bundle" >"$SCRATCH/ca_bundle"
            echo "cert = /run/secrets/ca_bundle"
        fi
        [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
        [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
        [ -z "${PIP_TRUSTED_HOST:-}" ] || echo "trusted-host = $PIP_TRUSTED_HOST"
        echo "timeout = ${PIP_DEFAULT_TIMEOUT:-60}"
    } >"$SCRATCH/pip_config"
    BUILD_OPTIONS+=(--secret "id=pip_config,src=$SCRATCH/pip_config" --secret "id=ca_bundle,src=$SCRATCH/ca_bundle")
}

# Build with the options of $@. One commit has one date, whenever it is built.
engine_build() {
    SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}
    local options=(--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH")
    # The docker format has health checks, which OCI's has not.
    is_podman && options+=(--format docker --timestamp "$SOURCE_DATE_EPOCH")
    DOCKER_BUILDKIT=1 "$DOCKER" build --quiet "${options[@]}" "${BUILD_OPTIONS[@]}" "$@" >/dev/null
}

# Copy $2… out of the image $1 into the directory that is the last argument.
copy_out() {
    local image=$1 container path
    shift
    container=$("$DOCKER" create --no-healthcheck "$image" true)
    mkdir -p "${!#}"
    for path in "${@:1:$#-1}"; do
        "$DOCKER" cp "$container:$path" "${!#}"
    done
    "$DOCKER" rm "$container" >/dev/null
}
