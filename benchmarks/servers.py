"""Servers in processes of their own, on the core that is theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from benchmarks.load import LoadError
from benchmarks.machine import Cores, family, on_core
from benchmarks.workloads import Workload

_STOP_SECONDS = 10.0


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
def started(command: Sequence[str], environment: Mapping[str, str] | None, *, core: int) -> Iterator[Server]:
    """A server that writes its port, and its measurement if any, to standard output once it answers."""
    with TemporaryFile() as log:  # not a pipe, which would fill up and stop the server
        with on_core(core):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        try:
            yield _announced(process, log, command)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _announced(process: subprocess.Popen[bytes], log: IO[bytes], command: Sequence[str]) -> Server:
    assert process.stdout is not None
    port, _, measurement = process.stdout.readline().decode().strip().partition(" ")
    if not port.isdigit():
        process.wait(_STOP_SECONDS)
        log.seek(0)
        raise LoadError(f"{' '.join(command)} did not start:\n{log.read().decode(errors='replace')}")
    return Server(int(port), family(process.pid), measurement)
