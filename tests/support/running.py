"""A confonnx server in a process of its own, on a free loopback port, and what it wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


@dataclass
class RunningServer:
    """One server process. ``lines`` grows as it writes to standard error."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)  # the log entry that announced readiness

    @property
    def url(self) -> str:
        """Base address, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    @property
    def metrics_port(self) -> int:
        return int(self.ready["metrics_port"])

    @property
    def measurement(self) -> str:
        """What ``enclave_hash`` must be, in hex."""
        return str(self.ready["measurement"])

    def log(self) -> list[dict[str, Any]]:
        """Every log entry so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def terminate(self) -> int:
        """SIGTERM, then wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)


@contextmanager
def running_server(
    *options: str,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    directory: Path | None = None,
) -> Iterator[RunningServer]:
    """``confonnx serve`` with ``options``, ready to answer; ``prefix``: a command to run it under;
    ``directory``: where."""
    command = [
        *prefix,
        *(sys.executable, "-m", "confonnx.cli.app", "serve", "--address", "127.0.0.1", "--http-port", "0"),
        *("--metrics-port", "0", "--log-format", "json", "--tee", "simulated", *options),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        cwd=directory,
    )
    server = RunningServer(process)
    announced = threading.Event()
    reader = threading.Thread(target=_read, args=(server, announced), daemon=True)
    reader.start()
    try:
        if not announced.wait(_START_SECONDS) or not server.ready:
            raise AssertionError("the server did not start:\n" + "".join(server.lines))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(_STOP_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def _read(server: RunningServer, announced: threading.Event) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.lines.append(line)
        if '"ready"' in line and line.startswith("{"):
            entry = json.loads(line)
            if entry.get("event") == "ready":
                server.ready = entry
                announced.set()
    announced.set()  # it ended
