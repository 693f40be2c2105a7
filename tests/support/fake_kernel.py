"""Pseudo-files that are not there: what a test puts at a path, and errors where it wants them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

#: Evidence that binds these 64 bytes.
QuoteMaker: TypeAlias = Callable[[bytes], bytes]


def failure(number: int, path: str) -> OSError:
    """What the kernel raises."""
    return OSError(number, os.strerror(number), path)


def no_wait(seconds: float) -> None:
    """A clock that does not make tests wait."""
    assert seconds > 0


@dataclass
class FakeFiles:
    """``contents`` by path: bytes, or the number of the error that reading gives. An
    ``attest.devices.Files``."""

    contents: dict[str, bytes | int] = field(default_factory=dict)

    def exists(self, path: str) -> bool:
        return path in self.contents

    def read(self, path: str) -> bytes:
        content = self.contents.get(path, errno.ENOENT)
        if isinstance(content, int):
            raise failure(content, path)
        return content

    def write(self, path: str, data: bytes) -> None:
        raise failure(errno.EACCES if path in self.contents else errno.ENOENT, path)

    def make_directory(self, path: str) -> None:
        raise failure(errno.ENOENT, path)

    def remove_directory(self, path: str) -> None:
        raise failure(errno.ENOENT, path)


class FakeGramine(FakeFiles):
    """``/dev/attestation`` of an enclave: one REPORT_DATA for the whole process, and quotes over it.

    Shorter writes are filled with zeros and longer ones are cut, as Gramine does.
    """

    def __init__(self, quote: QuoteMaker, kind: bytes = b"dcap") -> None:
        super().__init__({"/dev/attestation/attestation_type": kind})
        self._quote = quote
        self._report_data = bytes(64)
        self.error: int | None = None  # what reading a quote gives

    def read(self, path: str) -> bytes:
        if path != "/dev/attestation/quote":
            return super().read(path)
        if self.error is not None:
            raise failure(self.error, path)
        return self._quote(self._report_data)

    def write(self, path: str, data: bytes) -> None:
        if path != "/dev/attestation/user_report_data":
            raise failure(errno.EACCES, path)
        self._report_data = data[:64].ljust(64, b"\0")
