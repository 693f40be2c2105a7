"""The kernel's interfaces as Attesters see them: pseudo-files, ioctls, and how their errors are told.

Both are parameters of the Attesters, because no test machine has the devices: tests put in fakes that fail,
block and race as the kernel's documentation says. Nothing here is imported by a client, and importing it
needs no Linux.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from confonnx.errors import TeeError

_MAX_FILE_BYTES: Final = 4 * 1024 * 1024
_READ_BYTES: Final = 64 * 1024
# How often, and how many seconds apart, a busy device is asked again: some 3 seconds in all.
PAUSES: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)

#: Waits for so many seconds; a parameter, so that tests need not.
Wait: TypeAlias = Callable[[float], None]

#: ``ioctl(device, request, argument)``: the kernel may change ``argument``, also when it raises ``OSError``.
Ioctl: TypeAlias = Callable[[str, int, bytearray], None]


class Files(Protocol):
    """Pseudo-files. Every method but ``exists`` raises ``OSError``."""

    def exists(self, path: str) -> bool:
        """Whether there is something at ``path``."""
        ...

    def read(self, path: str) -> bytes:
        """All of the file."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write ``data`` in one call to a file that is there."""
        ...

    def make_directory(self, path: str) -> None:
        """Make one directory that is not there."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove it."""
        ...


class KernelFiles:
    """The real ones."""

    def exists(self, path: str) -> bool:
        """See :class:`Files`."""
        return os.path.lexists(path)

    def read(self, path: str) -> bytes:
        """See :class:`Files`. A pseudo-file's size is not known before, and one read may give only a part."""
        content = bytearray()
        with _opened(path, os.O_RDONLY) as descriptor:
            while piece := os.read(descriptor, _READ_BYTES):
                content += piece
                if len(content) > _MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return bytes(content)

    def write(self, path: str, data: bytes) -> None:
        """See :class:`Files`. Never makes the file: a regular one in the place of a device would take the
        data and prove nothing."""
        with _opened(path, os.O_WRONLY) as descriptor:
            written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.EIO, f"took {written} of {len(data)} bytes", path)

    def make_directory(self, path: str) -> None:
        """See :class:`Files`."""
        os.mkdir(path, 0o700)

    def remove_directory(self, path: str) -> None:
        """See :class:`Files`."""
        os.rmdir(path)


def kernel_ioctl(device: str, request: int, argument: bytearray) -> None:
    """The real ioctl. Raises ``OSError``."""
    import fcntl  # not on Windows, where the rest of the server runs

    with _opened(device, os.O_RDWR) as descriptor:
        fcntl.ioctl(descriptor, request, argument, True)


@contextmanager
def device_errors(what: str, hint: str = "") -> Iterator[None]:
    """Raises ``TeeError`` for an ``OSError``: ``what`` failed, how, and what to do about it."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "no error number")
        advice = hint or _ADVICE.get(error.errno or 0, "")
        raise TeeError(
            f"{what}: {error.strerror or error} ({name}){'; ' if advice else ''}{advice}"
        ) from error


_PRIVILEGES: Final = "the server needs the privilege to use it; see docs/how-to/run-in-a-tee.md"
_ADVICE: Final = {errno.EACCES: _PRIVILEGES, errno.EPERM: _PRIVILEGES, errno.EROFS: _PRIVILEGES}


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)
