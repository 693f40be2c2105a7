"""A closed loop of requests: every connection sends its next one when it has its answer.

Everything that the loop sends is ready before, and everything that it receives has its memory before, so that
the generator is as cheap as Python lets it be. What it costs is measured with the rest.
"""

from __future__ import annotations

import gc
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.machine import core_of, cpu_seconds, idle_seconds

_STALL_SECONDS = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"  # with the end of the chunk before
_UNANNOUNCED = -1
_MAX_CHUNK_LINE = 32
_MAX_HEAD = 4096


class LoadError(RuntimeError):
    """The server did not answer as a benchmark needs it to. No figure comes of such a run."""


class BrokenOffError(LoadError):
    """The server closed a connection before its answer was complete."""


@dataclass(frozen=True, slots=True)
class Timings:
    """What was seen while every connection was busy: without the first and the last requests of a window.

    ``latencies`` in seconds, one for each request. ``server_cpu`` and ``generator_cpu`` in seconds over
    ``elapsed``. ``others``: the share of a core that was not idle, and not used by either of the two; of the
    server's core or of the generator's, whichever is larger.
    """

    latencies: npt.NDArray[np.float64]
    elapsed: float
    server_cpu: float
    generator_cpu: float
    others: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A reading of all clocks, in seconds: CPU time of server and generator, idle time of their cores."""

    wall: float
    server_cpu: float
    generator_cpu: float
    server_idle: float
    generator_idle: float

    @classmethod
    def now(cls, pids: Sequence[int]) -> Mark:
        """The clocks now, of the server, which has the process ids ``pids``, and of this process, the
        generator.
        """
        idle = idle_seconds(core_of(pids[0])), idle_seconds(core_of(0))  # the slow ones first
        return cls(time.perf_counter(), sum(map(cpu_seconds, pids)), time.process_time(), *idle)

    def until(self, end: Mark, latencies: npt.NDArray[np.float64]) -> Timings:
        """From here to ``end``, in which requests with those ``latencies`` (seconds) were answered."""
        elapsed = end.wall - self.wall
        server_cpu = end.server_cpu - self.server_cpu
        generator_cpu = end.generator_cpu - self.generator_cpu
        server_core = elapsed - server_cpu - (end.server_idle - self.server_idle)
        generator_core = elapsed - generator_cpu - (end.generator_idle - self.generator_idle)
        return Timings(
            latencies=latencies,
            elapsed=elapsed,
            server_cpu=server_cpu,
            generator_cpu=generator_cpu,
            others=max(server_core, generator_core, 0.0) / elapsed,
        )


class Connection:
    """One socket and the request that is under way on it. Mutable."""

    __slots__ = ("answer", "expected", "filled", "number", "socket", "started", "unsent")

    def __init__(self, port: int) -> None:
        """To loopback ``port``."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_STALL_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.number = -1
        self.started = 0.0
        self.unsent = memoryview(b"")
        self.answer = memoryview(b"")
        self.filled = self.expected = 0

    def begin(self, number: int, message: bytes, answer: bytearray) -> None:
        """Send message ``number``, or its begin; its answer will fill ``answer``."""
        self.number = number
        self.unsent = memoryview(message)
        self.answer = memoryview(answer)
        self.filled = self.expected = 0
        self.started = time.perf_counter()
        self.push()

    def push(self) -> None:
        """Send what the kernel takes."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return

    def pull(self) -> bool:
        """Receive what is there. ``True``: the answer is complete."""
        try:
            received = self.socket.recv_into(self.answer[self.filled :])
        except BlockingIOError:
            return False
        if received == 0:
            if self.filled == len(self.answer):
                raise LoadError(f"answer {self.number} is longer than the one before: {self.filled} bytes")
            raise BrokenOffError(f"answer {self.number} broke off after {self.filled} bytes")
        self.filled += received
        if not self.expected:
            self.expected = _whole_length(bytes(self.answer[: min(self.filled, _MAX_HEAD)]))
        return _complete(self.answer[: self.filled], self.expected)


def run_closed_loop(
    *,
    port: int,
    pids: Sequence[int],
    messages: Sequence[bytes],
    answers: Sequence[bytearray],
    concurrency: int,
    lead: int,
) -> tuple[Timings, list[int]]:
    """Send every message once, over ``concurrency`` connections, to the server with the process ids ``pids``.

    Answer number ``n`` fills ``answers[n]`` from its start; the list has the length of each. The first
    ``lead`` requests and the last ``concurrency`` are not in the timings. Raises ``LoadError`` for an answer
    that breaks off, does not come, or is longer than the room for it.
    """
    connections = [Connection(port) for _ in range(concurrency)]
    gc.collect()
    gc.disable()
    try:
        return _loop(connections, pids, messages, answers, lead)
    finally:
        gc.enable()
        for connection in connections:
            connection.socket.close()


def _loop(
    connections: list[Connection],
    pids: Sequence[int],
    messages: Sequence[bytes],
    answers: Sequence[bytearray],
    lead: int,
) -> tuple[Timings, list[int]]:
    total, last = len(messages), len(messages) - len(connections)
    if not 0 < lead < last:
        raise ValueError(
            f"{total} messages are too few for {len(connections)} connections and a lead of {lead}"
        )
    poller = select.epoll()
    by_descriptor = {connection.socket.fileno(): connection for connection in connections}
    latencies = np.zeros(total)
    lengths = [0] * total
    for number, connection in enumerate(connections):
        poller.register(connection.socket, select.EPOLLIN)
        _begin(poller, connection, number, messages, answers)
    following, done = len(connections), 0
    begin = end = Mark.now(pids)
    while done < total:
        events = poller.poll(_STALL_SECONDS)
        if not events:
            raise LoadError(f"no answer for {_STALL_SECONDS:.0f} s; {done} of {total} requests were answered")
        for descriptor, event in events:
            connection = by_descriptor[descriptor]
            if event & select.EPOLLOUT:
                connection.push()
                if not connection.unsent:
                    poller.modify(descriptor, select.EPOLLIN)
            if not event & ~select.EPOLLOUT or not connection.pull():
                continue
            latencies[done] = time.perf_counter() - connection.started
            lengths[connection.number] = connection.filled
            done += 1
            if done == lead:
                begin = Mark.now(pids)
            elif done == last:
                end = Mark.now(pids)
            if following < total:
                _begin(poller, connection, following, messages, answers)
                following += 1
    poller.close()
    return begin.until(end, latencies[lead:last]), lengths


def _begin(
    poller: select.epoll,
    connection: Connection,
    number: int,
    messages: Sequence[bytes],
    answers: Sequence[bytearray],
) -> None:
    connection.begin(number, messages[number], answers[number])
    if connection.unsent:
        poller.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)


def ask_once(port: int, message: bytes) -> bytes:
    """The whole HTTP answer to one message, over a connection of its own. Raises ``LoadError``."""
    with socket.create_connection(("127.0.0.1", port), timeout=_STALL_SECONDS) as connection:
        connection.sendall(message)
        answer = bytearray()
        expected = 0
        while not expected or not _complete(memoryview(answer), expected):
            piece = connection.recv(1 << 20)
            if not piece:
                raise LoadError(f"the answer broke off after {len(answer)} bytes")
            answer += piece
            expected = expected or _whole_length(bytes(answer[:_MAX_HEAD]))
        return bytes(answer)


def split_answer(answer: memoryview) -> tuple[int, memoryview]:
    """Status and body of a whole HTTP answer."""
    head = bytes(answer[:_MAX_HEAD])
    end = head.index(_HEAD_END) + len(_HEAD_END)
    body = answer[end:]
    if _CHUNKED.search(head, 0, end):
        body = memoryview(b"".join(_chunks(body)))
    return int(head.split(b" ", 2)[1]), body


def _chunks(body: memoryview) -> Iterator[memoryview]:
    """The pieces of a body in chunks (RFC 9112 §7.1)."""
    while True:
        line = bytes(body[:_MAX_CHUNK_LINE]).partition(b"\r\n")[0]
        size, start = int(line, 16), len(line) + 2
        if size == 0:
            return
        yield body[start : start + size]
        body = body[start + size + 2 :]


def _complete(answer: memoryview, expected: int) -> bool:
    """Whether ``answer`` has the length that was announced or, where none was, ends like a body in chunks.

    Bytes of a chunk that happen to end so, where a read ends too, make an answer that fails its check.
    """
    if expected == _UNANNOUNCED:
        return answer[-len(_LAST_CHUNK) :] == _LAST_CHUNK
    return len(answer) == expected


def _whole_length(start: bytes) -> int:
    """Bytes of head and body of the answer that begins with ``start``; 0 while the head is incomplete, and
    ``_UNANNOUNCED`` where it comes in chunks.
    """
    end = start.find(_HEAD_END)
    if end < 0:
        return 0
    announced = _LENGTH.search(start, 0, end + len(_HEAD_END))
    if announced is None:
        if _CHUNKED.search(start, 0, end + len(_HEAD_END)):
            return _UNANNOUNCED
        raise LoadError("an answer came without Content-Length, and not in chunks")
    return end + len(_HEAD_END) + int(announced[1])
