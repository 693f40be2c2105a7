"""One server of two processes: the same keys, one scrape, one end."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from confonnx import Client
from confonnx.attestation.bundle import parse_bundle
from confonnx.attestation.statement import Statement, parse_statement
from tests.support.models import add_model
from tests.support.running import RunningServer, running_server

CONNECTIONS = 8
KEY = "canary-key-3f1d9a"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_model(tmp_path_factory.mktemp("model") / "add.onnx")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[RunningServer]:
    with running_server(
        "--processes", "2", "--model-path", str(model), environment={"CONFONNX_AUTH_KEY": KEY}
    ) as running:
        yield running


def workers(server: RunningServer) -> list[int]:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def connections(server: RunningServer, stack: ExitStack, number: int) -> list[http.client.HTTPConnection]:
    made = []
    for _ in range(number):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.connect()
        stack.callback(connection.close)
        made.append(connection)
    return made


def ask(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def statement(connection: http.client.HTTPConnection) -> Statement:
    return parse_statement(parse_bundle(ask(connection, "/attestation")).statement)


def metric(server: RunningServer, name: str, **labels: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=30)
    text = ask(connection, "/metrics").decode()
    connection.close()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_it_is_ready_once_and_made_of_two(server: RunningServer) -> None:
    assert len(workers(server)) == 2
    assert [entry["event"] for entry in server.log()].count("ready") == 1
    assert [entry["event"] for entry in server.log()].count("no protection: the TEE is simulated") == 1


def test_all_say_the_same_of_themselves(server: RunningServer) -> None:
    before = metric(server, "confonnx_attestations_total", outcome="ok")
    with ExitStack() as stack:
        said = [statement(each) for each in connections(server, stack, CONNECTIONS)]
    assert len({each.keys for each in said}) == 1
    assert len({each.models for each in said}) == 1
    assert metric(server, "confonnx_attestations_total", outcome="ok") - before == CONNECTIONS


def test_a_session_is_served_on_any_connection(server: RunningServer, model: Path) -> None:
    before = metric(server, "confonnx_requests_total", outcome="ok")
    with ExitStack() as stack:
        held = connections(server, stack, 3)  # so that the client's connections are not the first ones
        client = stack.enter_context(
            Client(
                server.url,
                enclave_hash=server.measurement,
                enclave_model_hash=hashlib.sha256(model.read_bytes()).hexdigest(),
                allow_simulated=True,
                auth_key=KEY,
            )
        )
        for number in range(CONNECTIONS):
            inputs = {"a": np.full(3, number, np.float32), "b": np.ones(3, np.float32)}
            assert np.array_equal(np.asarray(client.predict(inputs)["sum"]), [number + 1.0] * 3)
        assert metric(server, "confonnx_connections") >= len(held)
    assert metric(server, "confonnx_requests_total", outcome="ok") - before >= CONNECTIONS


def test_nobody_else_sees_a_secret(server: RunningServer) -> None:
    for worker in workers(server):
        for name in ("cmdline", "environ"):
            assert KEY.encode() not in Path(f"/proc/{worker}/{name}").read_bytes()
        limits = Path(f"/proc/{worker}/limits").read_text().splitlines()
        core = next(line for line in limits if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]


def test_it_ends_cleanly(model: Path) -> None:
    with running_server("--processes", "2", "--model-path", str(model)) as server:
        assert server.terminate() == 0
    events = [entry["event"] for entry in server.log()]
    assert events[-2:] == ["draining", "stopped"]
    assert (events.count("draining"), events.count("stopped")) == (1, 1)
    assert server.log()[-1]["complete"] is True


def test_a_worker_that_dies_ends_the_server(model: Path) -> None:
    with running_server("--processes", "2", "--model-path", str(model)) as server:
        first, second = workers(server)
        os.kill(first, signal.SIGKILL)
        assert server.process.wait(60) == 1
        assert ended(second)
    entry = next(entry for entry in server.log() if entry["event"] == "worker ended")
    assert (entry["status"], entry["level"]) == (-signal.SIGKILL, "error")


def test_workers_do_not_outlive_their_parent(model: Path) -> None:
    with running_server("--processes", "2", "--model-path", str(model)) as server:
        known = workers(server)
        server.process.kill()
        server.process.wait(60)
        assert all(map(ended, known))


def ended(pid: int) -> bool:
    """Whether the process ends within a minute. A zombie has ended; its reaper may be slow."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_keys_roll_over_together(model: Path) -> None:
    with (
        running_server(
            *("--processes", "2", "--model-path", str(model), "--key-rollover-interval", "1s"),
        ) as server,
        ExitStack() as stack,
    ):
        by_epoch: dict[int, set[bytes]] = {}
        opened = connections(server, stack, 2)  # one in each process
        while len([epoch for epoch in by_epoch if epoch > 1]) < 3 or len(rollovers(server)) < 2:
            for connection in opened:
                said = statement(connection)
                for key in said.keys:
                    by_epoch.setdefault(key.epoch, set()).add(key.config.encode())
    assert len(set(rollovers(server))) == len(rollovers(server)), "said by one of them"
    kems = 2
    assert all(len(configurations) == kems for configurations in by_epoch.values()), "the same in both"


def rollovers(server: RunningServer) -> list[int]:
    return [entry["epoch"] for entry in server.log() if entry["event"] == "key rollover"]


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (("--model-path", "/nowhere/m.onnx"), 6, "/nowhere/m.onnx"),
        (("--model-repository", "/nowhere", "--tee", "sgx"), 2, "an SGX enclave is one process"),
    ],
)
def test_what_ends_the_start_is_said_once(options: tuple[str, ...], status: int, text: str) -> None:
    command = [sys.executable, "-m", "confonnx.cli.app", "serve", "--processes", "2", "--log-format", "json"]
    where = ("--address", "127.0.0.1", "--http-port", "0", "--metrics-port", "0")
    result = subprocess.run([*command, *where, *options], capture_output=True, text=True, timeout=120)
    assert result.returncode == status
    assert result.stderr.count("error: ") == 1
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert not [json.loads(line) for line in result.stderr.splitlines() if '"ready"' in line]


def test_a_worker_whose_parent_ends_while_it_starts_ends_quietly() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lock = os.memfd_create("lock")
    command = [sys.executable, "-m", "confonnx.server.worker", str(theirs.fileno()), str(lock)]
    process = subprocess.Popen(command, pass_fds=(theirs.fileno(), lock), stderr=subprocess.PIPE, text=True)
    theirs.close()
    os.close(lock)
    assert ours.recv(100) == b"\x01"  # it says hello, and gets nothing
    ours.close()
    _, written = process.communicate(timeout=60)
    assert (process.returncode, written) == (1, "")
