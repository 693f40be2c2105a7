"""Records: inference messages one after another in one stream (docs/spec/streams.md §3).

::

    record = status (2) ‖ retry_after (2) ‖ header_length (4) ‖ size (8) ‖ padding_size (8)
             ‖ message (size) ‖ padding (padding_size zero bytes)

A message is assembled in one buffer of the announced size, so that a large tensor is held once, and lies
aligned for numpy wherever the bytes were cut on the way.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from confonnx.errors import OipError, TooLargeError
from confonnx.oip.datatypes import Buffer

RECORDS_MEDIA_TYPE = "application/vnd.confonnx.records"

MAX_RECORDS = 1 << 20
"""Records of one request."""

CHUNK_BYTES = 1 << 17
"""Bytes of a record that are sealed in one go: large enough for the cipher's full speed, small enough to
stay in a processor's cache."""

HEAD_SIZE = 24
"""Bytes of a record before its message."""

NOTICE = 100
"""Status of a record that answers nothing: its sender will soon end the stream."""

_HEAD = struct.Struct(">HHIQQ")
_MAX_PADDING_SHIFT = 3
_ALWAYS_PADDING = 256
_ZEROS = bytes(1 << 16)
_LARGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``status`` is 0 in a request, an HTTP status in an answer; ``retry_after`` is in seconds.

    ``header_length`` is the size of the JSON where a binary part follows it, else ``None``. ``message`` is
    ``None`` where the receiver had no room for its ``size`` bytes.
    """

    status: int
    retry_after: int
    header_length: int | None
    size: int
    message: bytearray | memoryview | None = field(repr=False)


def encode_record(
    parts: tuple[Buffer, ...],
    *,
    header_length: int | None = None,
    status: int = 0,
    retry_after: int = 0,
    padding: int = 0,
) -> list[Buffer]:
    """The record of the message that ``parts`` make together, which are not copied, and of ``padding`` zeros.

    Raises ``struct.error`` for numbers that do not fit.
    """
    size = sum(map(len, parts))
    head = _HEAD.pack(status, retry_after, header_length or 0, size, padding)
    whole, rest = divmod(padding, len(_ZEROS))
    return [head, *parts, *([_ZEROS] * whole), *((_ZEROS[:rest],) if rest else ())]


def room_for(size: int) -> bytearray | memoryview:
    """A buffer for a message of ``size`` bytes, whose content is undefined.

    That of numpy is not filled with zeros first, and comes in large pages where the system has them: half the
    time that a large tensor costs is the making of its memory.
    """
    return bytearray(size) if size < _LARGE else np.empty(size, np.uint8).data


class RecordReader:
    """Takes a stream of records in pieces, cut anywhere. Mutable: the record that is on its way.

    After an error it must not be used again: where the next record begins is not known.
    """

    def __init__(
        self,
        *,
        max_size: int,
        allocate: Callable[[int], bytearray | memoryview | None] = room_for,
        answers: bool,
    ) -> None:
        """``max_size``: bytes of one message. ``allocate`` gives the buffer for a message, once its size is
        known and below that; where it gives ``None``, the message is read and dropped. ``answers``: whether
        records have a status.
        """
        self._max_size = max_size
        self._allocate = allocate
        self._answers = answers
        self._pending: deque[memoryview] = deque()
        self._head = bytearray()
        self._record: Record | None = None
        self._message_left = 0
        self._padding_left = 0

    @property
    def inside(self) -> bool:
        """Whether a record has begun that is not complete."""
        return self._record is not None or bool(self._head)

    def feed(self, piece: Buffer) -> None:
        """Take ``piece``, which is not copied before :meth:`next_record` comes to it."""
        if len(piece):
            self._pending.append(memoryview(piece))

    def next_record(self) -> Record | None:
        """The next record if all of it is there; else ``None``, and everything was taken.

        Raises OipError for a record that breaks the rules, TooLargeError for one over ``max_size``, and what
        ``allocate`` raises.
        """
        while True:
            if self._record is not None and not self._message_left and not self._padding_left:
                record, self._record = self._record, None
                return record
            if not self._pending:
                return None
            if self._record is None:
                self._take_head()
            elif self._message_left:
                self._take_message(self._record)
            else:
                _check_zeros(self._take(self._padding_left))

    def finish(self) -> None:
        """No more bytes come. Raises OipError in the middle of a record."""
        if self.inside or self._pending:
            raise OipError("the stream ends in the middle of a record")

    def _take_head(self) -> None:
        piece = self._pending.popleft()
        missing = HEAD_SIZE - len(self._head)
        self._head += piece[:missing]
        if len(piece) > missing:
            self._pending.appendleft(piece[missing:])
        if len(self._head) == HEAD_SIZE:
            self._begin(*_HEAD.unpack(self._head))
            self._head.clear()

    def _begin(self, status: int, retry_after: int, header_length: int, size: int, padding: int) -> None:
        self._check_status(status, retry_after, size)
        if size > self._max_size:
            raise TooLargeError(f"a record has {size} bytes, at most {self._max_size} are allowed")
        if header_length > size:
            raise OipError(f"a record of {size} bytes says that its JSON has {header_length}")
        if padding > (size >> _MAX_PADDING_SHIFT) + _ALWAYS_PADDING:
            raise OipError(f"a record of {size} bytes has {padding} bytes of padding")
        message = self._allocate(size)
        self._record = Record(status, retry_after, header_length or None, size, message)
        self._message_left, self._padding_left = size, padding

    def _check_status(self, status: int, retry_after: int, size: int) -> None:
        if not self._answers and (status or retry_after):
            raise OipError("a record of a request has a status, which only answers have")
        if self._answers and status != NOTICE and not 200 <= status <= 599:
            raise OipError(f"the status of an answer is {NOTICE}, or 200..599, not {status}")
        if (size == 0) != (status == NOTICE):
            raise OipError(f"a record with status {status} has {size} bytes")

    def _take_message(self, record: Record) -> None:
        start = record.size - self._message_left
        piece = self._take(self._message_left)
        if record.message is not None:
            record.message[start : start + len(piece)] = piece

    def _take(self, most: int) -> memoryview:
        """Up to ``most`` bytes of the message, or of the padding behind it."""
        piece = self._pending.popleft()
        if len(piece) > most:
            self._pending.appendleft(piece[most:])
            piece = piece[:most]
        if self._message_left:
            self._message_left -= len(piece)
        else:
            self._padding_left -= len(piece)
        return piece


def _check_zeros(padding: memoryview) -> None:
    if bytes(padding).strip(b"\0"):
        raise OipError("the padding of a record has bytes other than zero")
