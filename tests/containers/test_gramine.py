"""Gramine's own tools on the manifest that is generated.

They run where Gramine is installed; it is in no package index, and not in Debian. Everywhere else the rules
are checked by tests/unit/measure/test_manifest.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from confonnx.measure.build_steps import main
from confonnx.measure.enclave_info import EnclaveInfo, parse_enclave_info
from tests.support.build_tree import ROOT
from tests.support.enclave_confs import conf_text
from tests.support.models import add_model
from tests.support.sigstructs import signing_key

pytestmark = pytest.mark.skipif(
    shutil.which("gramine-sgx-sign") is None,
    reason="Gramine is not installed: gramine-sgx-sign is not on PATH",
)


def gramine(*words: object, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], cwd=directory, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What an image has: packages (this environment's), model, configuration; and Gramine's paths."""
    installed = next(path for path in map(Path, sys.path) if (path / "onnxruntime").is_dir())
    packages = tmp_path / "packages"
    shutil.copytree(installed, packages, copy_function=_link, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "src/confonnx", packages / "confonnx", dirs_exist_ok=True)
    (tmp_path / "enclave.conf").write_text(conf_text())
    (tmp_path / "config").mkdir()
    (tmp_path / "config/server.toml").touch()
    add_model(tmp_path / "add.onnx")
    (tmp_path / "key.pem").write_bytes(
        signing_key(3).private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (tmp_path / "paths").write_text('libos = "{{ gramine.libos }}"\nruntime = "{{ gramine.runtimedir() }}"\n')
    run = gramine("gramine-manifest", "--no-check", "paths", "paths.toml", directory=tmp_path)
    assert run.returncode == 0, run.stderr
    template = (ROOT / "deploy/gramine/confonnx.manifest.template").read_text("utf-8")
    for fixed, here in (
        ("/opt/confonnx", packages),
        ("/app/config", tmp_path / "config"),
        ("/models", tmp_path),
    ):
        template = template.replace(fixed, str(here))
    (tmp_path / "template").write_text(template)
    generate = {
        "--template": "template",
        "--conf": "enclave.conf",
        "--gramine": "paths.toml",
        "--package": "packages",
        "--config": "config",
        "--model": "add.onnx",
        "--out": "generated.manifest",
    }
    words = [str(word) for option, value in generate.items() for word in (option, tmp_path / value)]
    assert main(["manifest", *words]) == 0
    run = gramine(
        "gramine-manifest", "--check", "generated.manifest", "confonnx.manifest", directory=tmp_path
    )
    assert run.returncode == 0, run.stderr
    return tmp_path


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)
    return target


def sign(image: Path, name: str) -> bytes:
    run = gramine(
        *("gramine-sgx-sign", "--manifest", "confonnx.manifest", "--output", f"{name}.manifest.sgx"),
        *("--sigfile", f"{name}.sig", "--key", "key.pem", "--date", "0000-00-00"),
        directory=image,
    )
    assert run.returncode == 0, run.stderr
    return (image / f"{name}.sig").read_bytes()


def test_two_signings_give_one_sigstruct_that_we_read(image: Path) -> None:
    assert sign(image, "one") == sign(image, "two")
    assert (image / "one.manifest.sgx").read_bytes() == (image / "two.manifest.sgx").read_bytes()
    words = [
        "--sig",
        "one.sig",
        "--manifest",
        "one.manifest.sgx",
        "--conf",
        "enclave.conf",
        "--model",
        "add.onnx",
    ]
    step = [word if word.startswith("--") else str(image / word) for word in [*words, "--out", "info"]]
    assert main(["sgx-info", *step]) == 0
    info = parse_enclave_info((image / "info").read_text())
    assert isinstance(info, EnclaveInfo)
    view = gramine("gramine-sgx-sigstruct-view", "--output-format", "toml", "one.sig", directory=image)
    shown = tomllib.loads(view.stdout)
    assert (shown["mr_enclave"], shown["mr_signer"]) == (info.mrenclave.hex(), info.mrsigner.hex())


def test_the_server_starts_under_gramine_direct_and_insists_on_sgx(image: Path) -> None:
    """All imports work from the listed files; then the server sees that there is no enclave, and stops."""
    run = gramine("gramine-direct", "confonnx", directory=image)
    assert run.returncode != 0
    assert "the TEE sgx was asked for" in run.stderr
