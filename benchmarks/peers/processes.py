"""Starts the peers' servers, on the core that is the server's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from benchmarks.exchanges import prepare
from benchmarks.load import LoadError, ask_once
from benchmarks.machine import Cores, family, on_core
from benchmarks.servers import Server, free_port
from benchmarks.variants import Variant
from benchmarks.workloads import Workload

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "build" / "peers"

NAMES = {
    Variant.FASTAPI: "fastapi",
    Variant.BENTOML: "bentoml",
    Variant.KSERVE: "kserve",
    Variant.MLSERVER: "mlserver",
    Variant.TRITON: "triton",
}
"""The peers' environments and modules."""

_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_BETWEEN_TRIALS = 0.1


def python_of(variant: Variant) -> Path:
    """The interpreter of a peer's environment. Raises ``LoadError`` where that is not made."""
    python = ENVIRONMENTS / NAMES[variant] / "bin" / "python"
    if not python.exists():
        raise LoadError(f"{variant} has no environment at {python}: `make bench-peers` makes it")
    return python


@contextmanager
def peer_server(variant: Variant, workload: Workload, cores: Cores) -> Iterator[Server]:
    """The peer with the workload's model, once it has answered a request rightly.

    Raises ``LoadError`` with its log where it does not within two minutes.
    """
    port = free_port()
    with TemporaryFile() as log:
        with on_core(cores.server):
            process = subprocess.Popen(
                _command(variant, workload, port),
                stdout=log,
                stderr=log,
                env=_environment(variant, workload),
                cwd=ROOT,
            )
        try:
            _wait(process, log, variant, workload, port)
            yield Server(port, family(process.pid), "")
        finally:
            _stop(process)


def _command(variant: Variant, workload: Workload, port: int) -> list[str]:
    python = str(python_of(variant))
    if variant is Variant.BENTOML:
        service = "benchmarks.peers.bentoml_server:Service"
        return [python, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    module = f"benchmarks.peers.{NAMES[variant]}_server"
    return [python, "-m", module, str(workload.path), str(port)]


def _environment(variant: Variant, workload: Workload) -> Mapping[str, str]:
    added = {
        "PYTHONPATH": str(ROOT),
        "ORT_DISABLE_TELEMETRY": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "MODEL": str(workload.path),  # for BentoML, whose command line has no place for it
    }
    if variant is Variant.TRITON:
        # Its stub for Python takes the libpython that the loader finds: it must be that of the environment.
        found = subprocess.run(
            [python_of(variant), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"],
            check=True,
            capture_output=True,
            text=True,
        )
        added["LD_LIBRARY_PATH"] = found.stdout.strip()
    return {**os.environ, **added}


def _wait(
    process: subprocess.Popen[bytes], log: IO[bytes], variant: Variant, workload: Workload, port: int
) -> None:
    prepared = prepare(variant, workload, port=port, count=1)
    deadline = time.monotonic() + _START_SECONDS
    why = "it ended"
    while process.poll() is None and time.monotonic() < deadline:
        try:
            prepared.check(0, memoryview(ask_once(port, prepared.messages[0])), workload)
        except (OSError, LoadError) as error:
            why = str(error)
            time.sleep(_BETWEEN_TRIALS)
        else:
            return
    log.seek(0)
    raise LoadError(f"{variant} did not start: {why}\n{log.read().decode(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    members = family(process.pid)
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"process {process.pid} had to be killed", file=sys.stderr)
    for member in members:  # what outlives its parent, or hangs
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
    process.wait()
