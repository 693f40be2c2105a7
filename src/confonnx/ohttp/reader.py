"""The one place where offsets into received bytes are computed and checked."""

from __future__ import annotations

from typing import TypeAlias

from confonnx.errors import ProtocolError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes. A ``memoryview`` must have format ``B`` (one byte an item)."""

MAX_VARINT = (1 << 62) - 1
"""Largest value of a variable-length integer (RFC 9000 §16)."""

_ZEROS = bytes(1 << 16)


class Reader:
    """Reads integers and byte strings from the front of a buffer and never past its end.

    It is the mutable state of one parse. Every error is ``error``, names the field that was read, and holds
    lengths only: the bytes may have come out of a seal.
    """

    __slots__ = ("_data", "_end", "_error", "_pos")

    def __init__(self, data: Buffer, error: type[ProtocolError]) -> None:
        self._data = memoryview(data).toreadonly()
        self._pos = 0
        self._end = len(data)
        self._error = error

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self._pos

    def take(self, size: int, what: str) -> memoryview:
        """The next ``size`` bytes, not copied."""
        start = self._pos
        end = start + size
        if end > self._end:
            raise self._error(f"{what} is truncated: needs {size} bytes, {self._end - start} are left")
        self._pos = end
        return self._data[start:end]

    def only_zeros(self) -> bool:
        """Whether no byte but zero is left."""
        return only_zeros(self._data[self._pos :])

    def u8(self, what: str) -> int:
        """One byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Two bytes, big endian."""
        return int.from_bytes(self.take(2, what), "big")

    def varint(self, what: str) -> int:
        """A variable-length integer (RFC 9000 §16).

        Longer encodings than needed are allowed (RFC 9292 §3).
        """
        start = self._pos
        if start >= self._end:
            raise self._error(f"{what} is missing: the message ends before it")
        first = self._data[start]
        if first < 0x40:  # one byte, by far the most frequent
            self._pos = start + 1
            return first
        size = 1 << (first >> 6)
        return int.from_bytes(self.take(size, what), "big") & ((1 << (8 * size - 2)) - 1)

    def text(self, what: str, limit: int) -> str:
        """A string after its length (varint), at most ``limit`` bytes, decoded byte for byte (Latin-1)."""
        size = self.varint(what)
        if size > limit:
            raise self._error(f"{what} has {size} bytes, the limit is {limit}")
        start = self._pos  # take(), inlined: a small message is mostly strings
        end = start + size
        if end > self._end:
            raise self._error(f"{what} is truncated: needs {size} bytes, {self._end - start} are left")
        self._pos = end
        return str(self._data[start:end], "latin-1")


def only_zeros(view: memoryview) -> bool:
    """Whether ``view`` has no byte but zero."""
    if len(view) <= len(_ZEROS):  # the padding of most messages
        return bytes(view) == _ZEROS[: len(view)]
    for start in range(0, len(view), len(_ZEROS)):
        block = bytes(view[start : start + len(_ZEROS)])
        if block != _ZEROS[: len(block)]:
            return False
    return True


def encode_varint(value: int) -> bytes:
    """``value`` as the shortest variable-length integer (RFC 9000 §16).

    Raises ``ValueError`` outside 0 … 2^62-1.
    """
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"a variable-length integer is in 0..{MAX_VARINT}, not {value}")
    if value < 1 << 6:
        return value.to_bytes(1, "big")
    if value < 1 << 14:
        return (value | 1 << 14).to_bytes(2, "big")
    if value < 1 << 30:
        return (value | 2 << 30).to_bytes(4, "big")
    return (value | 3 << 62).to_bytes(8, "big")
