"""The one place that cuts bytes into fields: every read is checked against the end, and every error names the
field."""

from __future__ import annotations

from typing import Final, Literal

from confonnx.errors import EvidenceFormatError


class Reader:
    """A cursor over hostile bytes. ``what`` names the structure in errors; ``order`` is its byte order.

    Every method raises :class:`EvidenceFormatError` instead of reading past the end, so no length field can
    make it allocate more than the input has.
    """

    __slots__ = ("_data", "_order", "_position", "_what")

    def __init__(self, data: bytes, what: str, order: Literal["little", "big"] = "little") -> None:
        self._data: Final = data
        self._what: Final = what
        self._order: Final[Literal["little", "big"]] = order
        self._position = 0

    @property
    def position(self) -> int:
        """Offset of the next byte."""
        return self._position

    @property
    def remaining(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._position

    def take(self, size: int, field: str) -> bytes:
        """The next ``size`` bytes."""
        if size > self.remaining:
            raise EvidenceFormatError(
                f"{self._what}: {field} needs {size} bytes at offset {self._position}, "
                f"but only {self.remaining} are left"
            )
        start = self._position
        self._position += size
        return self._data[start : self._position]

    def integer(self, size: int, field: str) -> int:
        """The next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size, field), self._order)

    def u8(self, field: str) -> int:
        """One byte."""
        return self.integer(1, field)

    def u16(self, field: str) -> int:
        """Two bytes."""
        return self.integer(2, field)

    def u32(self, field: str) -> int:
        """Four bytes."""
        return self.integer(4, field)

    def u64(self, field: str) -> int:
        """Eight bytes."""
        return self.integer(8, field)

    def sized(self, prefix: int, field: str) -> bytes:
        """Bytes that follow their own length, an unsigned number of ``prefix`` bytes."""
        return self.take(self.integer(prefix, f"the length of {field}"), field)

    def zeros(self, size: int, field: str) -> None:
        """``size`` bytes that must be zero."""
        start = self._position
        if any(self.take(size, field)):
            raise EvidenceFormatError(f"{self._what}: {field} at offset {start} must be zero")

    def padded(self, size: int, zeros: int, field: str) -> bytes:
        """The next ``size`` bytes, and then ``zeros`` reserved ones that must be zero."""
        value = self.take(size, field)
        self.zeros(zeros, f"reserved field after {field}")
        return value

    def expect(self, found: int, allowed: frozenset[int], field: str) -> int:
        """``found``, which must be one of ``allowed``."""
        if found not in allowed:
            raise EvidenceFormatError(
                f"{self._what}: {field} is {found:#x}, expected one of {sorted(allowed)}"
            )
        return found

    def end(self) -> None:
        """Nothing may be left."""
        if self.remaining:
            raise EvidenceFormatError(
                f"{self._what}: {self.remaining} unexpected bytes after the end at offset {self._position}"
            )
