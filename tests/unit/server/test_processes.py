"""Several processes: who gets which share, which connection, and where there cannot be several."""

from __future__ import annotations

import asyncio
import errno
import io
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import cast

import pytest

from confonnx.attestation.attest import sgx
from confonnx.errors import ConfigurationError
from confonnx.server import processes
from confonnx.server.control import Description, Kind, receive
from confonnx.server.logs import Log, LogFormat, LogLevel
from confonnx.server.processes import _Parent, _Worker, serve_in_processes, share
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings


def load(**options: object) -> Settings:
    return load_settings({"address": "127.0.0.1", "http_port": 0, **options})[0]


def test_limits_of_the_server_are_divided() -> None:
    whole = load(
        max_connections=1001,
        max_buffered_bytes="1GiB",
        max_queue=7,
        replay_capacity=100,
        max_sessions=10,
        attestation_rate=20,
        attestation_burst=3,
        inference_threads=4,
    )
    part = share(whole, 4)
    assert (part.max_connections, part.max_buffered_bytes, part.max_queue) == (250, 256 << 20, 1)
    assert (part.replay_capacity, part.max_sessions, part.inference_threads) == (25, 2, 1)
    assert (part.attestation_rate, part.attestation_burst) == (5, 1), "never less than one"
    assert part.max_request_bytes == whole.max_request_bytes
    assert part.measured() == whole.measured(), "the workers show one measurement"


def test_what_is_not_limited_stays_so() -> None:
    part = share(load(max_queue=0), 2)
    assert part.max_queue == 0
    assert part.inference_threads is None


def test_buffers_must_hold_a_request_in_each() -> None:
    with pytest.raises(ConfigurationError, match="give 536870912 at least"):
        load(processes=4, max_buffered_bytes="511MiB")
    assert load(processes=4).processes == 4


LOG = Log(form=LogFormat.JSON, level=LogLevel.INFO, stream=io.StringIO())


def test_an_enclave_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="an SGX enclave is one process"):
        asyncio.run(serve_in_processes(load(processes=2, tee="sgx"), LOG))
    monkeypatch.setattr(sgx, "find", lambda files: sgx.SgxAttester(files))
    with pytest.raises(ConfigurationError, match="--processes is 2"):
        asyncio.run(serve_in_processes(load(processes=2), LOG))


def test_other_systems_have_no_way_to_hand_connections_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="needs Linux"):
        asyncio.run(serve_in_processes(load(processes=2), LOG))


def test_a_port_in_use_is_found_before_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port}: .*--http-port"):
            asyncio.run(serve_in_processes(load(processes=2, http_port=port), LOG))


def test_a_name_of_two_addresses_is_listened_on_at_both(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    try:
        listeners = processes._bind("localhost", 0)
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")
    assert [listener.family for listener in listeners] == [socket.AF_INET, socket.AF_INET6]
    for listener in listeners:
        listener.close()


class Plant:
    """A parent whose workers are the far ends of their sockets."""

    def __init__(self, stack: ExitStack, *, workers: int) -> None:
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.setblocking(False)
        self.parent = _Parent(load(), LOG, [self.listener])
        self.far: list[socket.socket] = []
        for _ in range(workers):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            stack.enter_context(ours)
            self.far.append(stack.enter_context(theirs))
            process = cast("subprocess.Popen[bytes]", None)
            self.workers.append(_Worker(process, ours, asyncio.get_running_loop().create_future()))
        self.stack = stack

    @property
    def workers(self) -> list[_Worker]:
        return self.parent._workers

    def connect(self) -> None:
        client = self.stack.enter_context(socket.create_connection(self.listener.getsockname()))
        client.setblocking(False)

    def taken(self, worker: int) -> int:
        """How many connections the worker finds in its socket; it takes them."""
        count = 0
        self.far[worker].setblocking(False)
        while True:
            try:
                message = receive(self.far[worker])
            except BlockingIOError:
                return count
            assert message is not None
            assert message[0] is Kind.CONNECTION
            socket.socket(fileno=message[2]).close()
            count += 1


def planted(test: Callable[[Plant], Awaitable[None]], *, workers: int = 2) -> None:
    async def run() -> None:
        with ExitStack() as stack:
            await test(Plant(stack, workers=workers))

    asyncio.run(run())


def test_connections_are_spread_evenly() -> None:
    async def test(plant: Plant) -> None:
        for _ in range(8):
            plant.connect()
        plant.parent._accept(plant.listener)
        assert (plant.taken(0), plant.taken(1)) == (4, 4)

    planted(test)


def test_the_next_goes_to_whom_connections_left() -> None:
    async def test(plant: Plant) -> None:
        for _ in range(4):
            plant.connect()
        plant.parent._accept(plant.listener)
        plant.workers[1].ended += 2
        for _ in range(2):
            plant.connect()
        plant.parent._accept(plant.listener)
        assert [worker.connections for worker in plant.workers] == [2, 2]
        assert (plant.taken(0), plant.taken(1)) == (2, 4)

    planted(test)


def test_when_all_workers_are_behind_connections_wait_and_none_is_lost() -> None:
    async def test(plant: Plant) -> None:
        total = 0
        while plant.parent._waiting is None:
            plant.connect()
            total += 1
            plant.parent._accept(plant.listener)
        plant.connect()  # stays in the kernel
        taken = 0
        async with asyncio.timeout(20):
            while taken < total + 1:
                taken += plant.taken(0)
                await asyncio.sleep(0.001)
        assert plant.workers[0].connections == total + 1
        plant.parent._stop_listening()

    planted(test, workers=1)


def test_workers_that_differ_do_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(plant: Plant) -> None:
        described = iter(
            [Description("simulated", "aa", ("m/1 sha256:00",), ()), Description("simulated", "ab", (), ())]
        )

        def spawn(self: _Parent, lock: int) -> _Worker:
            worker = plant.workers[0]
            ready: asyncio.Future[Description] = asyncio.get_running_loop().create_future()
            ready.set_result(next(described))
            return _Worker(worker.process, worker.control, ready)

        monkeypatch.setattr(_Parent, "_spawn", spawn)
        parent = _Parent(load(processes=2), LOG, [])
        with pytest.raises(ConfigurationError, match="different models or measurements"):
            await parent._start()

    planted(test)


def test_without_descriptors_it_pauses_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        """A listener for which the system has no descriptor, once."""

        def __init__(self, inner: socket.socket) -> None:
            self.inner = inner
            self.failed = False

        def accept(self) -> tuple[socket.socket, object]:
            if not self.failed:
                self.failed = True
                raise OSError(errno.EMFILE, "Too many open files")
            return self.inner.accept()

    async def test(plant: Plant) -> None:
        plant.connect()
        listening = []
        monkeypatch.setattr(plant.parent, "_listen", lambda: listening.append(True))
        plant.parent._accept(cast("socket.socket", Exhausted(plant.listener)))
        assert plant.taken(0) + plant.taken(1) == 0
        async with asyncio.timeout(20):
            while not listening:
                await asyncio.sleep(0.001)
        plant.parent._accept(plant.listener)
        assert plant.taken(0) + plant.taken(1) == 1

    planted(test)


def test_once_it_stops_nothing_is_resumed() -> None:
    async def test(plant: Plant) -> None:
        plant.parent._stop.set()
        plant.connect()
        plant.parent._pause()
        plant.parent._resume()
        await asyncio.sleep(0.01)
        assert plant.taken(0) + plant.taken(1) == 0

    planted(test)
