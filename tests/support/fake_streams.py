"""`FakeServer` with streams: it answers what it was sent, except where a test wants something else."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.errors import EncapsulationError, TransportError, UnknownKeyError
from confonnx.ohttp import bhttp
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    content_chunks,
    encode_response_head,
    request_reader,
)
from confonnx.ohttp.chunked import ChunkedRequestOpener, ChunkedResponseSealer
from confonnx.ohttp.hpke import Buffer
from confonnx.oip import binary, messages
from confonnx.oip.records import NOTICE, RECORDS_MEDIA_TYPE, Record, RecordReader, encode_record
from tests.support.fake_server import KEY_PROBLEM, PROBLEM, AsyncFakeServer, FakeServer


class Does(Enum):
    """What the server does with a record instead of answering it, or beside that."""

    NOTICE = auto()  # answers, after a notice
    END = auto()  # ends the stream properly
    CUT = auto()  # ends the body without a sealed end
    BREAK = auto()  # the connection breaks, and receiving says so
    STOP = auto()  # the connection breaks, and sending says so
    FAIL = auto()  # answers with an error
    TWICE = auto()  # answers twice
    NOTHING = auto()  # leaves it without an answer
    TAMPER = auto()  # changes a bit of the answer
    LATE = auto()  # answers in the final chunk
    SCOLD = auto()  # answers, and then with an error that no input caused


@dataclass
class FakeStreamServer(FakeServer):
    """``plan``: by the number of a record, over all streams. ``eager``: answers are there at once, else only
    when nothing else is left to do."""

    plan: dict[int, Does] = field(default_factory=dict)
    eager: bool = True
    bodies: list[bytes] = field(default_factory=list)
    """Of the records that came."""
    streams: list[FakeDuplex] = field(default_factory=list)
    premature: bool = False
    """Whether an answer comes with the head."""

    def open(self, request: HttpRequest, *, timeout: float | None) -> FakeDuplex:
        """See `DuplexTransport.open`."""
        assert not self.closed
        assert request.body == b""
        self.received.append(request)
        self.ring.advance(self.server_now())
        self.streams.append(FakeDuplex(self, request))
        return self.streams[-1]


class FakeDuplex:
    """One stream. The server's side of it does its work while the client sends."""

    def __init__(self, server: FakeStreamServer, request: HttpRequest) -> None:
        self.server = server
        self.refusal: HttpResponse | None = server.outer(request)  # type: ignore[assignment]
        self.sent: list[int] = []
        self.chunks: list[bytes] = []
        self.finished = self.closed = self.ended = False
        self.broken: TransportError | None = None
        self._stopped = False
        self._last_words: list[Buffer] = []
        self._out: deque[bytes] = deque()
        self._opener = ChunkedRequestOpener(server.ring)
        self._http = request_reader()
        self._records = RecordReader(max_size=1 << 20, answers=False)
        self._sealer: ChunkedResponseSealer | None = None

    @property
    def answered(self) -> bool:
        return self.ended or self.refusal is not None

    def send(self, data: Buffer) -> None:
        assert not self.finished
        assert not self.closed
        if self._stopped:
            raise TransportError("the connection was closed")
        self.sent.append(len(data))
        if self.answered or self.broken:
            return
        try:
            for chunk in self._opener.feed(data):
                self._take(chunk)
        except UnknownKeyError:
            self.refusal = self.server.answer(400, PROBLEM, KEY_PROBLEM)
        except EncapsulationError:
            self.refusal = self.server.answer(400, PROBLEM, b"{}")

    def finish(self) -> None:
        assert not self.finished
        self.finished = True
        if self.answered or self.broken:
            return
        self._take(self._opener.finish())
        self._http.finish()
        self._records.finish()
        self._end()

    def receive(self) -> bytes | None:
        assert not self.closed
        if self._out:
            return self._out.popleft()
        if self.broken:
            raise self.broken
        if self.answered:
            return None
        raise TransportError("no answer in time")

    def is_ready(self) -> bool:
        return self.server.eager and bool(self._out or self.answered or self.broken)

    def close(self) -> None:
        self.closed = True

    def _take(self, chunk: memoryview) -> None:
        self.chunks.append(bytes(chunk))
        for piece in self._http.feed(chunk):
            self._records.feed(piece)
        if self._http.head is not None and self._sealer is None:
            self._sealer = self._opener.response_sealer()
            self._accept(self._http.head)
        while not self.answered and not self.broken and (record := self._records.next_record()) is not None:
            self._answer(record)

    def _accept(self, head: bhttp.Request) -> None:
        server = self.server
        server.opened.append(head)
        checked = bhttp.Request(
            "GET", "https", "x", "/v2", tuple(f for f in head.fields if f[0] in ("date", "authorization"))
        )
        refused = server.inner(head) or server._inner(checked)
        if refused.status == 200:
            self._seal([encode_response_head(bhttp.Response(200, (("content-type", RECORDS_MEDIA_TYPE),)))])
            if server.premature:
                self._send(encode_record((b"{}",), status=200))
                self._out = deque([b"".join(self._out)])
            return
        self._seal([encode_response_head(bhttp.Response(refused.status, refused.fields))])
        for chunk in content_chunks([refused.body], size=1000):
            self._seal(chunk)
        self._end()

    def _answer(self, record: Record) -> None:
        assert record.message is not None
        number = len(self.server.bodies)
        self.server.bodies.append(bytes(record.message))
        does = self.server.plan.pop(number, None)
        match does:
            case Does.NOTICE:
                self._send(encode_record((), status=NOTICE))
            case Does.END:
                self._end()
                return
            case Does.CUT:
                self.ended = True
                return
            case Does.BREAK | Does.STOP:
                self.broken = TransportError("the connection broke")
                self._stopped = does is Does.STOP
                if self._stopped:
                    self.server.bodies.pop()
                    raise self.broken
                return
            case Does.FAIL:
                error = messages.encode_error(f"no luck with {number}")
                self._send(encode_record((error,), status=500))
                return
            case Does.NOTHING:
                return
        answer = self._predict(record)
        if does is Does.LATE:
            self._last_words = [part for chunk in content_chunks(answer, size=1000) for part in chunk]
            return
        self._send(answer)
        if does is Does.SCOLD:
            self._send(encode_record((messages.encode_error("too many"),), status=413))
        if does is Does.TWICE:
            self._send(answer)
        if does is Does.TAMPER:
            self._out[-1] = self._out[-1][:-1] + bytes([self._out[-1][-1] ^ 1])

    def _predict(self, record: Record) -> list[Buffer]:
        fields: bhttp.Fields = ()
        if record.header_length is not None:
            fields = ((binary.HEADER_LENGTH_FIELD, str(record.header_length)),)
        assert record.message is not None
        assert self._http.head is not None
        name = self._http.head.path.split("/")[3]
        model = next(model for model in self.server.models if model.description.name == name)
        response = self.server._model(
            model, "infer", bhttp.Request("POST", "https", "x", "/", fields, record.message)
        )
        length = response.field(binary.HEADER_LENGTH_FIELD)
        return encode_record(
            (response.body,), header_length=None if length is None else int(length), status=200
        )

    def _send(self, record: list[Buffer]) -> None:
        for chunk in content_chunks(record, size=1000):
            self._seal(chunk)

    def _seal(self, parts: list[Buffer]) -> None:
        assert self._sealer is not None
        self._out.append(bytes(self._sealer.seal(parts)))

    def _end(self) -> None:
        assert self._sealer is not None
        self._out.append(bytes(self._sealer.finish([*self._last_words, CONTENT_END])))
        self.ended = True


@dataclass
class AsyncFakeStreamServer(AsyncFakeServer):
    """The same for asyncio."""

    server: FakeStreamServer

    async def open(self, request: HttpRequest, *, timeout: float | None) -> AsyncFakeDuplex:
        """See `AsyncDuplexTransport.open`."""
        await asyncio.sleep(0)
        return AsyncFakeDuplex(self.server.open(request, timeout=timeout))


_TURNS = 500  # of the event loop, until an answer is late


class AsyncFakeDuplex:
    """`FakeDuplex` whose `receive` waits."""

    def __init__(self, duplex: FakeDuplex) -> None:
        self._duplex = duplex

    @property
    def answered(self) -> bool:
        return self._duplex.answered

    @property
    def refusal(self) -> HttpResponse | None:
        return self._duplex.refusal

    async def send(self, data: Buffer) -> None:
        await asyncio.sleep(0)
        self._duplex.send(data)

    async def finish(self) -> None:
        await asyncio.sleep(0)
        self._duplex.finish()

    async def receive(self) -> bytes | None:
        duplex = self._duplex
        for _ in range(_TURNS):
            if duplex._out or duplex.answered or duplex.broken:
                break
            await asyncio.sleep(0)
        return duplex.receive()

    def is_ready(self) -> bool:
        return self._duplex.is_ready()

    async def close(self) -> None:
        self._duplex.close()
