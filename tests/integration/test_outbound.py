"""The server calls nobody (D14): no connection, no datagram, no name looked up, no file in a home directory.

onnxruntime's wheel has telemetry whose first look-up comes after some seven seconds and whose uploads come
later, so the server is watched for longer than a minute, idle and at work.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from confonnx.client import Client
from confonnx.errors import InvalidInputError
from tests.support.models import add_model
from tests.support.running import running_server
from tests.support.system_calls import internet_addresses, traced

WATCHED_SECONDS = 75.0
CALLS = ("connect", "sendto", "sendmsg", "sendmmsg", "socket")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_calls_nobody(tmp_path: Path, processes: str) -> None:
    model = add_model(tmp_path / "add.onnx")
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    trace = traced(tmp_path / "calls", *CALLS)
    environment = {"HOME": str(home), "TMPDIR": str(scratch), "XDG_CACHE_HOME": "", "XDG_DATA_HOME": ""}
    with running_server(
        *(str(model), "--key-rollover-interval", "20s", "--log-level", "debug", "--processes", processes),
        environment=environment,
        prefix=trace.prefix(),
    ) as server:
        end = time.monotonic() + WATCHED_SECONDS
        answered = 0
        while time.monotonic() < end:
            answered += _use(server.url, server.measurement)
            time.sleep(1.0)
        assert server.terminate() == 0
    lines = trace.finished(server.process.pid)

    assert answered > 30
    assert any("socket(AF_INET, SOCK_STREAM" in line for line in lines), "the trace saw the listener"
    assert [line for line in lines if "connect(" in line] == []
    assert internet_addresses(lines) == []
    assert [line for line in lines if "SOCK_DGRAM" in line] == [], "names are looked up by datagrams"
    assert list(home.iterdir()) == []
    assert list(scratch.iterdir()) == []


def test_the_trace_would_show_a_call(tmp_path: Path) -> None:
    trace = traced(tmp_path / "calls", *CALLS)
    program = (
        "import socket\n"
        "s = socket.socket(); s.setblocking(False); s.connect_ex(('127.0.0.1', 9)); s.close()\n"
        "d = socket.socket(type=socket.SOCK_DGRAM); d.sendto(b'x', ('127.0.0.1', 9)); d.close()\n"
    )
    with subprocess.Popen([*trace.prefix(), sys.executable, "-c", program]) as process:
        assert process.wait(60) == 0
    lines = trace.finished(process.pid)
    assert len(internet_addresses(lines)) == 2
    assert [line for line in lines if "connect(" in line]
    assert [line for line in lines if "SOCK_DGRAM" in line]


def _use(url: str, measurement: str) -> int:
    """One short life of a client, with an answer and an error; the number of answers."""
    with Client(url, enclave_hash=measurement, dangerous_any_model=True, allow_simulated=True) as client:
        answer = client.predict({"a": [1.0, 2.0], "b": [0.5, 0.25]})["sum"]
        np.testing.assert_array_equal(answer, np.array([1.5, 2.25], np.float32))
        with pytest.raises(InvalidInputError):
            client.predict({"a": [1.0], "b": ["x"]})
    return 1
