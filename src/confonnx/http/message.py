"""The messages of one HTTP/1.1 exchange, without sockets: h11 writes and reads heads and chunks, bodies of
known length go straight where they belong.

An `Answer` is filled the way ``recv_into`` and ``asyncio.BufferedProtocol`` work: it says where the next
bytes go (`Answer.room`) and is told how many came (`Answer.received`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, Final, TypeAlias

import h11

from confonnx.errors import TransportError
from confonnx.http.fields import Fields
from confonnx.http.url import Origin, Proxy, Url

Buffer: TypeAlias = bytes | bytearray | memoryview

_MAX_HEAD_BYTES: Final = 64 * 1024  # of a head, and of a chunk's first line
_SCRATCH_BYTES: Final = 64 * 1024
_JOIN_BYTES: Final = 64 * 1024


class OutOfTimeError(Exception):
    """The deadline of an exchange passed. Whoever asked for it tells so by an error of the one tree."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status and fields of an answer. ``length`` is the body's in bytes; None: it says itself where it ends,
    or ends with the connection. ``keep_alive``: the connection may serve another exchange afterwards.
    """

    status: int
    fields: Fields
    length: int | None
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request for ``url``, ready to go. ``head`` ends with its empty line."""

    method: str
    url: Url
    head: bytes = field(repr=False)  # it may hold credentials
    body: Buffer = field(default=b"", repr=False)

    def octets(self) -> tuple[bytes | memoryview, ...]:
        """What to write, in as few writes as are worth a copy."""
        if len(self.body) <= _JOIN_BYTES:
            return (b"".join((self.head, self.body)),)
        return (self.head, memoryview(self.body))


class Sink(ABC):
    """Takes the body of an answer. What its methods raise ends the exchange. Mutable."""

    duplex: ClassVar[bool] = False
    """Whether the request may go on while this body comes. Otherwise an answer ends its request."""

    held = 0
    """Bytes that wait in it to be taken."""

    @abstractmethod
    def feed(self, piece: bytes) -> None:
        """The next bytes of the body."""

    def room(self) -> memoryview | None:
        """Where the next bytes of a body of known length go; None: `feed` takes them."""
        return None

    def filled(self, count: int) -> None:
        """``count`` bytes are in what `room` gave."""
        raise AssertionError("there is no room")


#: Makes the sink when the head is there; None: the body is not wanted.
OpenBody: TypeAlias = Callable[[Head], Sink | None]


class Inlet:
    """What a connection keeps for reading, from one answer to the next. Mutable.

    The head that came last is kept with what it means: answers of one server differ in their ``date`` at
    most, so the same bytes are seldom parsed twice.
    """

    __slots__ = ("head", "octets", "scratch")

    def __init__(self) -> None:
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self.octets = b""
        self.head: Head | None = None


class Answer:
    """The answer to one request, as it comes. Mutable.

    ``complete``: no more of it is wanted. ``began``: the peer sent at least a byte. Interim answers (RFC 9110
    §15.2) are skipped.
    """

    __slots__ = (
        "_closed",
        "_direct",
        "_inlet",
        "_method",
        "_missing",
        "_open_body",
        "_parser",
        "_rest",
        "_sink",
        "_surplus",
        "began",
        "complete",
        "head",
    )

    def __init__(self, method: str, inlet: Inlet, open_body: OpenBody) -> None:
        self.head: Head | None = None
        self.began = False
        self.complete = False
        self._method = method
        self._inlet = inlet
        self._open_body = open_body
        self._parser: h11.Connection | None = None
        self._sink: Sink | None = None
        self._missing = 0  # bytes of a body of known length
        self._direct = False  # what comes next goes into the sink's own room
        self._rest = False  # there was something after the head in the same read
        self._surplus = False  # there was more than an answer
        self._closed = False

    @property
    def ends_request(self) -> bool:
        """Whether nobody reads what is still unsent of the request."""
        return self.complete or (self._sink is not None and not self._sink.duplex)

    @property
    def held(self) -> int:
        """Bytes that came and that nobody has taken out of the sink."""
        return 0 if self._sink is None else self._sink.held

    @property
    def tunnels(self) -> bool:
        """Whether nothing came after the head."""
        return self.complete and not self._rest

    @property
    def reusable(self) -> bool:
        """Whether the connection is at the beginning of another answer, if the request was sent
        completely."""
        return (
            self.complete
            and self.head is not None
            and self.head.keep_alive
            and not (self._missing or self._surplus or self._closed)
        )

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        room = None
        if self._missing and self._sink is not None:
            room = self._sink.room()
        self._direct = room is not None
        return self._inlet.scratch if room is None else room[: self._missing]

    def received(self, count: int) -> None:
        """``count`` bytes came into the last `room`; 0: the peer closed. Raises TransportError for what is no
        answer or breaks off, and what the sink raises.
        """
        if count:
            self.began = True
        else:
            self._closed = True
        if self._direct:
            self._fill(count)
            return
        data = bytes(self._inlet.scratch[:count])
        if self.head is None:
            self._read_head(data)
        elif self._missing:
            self._take(data)
        else:
            self._read_events(data)

    def _fill(self, count: int) -> None:
        assert self._sink is not None  # it gave the room
        self._broke_off_if(count == 0)
        self._sink.filled(count)
        self._missing -= count
        self.complete = self._missing == 0

    def _read_head(self, data: bytes) -> None:
        inlet = self._inlet
        if self._parser is None and inlet.head is not None and data.startswith(inlet.octets):
            self._begin(inlet.head, data[len(inlet.octets) :])
            return
        first = self._parser is None
        parser = self._parser = self._parser or _parser(self._method)
        parser.receive_data(data)
        event = self._next_event(parser)
        while type(event) is h11.InformationalResponse:
            first = False
            event = self._next_event(parser)
        if event is h11.NEED_DATA:
            return
        assert type(event) is h11.Response  # what else comes first is an error
        rest, _ = parser.trailing_data
        head = _head(parser, event)
        if first and head.length is not None:  # its meaning depends on these bytes alone
            inlet.octets, inlet.head = data[: len(data) - len(rest)], head
        self._begin(head, rest)

    def _begin(self, head: Head, rest: bytes) -> None:
        self.head = head
        self._rest = bool(rest)
        self._sink = self._open_body(head)
        if self._sink is None:
            self._missing = 0 if head.length == len(rest) else 1  # a body that nobody reads stays in the way
            self.complete = True
        elif head.length is None:
            self._read_events(None)
        else:
            self._missing = head.length
            self.complete = head.length == 0
            self._surplus = self.complete and bool(rest)
            if rest and not self.complete:
                self._take(rest)

    def _take(self, data: bytes) -> None:
        assert self._sink is not None
        self._broke_off_if(not data)
        self._surplus = len(data) > self._missing
        piece = data[: self._missing]
        self._missing -= len(piece)
        self._sink.feed(piece)
        self.complete = self._missing == 0

    def _read_events(self, data: bytes | None) -> None:
        assert self._parser is not None
        assert self._sink is not None
        if data is not None:
            self._parser.receive_data(data)
        while True:
            event = self._next_event(self._parser)
            if type(event) is h11.Data:
                self._sink.feed(bytes(event.data))
            elif type(event) is h11.EndOfMessage:
                self._surplus = bool(self._parser.trailing_data[0])
                self.complete = True
                return
            else:
                return

    def _next_event(self, parser: h11.Connection) -> object:
        try:
            return parser.next_event()
        except h11.RemoteProtocolError as error:
            # Its text quotes what came, and anyone on the path can write that.
            what = "it was closed before the answer ended" if self._closed else "what came is no HTTP answer"
            raise TransportError(f"the connection failed: {what}") from error

    def _broke_off_if(self, closed: bool) -> None:
        if closed:
            raise TransportError(
                f"the connection failed: it was closed before the last {self._missing} bytes of the answer"
            )


def request_head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """The lines of a request's head, to which the one about the body and the empty line are to be added.

    Raises ValueError for what cannot be sent.
    """
    try:
        request = h11.Request(
            method=method,
            target=target,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
        )
        octets = h11.Connection(h11.CLIENT).send(request)
    except h11.LocalProtocolError:  # its text quotes what may be a credential
        raise ValueError(f"a {method} request has a target or a field that HTTP does not allow") from None
    assert octets is not None
    return octets.removesuffix(b"\r\n")


def may_repeat(request: Outgoing, answer: Answer, *, sent: bool) -> bool:
    """Whether ``request``, of which all was ``sent`` or not, may go out again on another connection after it
    failed on a kept one, which the peer may close at the moment when it is used.

    No answer must have begun, and the request be safe, or not processed since its end is missing (RFC 9110
    §9.2.2): servers refuse what is sealed and comes again.
    """
    return not answer.began and (request.method == "GET" or not sent)


def tunnel_request(origin: Origin, proxy: Proxy) -> bytes:
    """The head that asks ``proxy`` for a tunnel to ``origin`` (RFC 9110 §9.3.6)."""
    fields = [("host", origin.with_port), ("user-agent", "confonnx")]
    if proxy.authorization is not None:
        fields.append(("proxy-authorization", proxy.authorization))
    return request_head("CONNECT", origin.with_port, fields) + b"\r\n"


def check_tunnel(answer: Answer) -> None:
    """Raises TransportError unless the proxy opened the tunnel, and left the first word in it to us."""
    assert answer.head is not None  # it is complete
    if not 200 <= answer.head.status < 300:
        raise TransportError(
            f"cannot connect: the proxy answered CONNECT with status {answer.head.status}, expected 200"
        )
    if not answer.tunnels:
        raise TransportError("cannot connect: the proxy sent more than its answer to CONNECT")


def chunk(data: Buffer) -> tuple[bytes | memoryview, ...]:
    """What to write for a chunk of ``data``, which is not empty (RFC 9112 §7.1)."""
    line = b"%x\r\n" % len(data)
    if len(data) <= _JOIN_BYTES:
        return (b"".join((line, data, b"\r\n")),)
    return (line, memoryview(data), b"\r\n")


LAST_CHUNK: Final = b"0\r\n\r\n"


def _parser(method: str) -> h11.Connection:
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    parser.send(_request(method))  # what an answer means depends on the method (RFC 9112 §6.3)
    parser.send(h11.EndOfMessage())
    return parser


@lru_cache(maxsize=8)
def _request(method: str) -> h11.Request:
    return h11.Request(method=method, target="/", headers=[("host", "-")])


def _head(parser: h11.Connection, response: h11.Response) -> Head:
    fields = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
    keep_alive = parser.our_state is h11.DONE  # h11 knows `connection: close` and HTTP/1.0
    return Head(response.status_code, fields, _length(response.status_code, dict(fields)), keep_alive)


def _length(status: int, fields: dict[str, str]) -> int | None:
    """RFC 9112 §6.3; h11 has refused lengths that are no number or contradict each other."""
    if status in (204, 304):
        return 0
    if "transfer-encoding" in fields or "content-length" not in fields:
        return None
    return int(fields["content-length"])
