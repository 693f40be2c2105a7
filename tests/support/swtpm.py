"""``swtpm``: a TPM 2.0 in software, in a process of its own, with the real protocol.

From Debian's packages swtpm and swtpm-tools; tpm2-tools to look at it with other eyes. Where they are not
installed these tests skip, and never when CI is set.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_START_SECONDS = 10.0
_PROGRAMS = ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2_pcrextend", "openssl")

_LOCAL_CA = """
statedir = {state}
signingkey = {state}/signkey.pem
issuercert = {state}/issuercert.pem
certserial = {state}/certserial
"""


def need_swtpm() -> None:
    """Skip the test where swtpm is not installed."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        assert not os.environ.get("CI"), f"CI needs {missing}: apt-get install swtpm swtpm-tools tpm2-tools"
        pytest.skip(f"{', '.join(missing)} not installed (apt-get install swtpm swtpm-tools tpm2-tools)")


@dataclass(frozen=True)
class SoftwareTpm:
    """A running TPM, and the directory of the CA that made its EK certificate, if one did."""

    port: int
    ca: Path

    @property
    def address(self) -> str:
        """As ``--tpm`` and tpm2-tools take it."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    def tool(self, *words: str, directory: Path | None = None) -> bytes:
        """A program of tpm2-tools against this TPM; its output."""
        environment = {**os.environ, "TPM2TOOLS_TCTI": self.address}
        done = subprocess.run(
            words, cwd=directory, env=environment, capture_output=True, timeout=30, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
        return done.stdout


@contextmanager
def running_swtpm(directory: Path, *, ek_certificate: bool = False) -> Iterator[SoftwareTpm]:
    """A fresh TPM whose files are all in ``directory``; with an EK and its certificate if asked for."""
    need_swtpm()
    state, ca = directory / "tpm", directory / "ca"
    state.mkdir()
    ca.mkdir()
    if ek_certificate:
        _manufacture(directory, state, ca)
    port = _two_free_ports()
    command = [
        *(
            "swtpm",
            "socket",
            "--tpm2",
            "--tpmstate",
            f"dir={state}",
            "--flags",
            "not-need-init,startup-clear",
        ),
        *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
        *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port, process)
        yield SoftwareTpm(port, ca)
    finally:
        process.terminate()
        process.wait(10)


def _manufacture(directory: Path, state: Path, ca: Path) -> None:
    """What a vendor does once: an EK, and a certificate for it from the vendor's CA."""
    options = directory / "localca.options"
    options.write_text("--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
    (directory / "localca.conf").write_text(_LOCAL_CA.format(state=ca))
    (directory / "setup.conf").write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {directory / 'localca.conf'}\n"
        f"create_certs_tool_options = {options}\n"
    )
    command = [
        *("swtpm_setup", "--tpm2", "--tpmstate", str(state), "--create-ek-cert", "--overwrite"),
        *("--config", str(directory / "setup.conf"), "--pcr-banks", "sha256", "--ecc"),
    ]
    _check(command)


def _check(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _two_free_ports() -> int:
    """A port whose next one is free as well: tpm2-tools expect the control channel there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "swtpm ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("swtpm does not listen")
