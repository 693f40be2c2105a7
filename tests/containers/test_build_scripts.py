"""The build scripts against bad input, with an engine that only writes down what it was asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import signers
from tests.support.build_tree import copy_tree, run_script
from tests.support.enclave_confs import conf_text
from tests.support.models import add_model

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("openssl") is None,
    reason="the build scripts need bash and openssl",
)

ENGINE = """#!/bin/sh
echo "$@" >> "$ENGINE_LOG"
case "$1" in
    --version) echo "podman version 4.3.1" ;;
    info) [ -z "$ENGINE_DOWN" ] || { echo "cannot connect" >&2; exit 125; } ;;
    image) [ -z "$NO_RUNTIME" ] || exit 1; echo "${LABEL:-cvm}" ;;
    create) echo container ;;
    cp) mkdir -p "$3"; echo "tee=sgx" > "$3/$(basename "$2")" ;;
esac
"""


@pytest.fixture(scope="module")
def clean_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("clean") / "repo")


@pytest.fixture
def tree(clean_tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_tree, tmp_path / "repo"))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the engine writes down its arguments."""
    program, log = tmp_path / "engine", tmp_path / "engine.log"
    program.write_text(ENGINE)
    program.chmod(0o755)
    log.touch()
    for name in (
        "MODEL_PATH",
        "IMAGE_NAME",
        "CONFIG_DIR",
        "TEE",
        "FORCE_DEBUG",
        "BUILD_OPTIONS",
        "RUN_OPTIONS",
        "PORT",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("CONFONNX_", "PYTHON_3_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER", str(program))
    monkeypatch.setenv("ENGINE_LOG", str(log))
    return log


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(add_model(tmp_path / "add.onnx"))


def refusal(run: subprocess.CompletedProcess[str], status: int = 2) -> str:
    assert run.returncode == status, run.stdout + run.stderr
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


BUILD, IMAGE, RUN, CLIENT = (
    "docker/server/build.sh",
    "docker/server/build_image.sh",
    "docker/server/run.sh",
    "docker/client/build.sh",
)


@pytest.mark.parametrize("script", [BUILD, RUN, CLIENT])
def test_no_engine(tree: Path, engine: Path, script: str) -> None:
    text = refusal(run_script(tree, script, DOCKER="no-such-engine"))
    assert "'no-such-engine' is not installed: install Docker, or Podman and set DOCKER=podman" in text


def test_an_engine_that_does_not_answer(tree: Path, engine: Path) -> None:
    text = refusal(run_script(tree, CLIENT, ENGINE_DOWN="1"))
    assert "is its service running" in text
    assert "It said: cannot connect" in text


def test_the_wheel_is_built_by_the_asked_for_python(tree: Path, engine: Path) -> None:
    run_script(tree, CLIENT, PYTHON_VERSION="3.13")
    build = [line for line in engine.read_text().splitlines() if line.startswith("build ")]
    assert len(build) == 1
    assert "--target wheel" in build[0]
    assert "PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm@sha256:" in build[0]
    assert "PYTHON_VERSION: expected 3.11, 3.12, 3.13 or 3.14, found '3.9'" in refusal(
        run_script(tree, CLIENT, PYTHON_VERSION="3.9")
    )


def test_an_index_of_ones_own_reaches_pip_as_a_secret_and_no_layer(tree: Path, engine: Path) -> None:
    run_script(tree, CLIENT, PIP_INDEX_URL="https://user:hunter2@index.example/simple")
    asked = engine.read_text()
    assert "--secret id=pip_config,src=" in asked
    assert "hunter2" not in asked


def test_no_model(tree: Path, engine: Path) -> None:
    assert "MODEL_PATH is not set" in refusal(run_script(tree, IMAGE))
    missing = refusal(run_script(tree, IMAGE, MODEL_PATH="gone.onnx"), 6)
    assert "gone.onnx: No such file or directory" in missing


def test_paths_are_relative_to_where_the_script_was_called_from(
    tree: Path, engine: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Path(model).parent / "config"
    config.mkdir()
    (config / "server.toml").touch()
    monkeypatch.chdir(Path(model).parent)
    run = run_script(tree, IMAGE, MODEL_PATH=Path(model).name, CONFIG_DIR="config")
    assert run.returncode == 0, run.stderr
    for script in (BUILD, IMAGE):
        run = run_script(tree, script, MODEL_PATH=Path(model).name, TEE="cvm")
        assert run.returncode == 0, run.stderr


def test_a_model_that_is_not_onnx(tree: Path, engine: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"PK\x03\x04")
    assert f"{file} is not an ONNX model" in refusal(run_script(tree, IMAGE, MODEL_PATH=str(file)), 6)


def test_a_model_with_a_name_that_no_image_should_have(tree: Path, engine: Path, tmp_path: Path) -> None:
    file = add_model(tmp_path / "my model.onnx")
    assert "found 'my model.onnx'; rename it" in refusal(run_script(tree, IMAGE, MODEL_PATH=str(file)))


def test_an_enclave_conf_that_is_wrong(tree: Path, engine: Path, model: str) -> None:
    (tree / "enclave.conf").write_text(conf_text(NumTCS="many"))
    assert "NumTCS must be a whole number from 8 to 1024, found 'many'" in refusal(run_script(tree, BUILD))
    (tree / "enclave.conf").write_text(conf_text(NumHeapPages="1000"))
    assert "set NumHeapPages=" in refusal(run_script(tree, IMAGE, MODEL_PATH=model))
    assert "build " not in engine.read_text()
    # The size of an enclave is nothing to a confidential VM.
    assert run_script(tree, IMAGE, MODEL_PATH=model, TEE="cvm").returncode == 0


def test_a_debug_enclave_under_a_production_tag(tree: Path, engine: Path, model: str) -> None:
    (tree / "enclave.conf").write_text(conf_text(Debug="1"))
    text = refusal(run_script(tree, IMAGE, MODEL_PATH=model, IMAGE_NAME="model-server:1.0"))
    assert "Debug=1" in text
    assert "FORCE_DEBUG=1" in text
    assert (
        run_script(tree, IMAGE, MODEL_PATH=model, IMAGE_NAME="model-server:1.0", FORCE_DEBUG="1").returncode
        == 0
    )
    assert run_script(tree, IMAGE, MODEL_PATH=model, IMAGE_NAME="model-server:1.0-debug").returncode == 0


def test_a_server_that_was_not_built_yet(tree: Path, engine: Path, model: str) -> None:
    text = refusal(run_script(tree, IMAGE, MODEL_PATH=model, NO_RUNTIME="1"))
    assert "run TEE=sgx docker/server/build.sh first" in text


def test_an_unknown_tee(tree: Path, engine: Path) -> None:
    assert "TEE: expected sgx or cvm, found 'sev'" in refusal(run_script(tree, BUILD, TEE="sev"))


def test_a_configuration_without_its_file(tree: Path, engine: Path, model: str, tmp_path: Path) -> None:
    text = refusal(run_script(tree, IMAGE, MODEL_PATH=model, CONFIG_DIR=str(tmp_path / "empty")))
    assert "there is no" in text
    assert "server.toml" in text


def test_the_key_is_made_once_and_reaches_the_build_as_a_secret(tree: Path, engine: Path, model: str) -> None:
    first = run_script(tree, IMAGE, MODEL_PATH=model)
    assert first.returncode == 0, first.stderr
    assert "made enclave.pem" in first.stderr
    pem = (tree / "enclave.pem").read_bytes()
    assert (tree / "enclave.pem").stat().st_mode & 0o777 == 0o600
    numbers = load_pem_private_key(pem, None).private_numbers()  # type: ignore[union-attr]
    assert (numbers.public_numbers.e, numbers.public_numbers.n.bit_length()) == (3, 3072)  # type: ignore[union-attr]
    public = (tree / "enclave.pub.pem").read_bytes()
    assert load_pem_public_key(public) == load_pem_private_key(pem, None).public_key()
    assert Tee.SGX in signers(public)
    assert (tree / "dist/Release/bin/enclave.pub.pem").read_bytes() == public
    second = run_script(tree, IMAGE, MODEL_PATH=model)
    assert "made" not in second.stderr
    assert (tree / "enclave.pem").read_bytes() == pem
    build = [line for line in engine.read_text().splitlines() if line.startswith("build ")][-1]
    assert "--secret id=enclave_key,src=enclave.pem" in build
    assert "--target sgx" in build
    assert sorted(path.name for path in (tree / "dist/Release/bin").iterdir()) == [
        "confonnx.manifest.sgx",
        "confonnx.sig",
        "enclave.pub.pem",
        "enclave_info.txt",
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("openssl genrsa -out enclave.pem 3072", "found 3072 bits, publicExponent: 65537"),
        ("openssl genrsa -3 -out enclave.pem 2048", "found 2048 bits, publicExponent: 3"),
        ("openssl ecparam -name secp384r1 -genkey -out enclave.pem", "found something else"),
        ("openssl genrsa -3 -aes256 -passout pass:x -out enclave.pem 3072", "without a password"),
        ("openssl genrsa -3 3072 | openssl rsa -pubout -out enclave.pem", "found something else"),
        ("echo nonsense > enclave.pem", "found something else"),
    ],
)
def test_a_key_that_sgx_does_not_take(
    command: str, message: str, tree: Path, engine: Path, model: str
) -> None:
    subprocess.run(["bash", "-c", command], cwd=tree, check=True, capture_output=True)
    text = refusal(run_script(tree, IMAGE, MODEL_PATH=model))
    assert message in text
    assert "openssl genrsa -3 -out enclave.pem 3072" in text
    assert "build " not in engine.read_text()


def test_a_container_that_simulates_has_no_rights_and_no_device(tree: Path, engine: Path) -> None:
    run = run_script(
        tree, RUN, CONFONNX_TEE="simulated", CONFONNX_LOG_FORMAT="json", PORT="9000", LABEL="sgx"
    )
    assert run.returncode == 0, run.stderr
    asked = engine.read_text().splitlines()[-1]
    for option in ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=10001:10001"):
        assert option in asked
    assert "--publish=9000:8888" in asked
    assert "--env CONFONNX_LOG_FORMAT" in asked
    assert "--env CONFONNX_TEE" in asked
    assert "--device" not in asked


@pytest.mark.parametrize("shown", ["registry.example/m@sha256:abc", "sha256:abc", "abc"])
def test_the_deployment_is_the_digest_of_the_image(
    tree: Path, engine: Path, tmp_path: Path, shown: str
) -> None:
    seen = tmp_path / "seen"
    program = Path(os.environ["DOCKER"])
    program.write_text(
        ENGINE + f'[ "$1" != run ] || echo "$CONFONNX_DEPLOYMENT" > {seen}\n',
    )
    run_script(tree, RUN, CONFONNX_TEE="simulated", LABEL=shown)
    assert seen.read_text() == "sha256:abc\n"
    run_script(tree, RUN, CONFONNX_TEE="simulated", CONFONNX_DEPLOYMENT="mine", LABEL=shown)
    assert seen.read_text() == "mine\n"


@pytest.mark.skipif(Path("/dev/sgx_enclave").exists(), reason="this machine has SGX")
def test_sgx_where_there_is_none(tree: Path, engine: Path) -> None:
    text = refusal(run_script(tree, RUN, LABEL="sgx"))
    assert "/dev/sgx_enclave is missing" in text
    assert "CONFONNX_TEE=simulated" in text


def test_an_image_that_is_not_there(tree: Path, engine: Path) -> None:
    assert "there is no image model-server here" in refusal(run_script(tree, RUN, NO_RUNTIME="1"))


def test_base_images_are_pinned_and_can_be_replaced(tree: Path, engine: Path) -> None:
    lines = (tree / "deploy/docker/images.env").read_text().splitlines()
    images = [line.partition("=")[2] for line in lines if line and not line.startswith("#")]
    assert len(images) == 5
    assert all(len(image.partition("@sha256:")[2]) == 64 for image in images)
    run_script(tree, CLIENT, PYTHON_3_12_IMAGE="localhost/mine")
    assert "PYTHON_IMAGE=localhost/mine " in engine.read_text()
