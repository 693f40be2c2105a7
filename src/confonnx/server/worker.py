"""One of several processes of a server: ``python -m confonnx.server.worker CONTROL LOCK``, started by
``processes`` and by nobody else. The arguments are numbers of inherited descriptors.

It is a server as in one process, but that it has its settings and the key ring's secret from its parent, and
its connections from there too. When its parent is gone, it drains and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
from collections.abc import Coroutine, Iterator

from confonnx.server import lifecycle
from confonnx.server.control import START_ERRORS, Description, Kind, Start, encode_error, receive, send
from confonnx.server.http import HttpServer
from confonnx.server.lifecycle import Running, Share
from confonnx.server.logs import (
    Draining,
    Event,
    KeyRollover,
    Log,
    SettingsWarning,
    Stopped,
    Unprotected,
)
from confonnx.server.memory import harden_memory
from confonnx.server.messages import HttpRequest
from confonnx.server.metrics import Metrics, MetricsHandler


def main(control: socket.socket, lock: int) -> int:
    """Serve what comes over ``control`` until it says otherwise; the process's exit status."""
    harden_memory()  # before there is anything to protect; what fails of it the parent has said
    send(control, Kind.HELLO)
    message = receive(control)
    if message is None:
        return 1
    start = Start.parse(message[1])
    log = _WorkerLog(start, control)
    lifecycle.silence_hooks(log)
    try:
        lifecycle.run(_serve(start, log, control, lock))
    except START_ERRORS as error:
        with contextlib.suppress(OSError):  # a parent that is gone does not ask
            send(control, Kind.FAILED, encode_error(error))
        return 1
    except BrokenPipeError:  # the parent ended while this worker started
        return 1
    return 0


async def _serve(start: Start, log: Log, control: socket.socket, lock: int) -> int:
    loop = asyncio.get_running_loop()
    lifecycle.report_background_errors(log)
    share = Share(start.processes, start.started_at, start.secret, lambda: _locked(lock))
    reports = _Reports(control)
    async with lifecycle.running(start.settings, log, share=share, ended=reports.ended) as server:
        ready = lifecycle.ready(start.settings, server)
        description = Description(ready.tee, ready.measurement, ready.models, ready.authentication)
        send(control, Kind.READY, description.encode())
        stop = asyncio.Event()
        control.setblocking(False)
        loop.add_reader(control.fileno(), _Commands(control, server, stop).read)
        await stop.wait()
        loop.remove_reader(control.fileno())
    return 0


class _Commands:
    """Does what the parent says. Mutable: it keeps its tasks."""

    def __init__(self, control: socket.socket, server: Running, stop: asyncio.Event) -> None:
        self._control = control
        self._server = server
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self) -> None:
        """Read one message. Where the parent is gone, or cannot be understood, the worker ends."""
        try:
            message = receive(self._control)
        except BlockingIOError:
            return
        except OSError:
            message = None
        match message:
            case (Kind.CONNECTION, _, descriptor):
                self._begin(_adopt(self._server.http, socket.socket(fileno=descriptor)))
            case (Kind.SCRAPE, _, descriptor):
                self._begin(_write_metrics(self._server.metrics, socket.socket(fileno=descriptor)))
            case _:  # DRAIN, or the end
                self._stop.set()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Reports:
    """Tells the parent how many connections ended. Mutable: it keeps what could not be told yet."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._untold = 0

    def ended(self) -> None:
        """One more."""
        self._untold += 1
        with contextlib.suppress(OSError):  # the parent is behind, and hears it with the next; or is gone
            send(self._control, Kind.ENDED, str(self._untold).encode())
            self._untold = 0


class _WorkerLog(Log):
    """A log in which a server of several processes says once what holds for all of them."""

    def __init__(self, start: Start, control: socket.socket) -> None:
        super().__init__(form=start.settings.log_format, level=start.settings.log_level)
        self._first = start.index == 0
        self._control = control

    def emit(self, event: Event) -> None:
        """Write ``event``, unless the parent or the first worker does."""
        if isinstance(event, Stopped):
            with contextlib.suppress(OSError):  # a parent that is gone does not ask
                send(self._control, Kind.STOPPED, b"complete" if event.complete else b"")
        elif not isinstance(event, Draining) and (self._first or not isinstance(event, _OF_ALL)):
            super().emit(event)


_OF_ALL = (Unprotected, KeyRollover, SettingsWarning)


async def _adopt(http: HttpServer, connection: socket.socket) -> None:
    connection.setblocking(False)
    try:
        await http.adopt(connection)
    except OSError:  # the client is gone already
        connection.close()


async def _write_metrics(metrics: Metrics, stream: socket.socket) -> None:
    """The numbers of this process, as its own ``/metrics`` would show them."""
    answer = await MetricsHandler(metrics).handle(HttpRequest("GET", "/metrics", {}, bytearray()))
    _, writer = await asyncio.open_unix_connection(sock=stream)
    with contextlib.closing(writer), contextlib.suppress(OSError):  # a parent that waits no longer
        writer.writelines(answer.body)
        await writer.drain()


@contextlib.contextmanager
def _locked(lock: int) -> Iterator[None]:
    """The only process of this server that is in here. The kernel lets go of it when a process ends."""
    fcntl.lockf(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.lockf(lock, fcntl.LOCK_UN)


if __name__ == "__main__":
    sys.exit(main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
