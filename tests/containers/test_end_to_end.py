"""The four scripts, with a real engine: build, bundle, run, and ask from the wheel that was built.

One function: each step needs what the one before made, and making it takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import signers
from confonnx.measure.enclave_info import EnclaveInfo, SimulatedInfo, parse_enclave_info
from confonnx.models.digest import model_digest
from confonnx.models.documents import read_json
from confonnx.models.repository import load_single
from confonnx.runtime.options import SessionOptions
from confonnx.runtime.session import Session
from tests.containers.podman import BASE_IMAGE, engine, missing, podman
from tests.support.build_tree import ROOT, copy_tree, run_script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None and "CI" not in os.environ, reason=str(missing())),
]
DIGITS = ROOT / "src/confonnx/cli/digits/digits.onnx"
IMAGE = "localhost/model-server:test"
RUNTIME = "confonnx-server-runtime:cvm"
ENCLAVE = "localhost/model-server:enclave"
CONTAINER = f"confonnx-end-to-end-{os.getpid()}"


def test_from_a_model_file_to_an_answer(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("CONFONNX_")]:
        monkeypatch.delenv(name)
    tree = copy_tree(tmp_path_factory.mktemp("tree") / "repo")
    # Short paths: the engine puts sockets there.
    with engine(tmp_path_factory.mktemp("store")) as variables:
        wheel = build_client(tree, variables)
        build_server(tree, variables)
        first = manifest_of_image(tree, variables)
        needs_a_tee(variables)
        serves_a_mounted_model(tree, variables)
        with running(tree, variables) as url:
            assert urllib.request.urlopen(url, timeout=10).read() == b"Healthy"
            is_confined(variables)
            asks_from_the_wheel(tree, variables, wheel, url)
            ends_on_sigterm(variables)
        enclave = build_enclave(tree, variables)
        build_server(tree, variables | {"BUILD_OPTIONS": "--network=host --no-cache"})
        assert manifest_of_image(tree, variables) == first, "two builds of one tree measure differently"
        assert build_enclave(tree, variables) == enclave


def build_client(tree: Path, variables: dict[str, str]) -> Path:
    run = run_script(tree, "docker/client/build.sh", **variables)
    assert run.returncode == 0, run.stderr
    (wheel,) = (tree / "dist/Release/lib/python").glob("*.whl")
    assert wheel.name.startswith("confonnx-")
    assert wheel.name.endswith("-py3-none-any.whl")
    return wheel


def build_server(tree: Path, variables: dict[str, str]) -> None:
    run = run_script(tree, "docker/server/build.sh", **variables, TEE="cvm")
    assert run.returncode == 0, run.stderr
    run = run_script(
        tree,
        "docker/server/build_image.sh",
        **variables,
        TEE="cvm",
        MODEL_PATH=str(DIGITS),
        IMAGE_NAME=IMAGE,
    )
    assert run.returncode == 0, run.stderr
    info = parse_enclave_info((tree / "dist/Release/bin/enclave_info.txt").read_text())
    assert isinstance(info, SimulatedInfo)
    assert info.model == hashlib.sha256(DIGITS.read_bytes()).hexdigest()


_STAND_IN = f"""
FROM {BASE_IMAGE}
COPY stand_in_gramine.py sigstructs.py /opt/stand-in/
WORKDIR /opt/stand-in
RUN mkdir runtime && touch libsysdb.so && chmod 755 stand_in_gramine.py && \\
    cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 runtime/ && \\
    for name in gramine-manifest gramine-sgx-sign gramine-sgx; do \\
        ln -s /opt/stand-in/stand_in_gramine.py /usr/local/bin/$name; done
"""


def build_enclave(tree: Path, variables: dict[str, str]) -> bytes:
    """The SIGSTRUCT of an SGX build, with stand-ins for Gramine's tools."""
    context = tree / "stand-in"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(_STAND_IN)
    for file in ("tests/containers/stand_in_gramine.py", "tests/support/sigstructs.py"):
        shutil.copy(ROOT / file, context)
    podman(variables, "build", "--quiet", "--network=host", "--tag=localhost/gramine", str(context))
    sgx = variables | {"GRAMINE_IMAGE": "localhost/gramine", "TEE": "sgx"}
    run = run_script(tree, "docker/server/build.sh", **sgx)
    assert run.returncode == 0, run.stderr
    run = run_script(tree, "docker/server/build_image.sh", **sgx, MODEL_PATH=str(DIGITS), IMAGE_NAME=ENCLAVE)
    assert run.returncode == 0, run.stderr
    release = tree / "dist/Release/bin"
    info = parse_enclave_info((release / "enclave_info.txt").read_text())
    assert isinstance(info, EnclaveInfo)
    assert info.mrenclave == hashlib.sha256((release / "confonnx.manifest.sgx").read_bytes()).digest()
    assert info.mrsigner == signers((release / "enclave.pub.pem").read_bytes())[Tee.SGX]
    assert (info.product_id, info.security_version, info.debug) == (1, 1, False)
    assert (
        podman(variables, "run", "--rm", "--no-healthcheck", ENCLAVE, check=False) == ""
    )  # no device, no server
    files = podman(variables, "run", "--rm", "--no-healthcheck", "--entrypoint=find", ENCLAVE, "/opt/enclave")
    assert "PRIVATE KEY" not in podman(variables, "history", "--no-trunc", ENCLAVE)
    assert sorted(Path(line).name for line in files.split()) == [
        "confonnx.manifest",
        "confonnx.manifest.sgx",
        "confonnx.manifest.template",
        "confonnx.sig",
        "enclave",
        "enclave.conf",
    ]
    return (release / "confonnx.sig").read_bytes()


_MANIFEST = """
set -eu
mkdir -p /tmp/gramine/runtime
cp -L /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 /tmp/gramine/runtime/
touch /tmp/gramine/libsysdb.so
printf 'libos = "/tmp/gramine/libsysdb.so"\\nruntime = "/tmp/gramine/runtime"\\n' > /tmp/gramine.toml
python3 -B -P -s -S -m confonnx.measure.build_steps manifest \
    --template /inputs/deploy/gramine/confonnx.manifest.template \
    --conf /inputs/enclave.conf --gramine /tmp/gramine.toml --package /opt/confonnx --config /app/config \
    --model "$CONFONNX_MODEL_PATH" --out /tmp/manifest
cat /tmp/manifest
"""
_OPENED = """
import importlib.util, json, os, signal, sys, threading, time, urllib.request
opened = set()
def note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        opened.add(os.fspath(arguments[0]))
sys.addaudithook(note)
sys.argv = ["confonnx", "serve", "--tee", "simulated", "--http-port", "0", "--metrics-port", "0"]
def stop():
    time.sleep(5)
    mapped = {line.split()[-1] for line in open("/proc/self/maps") if " /" in line}
    # Where there is bytecode and it may not be opened, as in an enclave, Python takes the source.
    opened.update(importlib.util.source_from_cache(path) for path in [*opened] if path.endswith(".pyc"))
    print(json.dumps(sorted(path for path in opened | mapped
        if os.path.isfile(path) and not path.endswith(".pyc"))), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=stop).start()
from confonnx.cli.app import main
main()
"""


def manifest_of_image(tree: Path, variables: dict[str, str]) -> str:
    """The manifest that an enclave of this image would have, with a stand-in for Gramine's own files.

    It has to list every file of code that the server opens.
    """
    inside = ("run", "--rm", "--no-healthcheck", "--read-only", "--tmpfs=/tmp", f"--volume={tree}:/inputs:ro")
    text = podman(variables, *inside, "--entrypoint=sh", IMAGE, "-c", _MANIFEST)
    listed = {entry["uri"].removeprefix("file:") for entry in tomllib.loads(text)["sgx"]["trusted_files"]}
    output = podman(variables, *inside, "--entrypoint=python3", IMAGE, "-B", "-P", "-s", "-S", "-c", _OPENED)
    opened = set(json.loads(output.splitlines()[-1]))
    ours = {path for path in opened if path.startswith(("/opt/", "/app/", "/models/", "/usr/lib/python3"))}
    assert len(ours) > 500
    assert ours - listed == set()
    libraries = {Path(path).name.partition(".so")[0] for path in opened if ".so" in path}
    names = {Path(path).name.partition(".so")[0] for path in listed}
    assert libraries - names == set()
    return text


def needs_a_tee(variables: dict[str, str]) -> None:
    """Nobody said `simulated`, so nothing is served."""
    run = subprocess.run(
        ["podman", "run", "--rm", "--no-healthcheck", IMAGE],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode != 0
    assert "a TEE is required and none was found" in run.stderr


def serves_a_mounted_model(tree: Path, variables: dict[str, str]) -> None:
    """The image without a model needs a model and nothing else: it names no file that it does not have."""
    mounted = variables | {"CONFONNX_MODEL_PATH": f"/models/{DIGITS.name}"}
    volume = f"--volume={DIGITS.parent}:/models:ro"
    with running(tree, mounted, image=RUNTIME, options=volume) as url:
        assert urllib.request.urlopen(url, timeout=10).read() == b"Healthy"
        ends_on_sigterm(variables)


@contextmanager
def running(tree: Path, variables: dict[str, str], *, image: str = IMAGE, options: str = "") -> Iterator[str]:
    port = free_port()
    environment = (
        os.environ
        | variables
        | {
            "IMAGE_NAME": image,
            "CONFONNX_TEE": "simulated",
            "CONFONNX_HTTP_PORT": str(port),
            "CONFONNX_METRICS_PORT": "0",
            "RUN_OPTIONS": f"--name={CONTAINER} --no-healthcheck {options}",
        }
    )
    process = subprocess.Popen(
        [tree / "docker/server/run.sh"], env=environment, stderr=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, process)
        yield url
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(300):
        assert process.poll() is None, process.communicate()[1]
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


def is_confined(variables: dict[str, str]) -> None:
    pid = podman(variables, "inspect", "--format", "{{.State.Pid}}", CONTAINER).strip()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert Path(command[0]).name == "python3"  # the server itself is process 1
    write = ["podman", "exec", CONTAINER, "python3", "-c", "open('/opt/confonnx/x', 'w')"]
    attempt = subprocess.run(write, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert "Read-only file system" in attempt.stderr


def asks_from_the_wheel(tree: Path, variables: dict[str, str], wheel: Path, url: str) -> None:
    """The documented commands, from a fresh environment that has the wheel and what it depends on."""
    directory = tree / "client"
    venv.create(directory, with_pip=True)
    python = directory / "bin/python3"
    pins = tree / "pins.txt"
    lock = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins.write_text("".join(line.removesuffix("\\").rstrip() + "\n" for line in lock if "==" in line))
    call(python, "-m", "pip", "install", "--quiet", "--constraint", pins, wheel)
    call(python, "-m", "confonnx.hash_model", DIGITS, "--out", tree / "model.hash")
    call(python, "-m", "confonnx.create_test_inputs", "--model", DIGITS, "--out", tree / "input.json")
    info = parse_enclave_info((tree / "dist/Release/bin/enclave_info.txt").read_text())
    assert isinstance(info, SimulatedInfo)
    trust = ("--url", url, "--allow-simulated")
    call(
        *(python, "-m", "confonnx.main", *trust, "--enclave-hash", info.measurement.hex()),
        *("--enclave-model-hash-file", tree / "model.hash"),
        *("--json-in", tree / "input.json", "--json-out", tree / "output.json"),
    )
    call(
        *(python, "-m", "confonnx.main", *trust),
        *("--enclave-info", tree / "dist/Release/bin/enclave_info.txt"),
        *("--json-in", tree / "input.json", "--json-out", tree / "again.json"),
    )
    assert (tree / "again.json").read_bytes() == (tree / "output.json").read_bytes()
    session = Session.load(load_single(DIGITS), SessionOptions())
    expected = session.run(read_json(tree / "input.json"))
    answer = read_json(tree / "output.json")
    assert answer.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(answer[name]), np.asarray(value))
    verdict = call(
        *(directory / "bin/confonnx", "verify", *trust),
        *("--enclave-info", tree / "dist/Release/bin/enclave_info.txt"),
    )
    assert "ACCEPTED" in verdict
    assert model_digest(DIGITS) == info.model
    digest = podman(variables, "image", "inspect", "--format", "{{.Digest}}", IMAGE).strip()
    assert digest.startswith("sha256:")
    assert digest in call(directory / "bin/confonnx", "inspect", "--url", url)


def call(*words: object) -> str:
    run = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def ends_on_sigterm(variables: dict[str, str]) -> None:
    began = time.monotonic()
    podman(variables, "kill", "--signal=TERM", CONTAINER)
    assert time.monotonic() - began < 30
