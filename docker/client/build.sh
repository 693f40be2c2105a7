#!/usr/bin/env bash
# Build the Python client: one pure-Python wheel for Linux, macOS and Windows, in dist/Release/lib/python/.
#
#   docker/client/build.sh
#   PYTHON_VERSION=3.13 docker/client/build.sh     the Python that builds it (default 3.12); the wheel is the same
#   DOCKER=podman docker/client/build.sh
# shellcheck source=docker/engine.sh
source "$(dirname "${BASH_SOURCE[0]}")/../engine.sh"

version=${PYTHON_VERSION:-3.12}
[[ $version =~ ^3\.(11|12|13|14)$ ]] || fail "PYTHON_VERSION: expected 3.11, 3.12, 3.13 or 3.14, found '$version'"
need_engine
scratch
pip_secrets
python=$(base_image "PYTHON_${version/./_}_IMAGE")
engine_build --file deploy/docker/Dockerfile --target wheel --build-arg "PYTHON_IMAGE=$python" \
    --tag "confonnx-wheel:$version" .
copy_out "confonnx-wheel:$version" /wheel/. dist/Release/lib/python
ls dist/Release/lib/python/confonnx-*-py3-none-any.whl
