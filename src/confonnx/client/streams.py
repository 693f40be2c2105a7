"""A stream of predictions over one request, step by step, with no I/O and no clock (docs/spec/streams.md).

The flow is a generator as those in `flows`, with more to yield: see `stream_actions`. `stream_drivers` drives
it, blocking or with asyncio; tests drive it by hand.

1. The first input is pulled; then the request is opened with verified keys, and nothing but its head is sent.
2. Once the server has accepted the head, inputs are pulled and sent while fewer than ``max_in_flight`` have
   no answer. So "cannot open" and ``#date`` are over before any tensor is on its way.
3. Answers come in the order of the inputs, each held against its own question.
4. The sealed end of the answers must come; a stream that just stops is an error.

A stream that must end while there are inputs left (its keys run out, the server says that it is about to
stop, nobody had anything to say for too long) goes on as another one. No input is lost and none is sent
twice, with one exception that a caller cannot see: the last one pulled, where the connection ended before its
answer, goes to the next stream. It still is what it was, as its iterator was not asked for another one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.statement import ModelDescription
from confonnx.client import answers, inference
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.client.flows import Flows, clock_offset_by, keys_wanted, model_path, select
from confonnx.client.stream_actions import (
    Arrived,
    AwaitNext,
    CloseStream,
    EndRequest,
    Event,
    GiveOut,
    Input,
    InputsEnded,
    OpenStream,
    Refused,
    SendPiece,
    StreamFlow,
)
from confonnx.errors import (
    ConfigurationError,
    ConfonnxError,
    EncapsulationError,
    InvalidInputError,
    OipError,
    ServerError,
    TooLargeError,
    TransportError,
)
from confonnx.ohttp import bhttp
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    content_chunks,
    encode_request_head,
    response_reader,
)
from confonnx.ohttp.chunked import CHUNKED_REQUEST_MEDIA_TYPE, CHUNKED_RESPONSE_MEDIA_TYPE
from confonnx.ohttp.padding import padme
from confonnx.ohttp.reader import Buffer
from confonnx.oip.records import (
    CHUNK_BYTES,
    HEAD_SIZE,
    MAX_RECORDS,
    NOTICE,
    RECORDS_MEDIA_TYPE,
    Record,
    RecordReader,
    encode_record,
)

DEFAULT_MAX_IN_FLIGHT = 8

MAX_AGE = timedelta(minutes=50)
"""How long one request lasts before the stream goes on in another; a server takes an hour."""

_MAX_REFUSAL = 1 << 16  # bytes of a sealed error
_HEAD_MULTIPLE = 256  # bytes; the head's size would tell the length of the model's name

T = TypeVar("T")


CLOSE: Final = CloseStream()


@dataclass(frozen=True, slots=True)
class StreamCall:
    """What was asked for; see `Client.predict_stream`."""

    model: str | None
    version: str | None
    outputs: Sequence[str] | None
    max_in_flight: int
    return_errors: bool


def stream_call(
    model: str | None,
    version: str | None,
    outputs: Sequence[str] | None,
    *,
    max_in_flight: int,
    return_errors: bool,
) -> StreamCall:
    """The call, checked. Raises ConfigurationError."""
    if max_in_flight < 1:
        raise ConfigurationError(f"max_in_flight is 1 or more, not {max_in_flight}")
    return StreamCall(model, version, outputs, max_in_flight, return_errors)


def no_streams(transport: str) -> ConfigurationError:
    """The error for a transport of the caller's that carries none."""
    return ConfigurationError(
        f"the transport {transport} carries no streams; give one that has open(), or call predict()"
    )


def predict_stream(flows: Flows, call: StreamCall) -> StreamFlow[None]:
    """The whole stream, over one request or several."""
    return _Stream(flows, call).run()


class _Exchange:
    """One request and its answer: what seals and opens it, and how far it has come. Mutable."""

    def __init__(self, flows: Flows, call: StreamCall, keys: AttestedKeys, now: datetime) -> None:
        limits = keys.statement.limits
        self.model: ModelDescription = select(keys, call.model, call.version)
        key, self.sealer = keys.begin_stream(now=now)
        self._opener = self.sealer.response_opener()
        self._reader = response_reader()
        self.max_request = limits.max_request_bytes
        max_answer = min(flows.options.max_response_bytes, limits.max_response_bytes)
        self._records = RecordReader(max_size=max_answer, answers=True)
        self._refusal = bytearray()
        self._until = min(keys.valid_until, key.not_after, now + MAX_AGE)
        self.sent = self.answered = 0
        self.finished = False
        self.closing = False
        fields = (("content-type", RECORDS_MEDIA_TYPE),)
        head = flows.inner_request("POST", f"{model_path(self.model)}/infer_stream", fields, now)
        self.head = encode_request_head(_padded(head) if flows.options.pad else head)
        self.request = HttpRequest(
            "POST",
            "/ohttp",
            accept=CHUNKED_RESPONSE_MEDIA_TYPE,
            # Of answers that came and were not taken yet, while inputs are being sent.
            max_response_bytes=(max_answer + (1 << 16)) * call.max_in_flight * 2,
            # RFC 10036: what stands between should pass pieces on as they come.
            fields=(("content-type", CHUNKED_REQUEST_MEDIA_TYPE), ("incremental", "?1")),
            relayed=flows.options.connection.relay is not None,
        )

    @property
    def status(self) -> int | None:
        """What the server said to the head, if it did."""
        return None if self._reader.head is None else self._reader.head.status

    def takes(self, item: Input) -> bool:
        """Whether one more record may be sent."""
        return not self.closing and item.at < self._until and self.sent < MAX_RECORDS

    def open(self, piece: Buffer) -> Iterator[Record]:
        """The records that ``piece`` completes. Raises EncapsulationError, BhttpError and OipError."""
        for chunk in self._opener.feed(piece):
            yield from self._read(chunk)

    def end(self) -> Iterator[Record]:
        """As `open`, for the end of the body. Raises EncapsulationError unless the sealed end is there."""
        try:
            final = self._opener.finish()
        except EncapsulationError as error:
            raise EncapsulationError(
                "the stream of answers was cut off: its sealed end is missing"
            ) from error
        yield from self._read(final)
        self._reader.finish()
        self._records.finish()

    def refusal(self) -> bhttp.Response:
        """The whole answer of a server that did not accept the head."""
        assert self._reader.head is not None  # the caller has seen its status
        return bhttp.Response(self._reader.head.status, self._reader.head.fields, bytes(self._refusal))

    def _read(self, chunk: Buffer) -> Iterator[Record]:
        for content in self._reader.feed(chunk):
            if self.status != 200:
                self._refusal += content
                if len(self._refusal) > _MAX_REFUSAL:
                    raise TooLargeError(f"a refusal of the stream has more than {_MAX_REFUSAL} bytes")
                continue
            self._records.feed(content)
            while (record := self._records.next_record()) is not None:
                yield record


class _Stream:
    """Mutable: the inputs that have no answer yet, in order, and the one that was not sent yet."""

    def __init__(self, flows: Flows, call: StreamCall) -> None:
        self._flows = flows
        self._call = call
        self._waiting: deque[inference.Question | ConfonnxError] = deque()
        self._upcoming: Input | None = None
        self._last: Input | None = None  # sent, and still what it was
        self._position = 0
        self._inputs_ended = False

    def run(self) -> StreamFlow[None]:
        fruitless = 0
        while True:
            if self._upcoming is None and not self._inputs_ended:
                self._note((yield from _event(input_wanted=True)))
            if self._upcoming is None:
                return
            exchange = yield from self._begin(self._upcoming.at)
            yield from self._converse(exchange)
            yield CLOSE
            fruitless = 0 if exchange.answered else fruitless + 1
            if fruitless > 1:
                raise ServerError("the server keeps ending the stream before it answers anything", status=503)

    def _begin(self, now: datetime) -> StreamFlow[_Exchange]:
        """A request whose head was accepted; at most one re-attestation and one correction of the date."""
        reattested = date_corrected = False
        while True:
            keys = yield from self._flows.usable_keys(now)
            now = max(now, keys.verified_at)  # waiting for keys took time
            exchange = _Exchange(self._flows, self._call, keys, now)
            yield OpenStream(exchange.request)
            yield SendPiece(exchange.sealer.seal([exchange.head]))
            refused = yield from _head_accepted(exchange)
            if refused is None:
                return exchange
            yield CLOSE
            if isinstance(refused, HttpResponse):
                now = refused.received_at
                _check_refusal(exchange.request, refused)
                if reattested:
                    raise answers.unopened_error()
                reattested = True
                yield from keys_wanted(keys)
            else:
                if not answers.is_date_problem(refused):
                    raise answers.sealed_error(refused, inference=True)
                if date_corrected:
                    raise answers.date_error()
                date_corrected = True
                self._flows.state.clock_offset = clock_offset_by(answers.sealed_date(refused), now)

    def _converse(self, exchange: _Exchange) -> StreamFlow[None]:
        """Sends inputs and gives out answers until either end. What is left to send is `_upcoming`."""
        going = True
        while going:
            yield from self._give_out_errors()
            try:
                sent = yield from self._send_what_there_is(exchange)
            except TransportError:
                if exchange.finished or not self._take_back():
                    raise
                return
            if not sent:
                going = yield from self._receive(exchange)

    def _send_what_there_is(self, exchange: _Exchange) -> StreamFlow[bool]:
        """Whether it was an input, after which there may be room for another."""
        if self._upcoming is not None and exchange.takes(self._upcoming):
            yield from self._send(exchange, self._upcoming)
            return True
        if not exchange.finished and (self._inputs_ended or self._upcoming is not None or exchange.closing):
            exchange.finished = True
            yield SendPiece(exchange.sealer.finish([CONTENT_END]))
            yield EndRequest()
        return False

    def _receive(self, exchange: _Exchange) -> StreamFlow[bool]:
        """Takes what comes next; whether more will."""
        room = len(self._waiting) < self._call.max_in_flight
        try:
            event = yield from _event(input_wanted=room and not exchange.finished)
        except TransportError:
            if self._waiting or exchange.finished:
                raise
            return False  # nothing is lost: what comes next goes to another request
        if not isinstance(event, Arrived):
            self._note(event)
            return True
        if event.pulling:
            self._last = None
        if event.piece is None:
            yield from self._end(exchange)
            return False
        for record in exchange.open(event.piece):
            yield from self._answer(exchange, record)
        return True

    def _end(self, exchange: _Exchange) -> StreamFlow[None]:
        """No more answers come."""
        try:
            records = list(exchange.end())
        except EncapsulationError:
            if self._waiting or exchange.finished:
                raise
            return  # as in `_receive`
        for record in records:
            yield from self._answer(exchange, record)
        yield from self._give_out_errors()
        if exchange.finished and not self._waiting:
            return
        if exchange.finished or not self._take_back():
            left = len(self._waiting)
            text = f"the server ended the stream and left {left} inputs without an answer"
            raise ServerError(text, status=503)

    def _note(self, event: Event) -> None:
        assert isinstance(event, Input | InputsEnded)  # a head that was accepted is not refused later
        self._last = None
        if isinstance(event, Input):
            self._upcoming = event
        else:
            self._inputs_ended = True

    def _send(self, exchange: _Exchange, item: Input) -> StreamFlow[None]:
        position, self._position = self._position, self._position + 1
        self._upcoming = None
        try:
            question = self._flows.state.asker.ask(exchange.model, item.inputs, outputs=self._call.outputs)
            size = sum(map(len, question.body))
            _check_size(size, exchange.max_request)
        except (InvalidInputError, TooLargeError) as error:
            located = type(error)(f"input {position} of the stream: {error}")
            located.__cause__ = error
            self._waiting.append(located)
            self._inputs_ended = self._inputs_ended or not self._call.return_errors
            return
        self._last = item
        self._waiting.append(question.like(()))  # which keeps no tensor
        exchange.sent += 1
        whole = HEAD_SIZE + size
        padding = padme(whole) - whole if self._flows.options.pad else 0
        parts = encode_record(question.body, header_length=question.header_length, padding=padding)
        for chunk in content_chunks(parts, size=CHUNK_BYTES):
            yield SendPiece(exchange.sealer.seal(chunk))

    def _answer(self, exchange: _Exchange, record: Record) -> StreamFlow[None]:
        if record.status == NOTICE:
            exchange.closing = True
            return
        assert record.message is not None  # the reader had no reason to drop it
        if not self._waiting:
            if record.status == 200:
                raise OipError("the server answers an input that it was not sent")
            raise _error(record, record.message)
        question = self._waiting.popleft()
        assert isinstance(question, inference.Question)  # errors are given out as soon as they are first
        exchange.answered += 1
        if record.status == 200:
            yield GiveOut(question.read_message(record.message, header_length=record.header_length))
        else:
            yield from self._fail(_error(record, record.message))
        yield from self._give_out_errors()

    def _give_out_errors(self) -> StreamFlow[None]:
        while self._waiting and isinstance(self._waiting[0], ConfonnxError):
            error = self._waiting.popleft()
            assert isinstance(error, ConfonnxError)
            yield from self._fail(error)

    def _fail(self, error: ConfonnxError) -> StreamFlow[None]:
        if not self._call.return_errors:
            raise error
        yield GiveOut(error)

    def _take_back(self) -> bool:
        """Whether nothing is lost with this request: at most the last input has no answer, and goes again."""
        if not self._waiting:
            return True
        if len(self._waiting) > 1 or self._last is None:
            return False
        self._waiting.clear()
        self._upcoming, self._last = self._last, None
        self._position -= 1
        return True


def _event(*, input_wanted: bool) -> StreamFlow[Event]:
    event = yield AwaitNext(input_wanted)
    assert isinstance(event, Event)
    return event


def _head_accepted(exchange: _Exchange) -> StreamFlow[bhttp.Response | HttpResponse | None]:
    """None once the server goes on; else its whole refusal, sealed or not."""
    while True:
        event = yield from _event(input_wanted=False)
        if isinstance(event, Refused):
            return event.response
        assert isinstance(event, Arrived)  # no input was wanted
        arrived = exchange.end() if event.piece is None else exchange.open(event.piece)
        for _ in arrived:
            raise OipError("the server answers an input that it was not sent")
        if exchange.status == 200:
            return None
        if event.piece is None:
            return exchange.refusal()


def _check_refusal(request: HttpRequest, response: HttpResponse) -> None:
    """Returns where the server could not open the request; else raises what its answer means."""
    if answers.could_not_open(response):
        return
    if response.status == 415:
        raise ServerError(
            "the server takes no streams of predictions; update it, or call predict() for each input",
            status=415,
        )
    answers.check_answer(request, response)
    raise AssertionError("what is accepted is no refusal")


def _error(record: Record, message: Buffer) -> ConfonnxError:
    fields = (("retry-after", str(record.retry_after)),) if record.retry_after else ()
    return answers.sealed_error(bhttp.Response(record.status, fields, bytes(message)), inference=True)


def _check_size(found: int, limit: int) -> None:
    if found > limit:
        raise TooLargeError(
            f"{found} bytes are too many: the server attests to a limit of {limit} bytes; send fewer or "
            "smaller tensors at a time"
        )


def _padded(head: bhttp.Request) -> bhttp.Request:
    """``head`` with a field that brings its encoding to a multiple of 256 bytes."""
    plain = encode_request_head(_with_padding(head, 0))
    missing = -len(plain) % _HEAD_MULTIPLE
    if missing >= 64:  # then the length of the value takes two bytes (RFC 9000 §16)
        missing = missing - 1 if missing > 64 else missing - 1 + _HEAD_MULTIPLE
    return _with_padding(head, missing)


def _with_padding(head: bhttp.Request, size: int) -> bhttp.Request:
    fields = (*head.fields, ("padding", "0" * size))
    return bhttp.Request(head.method, head.scheme, head.authority, head.path, fields)
