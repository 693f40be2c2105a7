"""Servers in processes of their own, on the core that is theirs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from benchmarks.load import LoadError, ask_once
from benchmarks.machine import Cores, family, on_core
from benchmarks.workloads import Workload

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_BETWEEN_TRIALS = 0.05
_SERVE = "from confonnx.cli.app import main; main()"


@dataclass(frozen=True, slots=True)
class Server:
    """A server on loopback and its processes.

    ``measurement`` is what it attests to, in hex; empty for a plain one.
    """

    port: int
    pids: tuple[int, ...]
    measurement: str


@contextmanager
def minimal_server(workload: Workload, cores: Cores) -> Iterator[Server]:
    """``plain_server.py`` with the workload's model."""
    with _running("benchmarks.plain_server", workload.path, cores) as server:
        yield server


@contextmanager
def confonnx_server(
    workload: Workload, cores: Cores, options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """confonnx with the workload's model and, beside it, the open door of ``open_door.py``.

    ``options``: of the server, as environment variables.
    """
    with _running("benchmarks.open_door", workload.path, cores, options) as server:
        yield server


@contextmanager
def confonnx_repository(directory: Path, cores: Cores) -> Iterator[Server]:
    """The same with all models in ``directory``."""
    with _running("benchmarks.open_door", directory, cores) as server:
        yield server


@contextmanager
def _running(
    module: str, model: Path, cores: Cores, options: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """``python -m module MODEL`` on the server's core."""
    environment = None if options is None else {**os.environ, **options}
    with started([sys.executable, "-m", module, str(model)], environment, core=cores.server) as server:
        yield server


@contextmanager
def several_processes(workload: Workload, count: int) -> Iterator[Server]:
    """``confonnx serve --processes COUNT``, on any core, with one inference thread for each process."""
    port = free_port()
    options = {
        "MODEL_PATH": str(workload.path),
        "ADDRESS": "127.0.0.1",
        "HTTP_PORT": str(port),
        "METRICS": "false",
        "PROCESSES": str(count),
        "INFERENCE_THREADS": str(count),
        "INTRA_OP_THREADS": "1",
    }
    environment = {**os.environ, **{f"CONFONNX_{name}": value for name, value in options.items()}}
    with TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-c", _SERVE, "serve"], stderr=log, env=environment)
        try:
            _wait_until_ready(process, log, port)
            yield Server(port, family(process.pid), "")
        finally:
            _stop(process)


def free_port() -> int:
    """A port of loopback that nobody listens on, a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str] | None, *, core: int) -> Iterator[Server]:
    """A server that writes its port, and its measurement if any, to standard output once it answers."""
    with TemporaryFile() as log:  # not a pipe, which would fill up and stop the server
        with on_core(core):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            yield _announced(process, log, command)
        finally:
            _stop(process)


def _announced(process: subprocess.Popen[bytes], log: IO[bytes], command: Sequence[str]) -> Server:
    assert process.stdout is not None
    port, _, measurement = process.stdout.readline().decode().strip().partition(" ")
    if not port.isdigit():
        process.wait(_STOP_SECONDS)
        log.seek(0)
        raise LoadError(f"{' '.join(command)} did not start:\n{log.read().decode(errors='replace')}")
    return Server(int(port), family(process.pid), measurement)


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes], port: int) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            if ask_once(port, b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 200"):
                return
        time.sleep(_BETWEEN_TRIALS)
    log.seek(0)
    raise LoadError(f"confonnx serve is not ready:\n{log.read().decode(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
