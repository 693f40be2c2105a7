"""Streams of predictions: a chunked request is opened while it comes, and answered while it comes (D1).

The steps are those of `app`; docs/spec/streams.md has what is particular to streams:

1. the sealed head is opened; what does not open, and a replay, is answered outside the seal as for any other
   request;
2. date, content coding, credentials, path: a refusal is a sealed answer, and ends the request;
3. each record is inferred in its turn by the same routes as a single request, and answered before the next
   one is read. So a stream holds one record and one answer, and no more threads than any connection;
4. the answer gets its sealed end once the request's sealed end was opened, or at the border of two records
   where the server may end it. A request that was cut, or changed, gets none.

A record that was opened is authentic and in its place, so answering it before the end of the request is known
gives nothing away; and inference changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import formatdate

from confonnx.errors import (
    AuthenticationError,
    BhttpError,
    ConfonnxError,
    EncapsulationError,
    OipError,
    OverloadedError,
    TooLargeError,
    UnknownKeyError,
)
from confonnx.ohttp import bhttp
from confonnx.ohttp.bhttp_stream import CONTENT_END, content_chunks, encode_response_head, request_reader
from confonnx.ohttp.chunked import (
    CHUNKED_RESPONSE_MEDIA_TYPE,
    ChunkedRequestOpener,
    ChunkedResponseSealer,
)
from confonnx.ohttp.encapsulation import KeyLookup
from confonnx.ohttp.hpke import PrivateKey
from confonnx.ohttp.padding import padme
from confonnx.oip.binary import HEADER_LENGTH_FIELD
from confonnx.oip.records import (
    CHUNK_BYTES,
    HEAD_SIZE,
    MAX_RECORDS,
    NOTICE,
    RECORDS_MEDIA_TYPE,
    Record,
    RecordReader,
    encode_record,
    room_for,
)
from confonnx.server.auth import Authenticator
from confonnx.server.http_stream import Exchange, IdleError
from confonnx.server.logs import Log, StreamEnded, StreamEnding
from confonnx.server.messages import (
    DATE_PROBLEM,
    KEY_PROBLEM,
    PROBLEM_MEDIA_TYPE,
    Buffer,
    HttpResponse,
    problem,
    problem_body,
)
from confonnx.server.metrics import Metrics, Outcome, Unopened
from confonnx.server.recall import Recall
from confonnx.server.replay import DateRefusedError, ReplayCache, SeenBeforeError
from confonnx.server.routes import Reply, Routes, error_reply, plain_error

MAX_SECONDS = 3600.0
"""How long a stream may last before the server says that it must end."""

_SECONDS_AFTER_NOTICE = 300.0
_FREE_CHUNKS = 1024
_SMALLEST_AVERAGE_CHUNK = 64  # bytes: opening one costs far more than sending it
_MULTIPLE = 256  # bytes of a sealed refusal, whose size would tell which it is


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Sizes in bytes; ``pad``: whether answers are."""

    max_request_bytes: int
    max_response_bytes: int
    pad: bool


class StreamGateway:
    """Answers streams, any number at a time in one event loop."""

    def __init__(
        self,
        *,
        keys: KeyLookup,
        authenticator: Authenticator,
        replays: ReplayCache,
        routes: Routes,
        metrics: Metrics,
        log: Log,
        now: Callable[[], datetime],
        log_defect: Callable[[Exception], str],
        options: StreamOptions,
    ) -> None:
        """``now`` gives aware UTC time; ``log_defect`` notes what nobody expected: the id of the entry."""
        self._keys = keys
        self._authenticator = authenticator
        self._replays = replays
        self._routes = routes
        self._metrics = metrics
        self._log = log
        self._now = now
        self._log_defect = log_defect
        self._options = options

    async def answer(self, exchange: Exchange, *, request_id: str) -> HttpResponse | None:
        """Answers by ``exchange``, or with a problem where the head did not open.

        What breaks later leaves the exchange without an end. Raises nothing but ``asyncio.CancelledError``.
        """
        incoming = _Incoming(exchange, self._keys, self._options.max_request_bytes)
        stream = _Stream(exchange, incoming, time.monotonic())
        self._metrics.streams += 1
        try:
            return await self._answer(stream)
        finally:
            self._metrics.streams -= 1
            if self._log.writes(StreamEnded.level):
                self._log.emit(
                    StreamEnded(
                        request_id=request_id,
                        ending=stream.ending.value,
                        predictions=stream.answered,
                        milliseconds=round((time.monotonic() - stream.started) * 1000),
                    )
                )

    async def _answer(self, stream: _Stream) -> HttpResponse | None:
        incoming = stream.incoming
        try:
            refusal, path = await self._admit(incoming)
        except UnknownKeyError:
            return self._unopened(stream, Unopened.UNKNOWN_KEY)
        except (EncapsulationError, TooLargeError):
            return self._unopened(stream, Unopened.UNOPENABLE)
        except SeenBeforeError:
            return self._unopened(stream, Unopened.REPLAYED)
        sealer = incoming.opener.response_sealer()
        stream.exchange.begin({"content-type": CHUNKED_RESPONSE_MEDIA_TYPE, "incremental": "?1"})
        head = encode_response_head(self._head(refusal))
        if refusal is not None:
            stream.ending = StreamEnding.REFUSED
            await _end(stream.exchange, sealer, _whole(head, refusal.body))
            return None
        await stream.exchange.write(sealer.seal([head]))
        try:
            await self._converse(stream, sealer, path)
        except EncapsulationError:
            return None  # no sealed end: the client can tell that not everything was answered
        await _end(stream.exchange, sealer, [CONTENT_END])
        return None

    def _unopened(self, stream: _Stream, reason: Unopened) -> HttpResponse:
        stream.ending = StreamEnding.UNOPENED
        self._metrics.count_unopened(reason)
        return problem(400, problem_type=KEY_PROBLEM if reason is Unopened.UNKNOWN_KEY else "about:blank")

    async def _admit(self, incoming: _Incoming) -> tuple[Reply | None, str]:
        """A refusal of the head, or where its records go.

        Raises UnknownKeyError, EncapsulationError and SeenBeforeError.
        """
        try:
            head = await incoming.head()
            assert incoming.opener.enc is not None  # the head was sealed behind it
            self._replays.admit(incoming.opener.enc, head.field("date"), now=self._now())
            if head.field("content-encoding") is not None:
                return plain_error(415, "content-encoding is not used inside the seal"), ""
            await self._authenticator.check(head.field("authorization"))
            if head.method != "POST":
                return plain_error(405, "a stream is a POST", fields=(("allow", "POST"),)), ""
            if head.field("content-type") != RECORDS_MEDIA_TYPE:
                return plain_error(415, f"the content of a stream is {RECORDS_MEDIA_TYPE}"), ""
            return None, self._routes.stream_path(head.path)
        except (SeenBeforeError, EncapsulationError, TooLargeError):
            raise
        except DateRefusedError:
            body = problem_body(400, DATE_PROBLEM)
            return Reply(400, (body,), PROBLEM_MEDIA_TYPE, outcome=Outcome.STALE), ""
        except AuthenticationError as error:
            challenge = (("www-authenticate", self._authenticator.challenge),)
            return plain_error(401, str(error), fields=challenge, outcome=Outcome.UNAUTHENTICATED), ""
        except ConfonnxError as error:
            return error_reply(error), ""

    def _head(self, refusal: Reply | None) -> bhttp.Response:
        date = ("date", formatdate(self._now().timestamp(), usegmt=True))
        if refusal is None:
            return bhttp.Response(200, (date, ("content-type", RECORDS_MEDIA_TYPE)))
        return bhttp.Response(refusal.status, (date, ("content-type", refusal.content_type), *refusal.fields))

    async def _converse(self, stream: _Stream, sealer: ChunkedResponseSealer, path: str) -> None:
        """Answers record after record, until the request ends or may go on no longer.

        Raises EncapsulationError where the request was cut or changed.
        """
        incoming, exchange = stream.incoming, stream.exchange
        while True:
            if stream.must_end():
                stream.ending = StreamEnding.CLOSED
                return
            if stream.should_end() and not stream.noticed_at:
                stream.noticed_at = time.monotonic()
                await self._send(exchange, sealer, encode_record((), status=NOTICE))
            try:
                record = await incoming.next_record()
            except IdleError:
                stream.ending = StreamEnding.CLOSED
                return
            except (BhttpError, OipError, TooLargeError) as error:
                stream.ending = StreamEnding.CLOSED
                await self._send(exchange, sealer, self._record(error_reply(error)))
                return
            if record is None:
                stream.ending = StreamEnding.COMPLETE
                return
            size = record.size
            reply = await self._infer(stream, path, record)
            del record  # its buffer is free while the answer is written
            self._metrics.streamed.count(reply.model, reply.version, reply.outcome)
            await self._send(exchange, sealer, self._record(reply))
            del reply
            stream.answered += 1
            incoming.release(size)

    async def _infer(self, stream: _Stream, path: str, record: Record) -> Reply:
        if record.message is None:
            return error_reply(
                OverloadedError("the server holds as many bytes of requests as it may; try again later")
            )
        body = memoryview(record.message).toreadonly()
        try:
            return await self._routes.answer(stream.head_of(path, record), body, stream.recall)
        except ConfonnxError as error:
            return error_reply(error)
        except Exception as error:  # noqa: BLE001  a defect is answered under the seal too, style rule 7
            return plain_error(
                500,
                f"internal error {self._log_defect(error)}; the server's log has an entry under this id",
                outcome=Outcome.FAILED,
            )

    def _record(self, reply: Reply) -> list[Buffer]:
        size = sum(map(len, reply.body))
        limit = self._options.max_response_bytes
        if size > limit:
            error = TooLargeError(f"the answer is over the server's limit of {limit} bytes")
            return self._record(error_reply(error))
        fields = dict(reply.fields)
        length = fields.get(HEADER_LENGTH_FIELD)
        whole = HEAD_SIZE + size
        return encode_record(
            reply.body,
            header_length=None if length is None else int(length),
            status=reply.status,
            retry_after=int(fields.get("retry-after", 0)),
            padding=padme(whole) - whole if self._options.pad else 0,
        )

    @staticmethod
    async def _send(exchange: Exchange, sealer: ChunkedResponseSealer, record: list[Buffer]) -> None:
        for chunk in content_chunks(record, size=CHUNK_BYTES):
            await exchange.write(sealer.seal(chunk))


class _Incoming:
    """The request, opened as it comes: its head, then its records. Mutable."""

    def __init__(self, exchange: Exchange, keys: KeyLookup, max_record: int) -> None:
        self.key = _Key(keys)
        self.opener = ChunkedRequestOpener(self.key)
        self._exchange = exchange
        self._http = request_reader()
        self._records = RecordReader(max_size=max_record, allocate=self._allocate, answers=False)
        self._reserved = False
        self._ended = False
        self._chunks = 0
        self._bytes = 0

    async def head(self) -> bhttp.Request:
        """The request without its content. Raises EncapsulationError, UnknownKeyError and BhttpError."""
        while self._http.head is None:
            await self._receive(idle=False)
            if self._ended:
                self._http.finish()
        return self._http.head

    async def next_record(self) -> Record | None:
        """The next record; None: the request has ended, as its sealed end says.

        Raises EncapsulationError where it was cut or changed; BhttpError, OipError and TooLargeError for what
        its sender did wrong; IdleError between records.
        """
        while (record := self._records.next_record()) is None:
            if self._ended:
                self._http.finish()
                self._records.finish()
                return None
            await self._receive(idle=not self._records.inside)
        return record

    def release(self, size: int) -> None:
        """The answer to a record of ``size`` bytes is written."""
        if self._reserved:
            self._reserved = False
            self._exchange.release(size)

    async def _receive(self, *, idle: bool) -> None:
        piece = await self._exchange.read(idle=idle)
        if piece is None:
            self._take(self.opener.finish())
            self._ended = True
            return
        for chunk in self.opener.feed(piece):
            self._chunks += 1
            self._bytes += len(chunk)
            if self._chunks > _FREE_CHUNKS + self._bytes // _SMALLEST_AVERAGE_CHUNK:
                raise OipError(f"the chunks have less than {_SMALLEST_AVERAGE_CHUNK} bytes on average")
            self._take(chunk)

    def _take(self, chunk: memoryview) -> None:
        for content in self._http.feed(chunk):
            self._records.feed(content)

    def _allocate(self, size: int) -> bytearray | memoryview | None:
        self._reserved = self._exchange.reserve(size)
        return room_for(size) if self._reserved else None


class _Key:
    """The key to which a stream was sealed, and whether the server still has it. Mutable."""

    def __init__(self, keys: KeyLookup) -> None:
        self._keys = keys
        self._used: tuple[int, bytes] | None = None

    def private_key(self, key_id: int) -> PrivateKey:
        """See `KeyLookup`."""
        key = self._keys.private_key(key_id)
        self._used = key_id, key.public_key
        return key

    @property
    def is_erased(self) -> bool:
        """A context opens what follows without the key, so a stream must not outlive it."""
        if self._used is None:
            return False
        key_id, public_key = self._used
        try:
            return self._keys.private_key(key_id).public_key != public_key
        except UnknownKeyError:
            return True


@dataclass(slots=True)
class _Stream:
    """One stream and how far it has come. Mutable; times are of the monotonic clock."""

    exchange: Exchange
    incoming: _Incoming
    started: float
    ending: StreamEnding = StreamEnding.BROKEN
    answered: int = 0
    noticed_at: float = 0.0
    recall: Recall = field(default_factory=Recall)
    _heads: dict[int | None, bhttp.RequestHead] = field(default_factory=dict)

    def head_of(self, path: str, record: Record) -> bhttp.RequestHead:
        """The head of the single request that ``record`` stands for: the same one while it repeats."""
        length = record.header_length
        head = self._heads.get(length)
        if head is None:
            fields = () if length is None else ((HEADER_LENGTH_FIELD, str(length)),)
            head = bhttp.RequestHead("POST", "https", "", path, fields)
            self._heads = {length: head}
        return head

    def should_end(self) -> bool:
        """Whether to ask the client to begin another one."""
        return self.exchange.draining or time.monotonic() - self.started > MAX_SECONDS

    def must_end(self) -> bool:
        """Whether no more is read."""
        late = self.noticed_at and time.monotonic() - self.noticed_at > _SECONDS_AFTER_NOTICE
        return bool(late) or self.answered >= MAX_RECORDS or self.incoming.key.is_erased


async def _end(exchange: Exchange, sealer: ChunkedResponseSealer, last: Sequence[Buffer]) -> None:
    await exchange.write(sealer.finish(last))
    exchange.end()


def _whole(head: bytes, body: tuple[Buffer, ...]) -> list[Buffer]:
    """A short answer of indeterminate length, padded."""
    parts = [head, *(part for chunk in content_chunks(body, size=CHUNK_BYTES) for part in chunk), CONTENT_END]
    return [*parts, bytes(-sum(map(len, parts)) % _MULTIPLE)]
