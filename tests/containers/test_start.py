"""What a container runs when it starts: a TEE or nothing, unless it was told to simulate."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.build_tree import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="containers run a POSIX shell")

SERVE = "-B -P -s -S -m confonnx.cli.app serve"


def start(
    directory: Path, *words: str, enclave: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run start.sh with programs that print their names and arguments; ``enclave``: the image has one."""
    for name in ("python3", "gramine-sgx"):
        program = directory / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    if enclave:
        (directory / "enclave").mkdir(exist_ok=True)
        (directory / "enclave/confonnx.manifest.sgx").touch()
    script = (ROOT / "deploy/docker/start.sh").read_text("utf-8")
    script = script.replace("/opt/enclave", str(directory / "enclave")).replace(
        "/dev/sgx", str(directory / "sgx")
    )
    script = script.replace("/opt/intel/sgx-aesm-service/aesm", str(directory / "aesm"))
    return subprocess.run(
        ["sh", "-c", script, "start", *words],
        env={"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_word_a_tee_is_required(tmp_path: Path) -> None:
    assert start(tmp_path).stdout == f"python3 {SERVE} --require-tee\n"
    assert start(tmp_path, "--url-prefix", "/m").stdout == f"python3 {SERVE} --require-tee --url-prefix /m\n"
    assert start(tmp_path, CONFONNX_TEE="tdx").stdout == f"python3 {SERVE} --require-tee\n"


@pytest.mark.parametrize("enclave", [False, True])
def test_simulated_when_told_so(tmp_path: Path, enclave: bool) -> None:
    run = start(tmp_path, "--url-prefix", "/m", enclave=enclave, CONFONNX_TEE="simulated")
    assert run.stdout == f"python3 {SERVE} --url-prefix /m\n"


@pytest.mark.parametrize("variables", [{}, {"CONFONNX_TEE": "sgx"}, {"CONFONNX_TEE": "Simulated"}])
def test_an_enclave_without_its_devices(tmp_path: Path, variables: dict[str, str]) -> None:
    run = start(tmp_path, enclave=True, **variables)
    assert (run.returncode, run.stdout) == (2, "")
    assert "sgx_enclave is not in this container" in run.stderr
    assert "--device=" in run.stderr


def test_an_enclave_takes_no_arguments(tmp_path: Path) -> None:
    run = start(tmp_path, "--no-metrics", enclave=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert "put options into server.toml and build the image again; found: --no-metrics" in run.stderr


def test_an_enclave_with_its_devices(tmp_path: Path) -> None:
    service = tmp_path / "aesm/aesm_service"
    service.parent.mkdir()
    service.write_text('#!/bin/sh\necho "service from $LD_LIBRARY_PATH"\n')
    service.chmod(0o755)
    for device in ("sgx_enclave", "sgx_provision"):
        (tmp_path / device).touch()
    run = start(tmp_path, enclave=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"service from {tmp_path}/aesm\ngramine-sgx {tmp_path}/enclave/confonnx\n"


def test_every_script_passes_shellcheck() -> None:
    if shutil.which("shellcheck") is None and "CI" not in os.environ:
        pytest.skip("shellcheck is not installed")
    scripts = [*sorted((ROOT / "docker").rglob("*.sh")), ROOT / "deploy/docker/start.sh"]
    assert len(scripts) >= 6
    run = subprocess.run(
        ["shellcheck", "--external-sources", *map(str, scripts)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
