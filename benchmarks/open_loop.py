"""An open loop of requests: they come when a clock says so, whether or not those before have been answered.

That is how clients of a busy server come, who do not know of each other. A closed loop, whose clients wait,
can never ask for more than the server gives, and so hides what overload does.
"""

from __future__ import annotations

import gc
import re
import resource
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.load import Connection, LoadError, Mark, Timings

_STALL_SECONDS = 30.0
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Served:
    """What came of the requests.

    ``answers`` by number: the whole HTTP answer, or None where the server closed the connection instead or no
    connection was free. ``latencies`` by number, in seconds from the time when a request was due; NaN without
    answer. ``timings`` are of the whole time, with the latencies of what was answered.
    """

    answers: list[bytes | None]
    latencies: npt.NDArray[np.float64]
    no_connection: int
    timings: Timings


def run_open_loop(
    *,
    port: int,
    pids: Sequence[int],
    messages: Sequence[bytes],
    due: Sequence[float],
    connections: int,
    room: int,
) -> Served:
    """Send message ``n`` at ``due[n]`` seconds from the begin (ascending), over at most ``connections``.

    ``room`` bytes hold any answer. A request for which no connection is free is not sent, and counted. Raises
    ``LoadError`` where nothing happens for half a minute.
    """
    loop = OpenLoop(port, messages, due, room)
    for _ in range(connections):
        loop.connect()
    gc.collect()
    gc.disable()
    try:
        begin = Mark.now(pids)
        loop.run()
        end = Mark.now(pids)
    finally:
        gc.enable()
        loop.close()
    answered = loop.latencies[~np.isnan(loop.latencies)]
    return Served(loop.answers, loop.latencies, loop.no_connection, begin.until(end, answered))


def allow_connections(count: int) -> None:
    """Let this process, and those it starts, have so many sockets and some files. Raises ``LoadError``."""
    wanted = count + 100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadError(f"{count} connections need a limit of {wanted} open files, found {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


class OpenLoop:
    """The connections, and what is under way. Mutable. Arguments as in ``run_open_loop``."""

    def __init__(self, port: int, messages: Sequence[bytes], due: Sequence[float], room: int) -> None:
        """No connection yet."""
        self.port, self.messages, self.due, self.room = port, messages, due, room
        self.poller = select.epoll()
        self.busy: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.answers: list[bytes | None] = [None] * len(messages)
        self.latencies = np.full(len(messages), np.nan)
        self.no_connection = 0

    def connect(self) -> None:
        """One more connection, idle."""
        self.idle.append(Connection(self.port))

    def run(self) -> None:
        """Until every message was sent, and answered or given up."""
        begin = time.perf_counter()
        number, total = 0, len(self.messages)
        while number < total or self.busy:
            now = time.perf_counter() - begin
            while number < total and self.due[number] <= now:
                self.send(number, begin + self.due[number])
                number += 1
            wait = max(self.due[number] - now, 0.0) if number < total else _STALL_SECONDS
            if not self.step(wait) and number == total:
                raise LoadError(f"no answer for {_STALL_SECONDS:.0f} s; {len(self.busy)} requests wait")

    def send(self, number: int, due: float) -> None:
        """Send message ``number``, on the connection that was used last: an idle one may be closed."""
        if not self.idle:
            self.no_connection += 1
            return
        connection = self.idle.pop()
        self.busy[connection.socket.fileno()] = connection
        self.poller.register(connection.socket, select.EPOLLIN)
        try:
            connection.begin(number, self.messages[number], bytearray(self.room))
        except OSError:
            self.replace(connection)
            return
        connection.started = due  # what waits for this loop's turn waits, too
        if connection.unsent:
            self.poller.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def step(self, wait: float) -> bool:
        """Do what there is to do, after at most ``wait`` seconds; ``False``: there was nothing."""
        events = self.poller.poll(wait)
        for descriptor, event in events:
            self.advance(self.busy[descriptor], event)
        return bool(events)

    def advance(self, connection: Connection, event: int) -> None:
        """Send and receive what there is."""
        try:
            if event & select.EPOLLOUT:
                connection.push()
                if not connection.unsent:
                    self.poller.modify(connection.socket, select.EPOLLIN)
            if not event & ~select.EPOLLOUT or not connection.pull():
                return
        except (OSError, LoadError):  # closed or reset by the server
            self.replace(connection)
            return
        answer = bytes(connection.answer[: connection.filled])
        self.answers[connection.number] = answer
        self.latencies[connection.number] = time.perf_counter() - connection.started
        if connection.unsent or _CLOSES.search(answer.partition(b"\r\n\r\n")[0]):
            self.replace(connection)
            return
        self.poller.unregister(connection.socket)
        del self.busy[connection.socket.fileno()]
        self.idle.append(connection)

    def replace(self, connection: Connection) -> None:
        """A new connection for one that the server closed."""
        self.poller.unregister(connection.socket)
        del self.busy[connection.socket.fileno()]
        connection.socket.close()
        self.connect()

    def close(self) -> None:
        """All connections."""
        for connection in (*self.idle, *self.busy.values()):
            connection.socket.close()
        self.poller.close()
