"""A server of several processes: the parent that listens, and workers that each are a whole server behind it.

The parent makes the key ring's secret, starts the workers, hands each the secret and its share of the limits,
and forgets the secret. Then it accepts connections and hands every one, as a file descriptor, to the worker
with the fewest; it never reads from one. It has no model, no onnxruntime and no key.

Workers are new processes, not forks: onnxruntime, numpy and OpenSSL never see one, and no two have the same
memory layout. A worker that ends on its own ends the server, so that there is no half of one
(docs/adr/0016-several-processes.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confonnx.attestation.attest import sgx
from confonnx.attestation.attest.devices import KernelFiles
from confonnx.attestation.claims import Tee
from confonnx.errors import ConfigurationError
from confonnx.keys.ring import SECRET_SIZE
from confonnx.server.connection import HttpLimits
from confonnx.server.control import Description, Kind, Start, parse_error, receive, send, wipe
from confonnx.server.http import HttpServer, listen_problem
from confonnx.server.logs import Draining, Log, Ready, Stopped, WorkerEnded
from confonnx.server.scrape import ScrapeHandler
from confonnx.server.settings import PREFIX, Settings

_PER_SERVER = (
    *("max_connections", "max_buffered_bytes", "max_queue", "replay_capacity", "max_sessions"),
    *("attestation_rate", "attestation_burst", "inference_threads"),
)
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 64
_RETRY_SECONDS = 0.001  # until what could not be accepted or handed over is tried again
_KILL_SECONDS = 10.0  # after the time for draining
_SCRAPE_SECONDS = 5.0


def share(settings: Settings, processes: int) -> Settings:
    """The settings of one of ``processes`` workers: limits of the server are divided, rounded down, but never
    from 1 or more to 0.
    """
    divided = {
        name: max(value // processes, min(value, 1))
        for name in _PER_SERVER
        if (value := getattr(settings, name)) is not None
    }
    return settings.model_copy(update=divided)


async def serve_in_processes(settings: Settings, log: Log) -> int:
    """Run a server of ``settings.processes`` workers until SIGTERM or SIGINT; the process's exit status.

    Raises ConfigurationError where several processes cannot be, and what ends the start of a worker.
    """
    _check(settings)
    with contextlib.ExitStack() as stack:
        listeners = _bind(settings.address, settings.http_port)
        for listener in listeners:
            stack.enter_context(listener)
        return await _Parent(settings, log, listeners).run()


@dataclass(eq=False)
class _Worker:
    """A worker as its parent sees it. Mutable."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    ready: asyncio.Future[Description]
    handed: int = 0  # connections given to it
    ended: int = 0  # of which are over
    complete: bool = False  # it drained without cutting a request off
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def connections(self) -> int:
        return self.handed - self.ended


class _Parent:
    """Mutable: the workers, and whether the server is to stop."""

    def __init__(self, settings: Settings, log: Log, listeners: list[socket.socket]) -> None:
        self._settings = settings
        self._log = log
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        self._workers: list[_Worker] = []
        self._secret = bytearray(SECRET_SIZE)
        self._started_at = datetime.now(UTC).replace(microsecond=0)
        self._unstarted = settings.processes
        self._stop = asyncio.Event()
        self._failed = False
        self._waiting: socket.socket | None = None  # a connection that no worker could take yet

    async def run(self) -> int:
        settings = self._settings
        scrape = HttpServer(ScrapeHandler(self._scrape), HttpLimits(max_connections=16, max_body=0))
        try:
            description = await self._start()
            port: int = self._listeners[0].getsockname()[1]
            metrics_port = None
            if settings.metrics:
                address = settings.metrics_address or settings.address
                metrics_port = await scrape.listen(address, settings.metrics_port, option="--metrics-port")
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop.set)
            self._listen()
            self._log.emit(_ready(settings, description, port, metrics_port))
            await self._stop.wait()
            await self._drain()
            return 1 if self._failed else 0
        finally:
            self._close()
            await scrape.drain(0)

    # Starting.

    async def _start(self) -> Description:
        """Start the workers; what they all are. Raises what ends the start of one."""
        wipe(self._start_message(0))  # settings that do not fit into one end the start here
        self._secret[:] = secrets.token_bytes(SECRET_SIZE)
        with _lock_file() as lock:
            for _ in range(self._settings.processes):
                self._workers.append(self._spawn(lock))
        descriptions = await asyncio.gather(*(worker.ready for worker in self._workers))
        if len(set(descriptions)) != 1:
            raise ConfigurationError(
                "the processes of this server found different models or measurements; did a file change "
                "while it started? Start it again"
            )
        return descriptions[0]

    def _spawn(self, lock: int) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: S603  our own interpreter and module, no shell
                # -P and PYTHONPATH: the same modules as ours, and never those of the working directory.
                [sys.executable, "-P", "-m", "confonnx.server.worker", str(theirs.fileno()), str(lock)],
                pass_fds=(theirs.fileno(), lock),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                process_group=0,  # a terminal's Ctrl-C is for the parent, which tells them
            )
        ours.setblocking(False)
        worker = _Worker(process, ours, self._loop.create_future())
        self._loop.add_reader(ours.fileno(), self._read, worker)
        return worker

    def _read(self, worker: _Worker) -> None:
        """A message of ``worker``."""
        with contextlib.suppress(BlockingIOError):
            message = receive(worker.control)
            if message is None:
                self._lost(worker)
                return
            kind, content, _ = message
            if kind is Kind.HELLO:
                self._hand_over_secret(worker)
            elif kind is Kind.READY:
                worker.ready.set_result(Description.parse(content))
            elif kind is Kind.FAILED:
                worker.ready.set_exception(parse_error(content))
            elif kind is Kind.ENDED:
                worker.ended += int(content)
            elif kind is Kind.STOPPED:
                worker.complete = content == b"complete"

    def _hand_over_secret(self, worker: _Worker) -> None:
        content = self._start_message(self._workers.index(worker))
        send(worker.control, Kind.START, content)
        wipe(content)
        self._unstarted -= 1
        if self._unstarted == 0:
            wipe(self._secret)

    def _start_message(self, index: int) -> bytearray:
        processes = self._settings.processes
        part = share(self._settings, processes)
        return Start(index, processes, self._started_at, self._secret, part).encode()

    def _lost(self, worker: _Worker) -> None:
        """``worker`` closed its side, so it ends or has ended."""
        self._loop.remove_reader(worker.control.fileno())
        worker.gone.set()
        if not worker.ready.done():
            worker.ready.set_exception(ConfigurationError("a process of this server ended while it started"))
        if not self._stop.is_set():
            self._failed = True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._log.emit(WorkerEnded(status=worker.process.wait(_KILL_SECONDS)))
            self._stop.set()

    # Connections.

    def _listen(self) -> None:
        for listener in self._listeners:
            listener.listen(_BACKLOG)
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # nobody is left, or gone again
                return
            except OSError:  # no descriptors or memory for now
                self._pause()
                return
            if not self._hand_over(connection):  # every worker is behind
                self._waiting = connection
                self._pause()
                return

    def _pause(self) -> None:
        """Leave the next connections in the kernel for a moment."""
        self._stop_listening()
        self._loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._stop.is_set():
            return
        if self._waiting is not None and not self._hand_over(self._waiting):
            self._pause()
            return
        self._waiting = None
        self._listen()

    def _hand_over(self, connection: socket.socket) -> bool:
        """Give ``connection`` to the worker with the fewest; False where none can take it now."""
        for worker in sorted(self._workers, key=lambda worker: worker.connections):
            try:
                send(worker.control, Kind.CONNECTION, descriptor=connection.fileno())
            except OSError:  # full, or gone, which its reader sees to
                continue
            worker.handed += 1
            connection.close()
            return True
        return False

    # Metrics.

    async def _scrape(self) -> list[str]:
        """What each worker counts, in Prometheus' text format. Raises OSError and TimeoutError."""
        return await asyncio.create_task(self._scrape_all())  # a handler's first step runs in no task

    async def _scrape_all(self) -> list[str]:
        async with asyncio.timeout(_SCRAPE_SECONDS):
            return list(await asyncio.gather(*map(self._scrape_one, self._workers)))

    async def _scrape_one(self, worker: _Worker) -> str:
        ours, theirs = socket.socketpair()
        with theirs:
            send(worker.control, Kind.SCRAPE, descriptor=theirs.fileno())
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        with contextlib.closing(writer):
            return (await reader.read()).decode()

    # Ending.

    async def _drain(self) -> None:
        self._stop_listening()
        timeout = self._settings.drain_timeout.total_seconds()
        connections = sum(worker.connections for worker in self._workers)
        self._log.emit(Draining(connections=connections, timeout_seconds=timeout))
        for worker in self._workers:
            with contextlib.suppress(OSError):  # gone
                send(worker.control, Kind.DRAIN)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout + _KILL_SECONDS):
                for worker in self._workers:
                    await worker.gone.wait()
        self._log.emit(Stopped(complete=all(worker.complete for worker in self._workers)))

    def _close(self) -> None:
        """End what is left of the workers."""
        wipe(self._secret)
        if self._waiting is not None:
            self._waiting.close()
        for worker in self._workers:
            self._loop.remove_reader(worker.control.fileno())
            worker.control.close()
            if worker.ready.done() and not worker.ready.cancelled():
                worker.ready.exception()  # said by the first that failed
            if not worker.gone.is_set():
                worker.process.kill()
        for worker in self._workers:
            try:
                worker.process.wait(_KILL_SECONDS)
            except subprocess.TimeoutExpired:  # it drained, and a run goes on that nobody waits for
                worker.process.kill()
                worker.process.wait()


def _check(settings: Settings) -> None:
    if not sys.platform.startswith("linux"):
        raise ConfigurationError("--processes needs Linux; leave it out, or start several servers")
    if settings.tee is Tee.SGX or sgx.find(KernelFiles()) is not None:
        raise ConfigurationError(
            f"--processes is {settings.processes}, and an SGX enclave is one process: leave it out, and give "
            "the enclave more threads, or start several enclaves"
        )


def _bind(address: str, port: int) -> list[socket.socket]:
    """Sockets that are bound and do not listen yet: nobody is let in before the server is ready.

    Raises ConfigurationError.
    """
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, name in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(name)
    except OSError as error:
        for listener in bound:
            listener.close()
        raise ConfigurationError(listen_problem(error, address, port, "--http-port")) from error
    return bound


@contextlib.contextmanager
def _lock_file() -> Iterator[int]:
    """A file in memory that workers lock while they use the TEE's device."""
    descriptor = os.memfd_create("confonnx-evidence")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _environment() -> dict[str, str]:
    """Ours, without options: a worker has its settings, credentials included, from us alone."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _ready(settings: Settings, what: Description, port: int, metrics_port: int | None) -> Ready:
    return Ready(
        url=settings.url(port),
        port=port,
        metrics_port=metrics_port,
        tee=what.tee,
        measurement=what.measurement,
        models=what.models,
        authentication=what.authentication,
    )
