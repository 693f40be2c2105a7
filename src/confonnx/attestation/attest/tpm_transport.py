"""How commands reach a TPM: through a device of the kernel, or over TCP to ``swtpm``.

Addresses are spelled as tpm2-tools spell them: ``device:/dev/tpmrm0``, or just the path, and
``swtpm:host=127.0.0.1,port=2321``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final, Protocol, TypeAlias

from confonnx.attestation.attest.devices import device_errors
from confonnx.errors import ConfigurationError, TeeError

DEFAULT_DEVICE: Final = "/dev/tpmrm0"
MAX_RESPONSE_BYTES: Final = 4096

_SWTPM = re.compile(r"swtpm:host=(?P<host>[^,=\s]+),port=(?P<port>\d{1,5})")
_HEADER_SIZE: Final = 10  # tag 2, size 4, code 4 (TPM 2.0 part 1, §18)
_TIMEOUT_SECONDS: Final = 30.0  # a TPM makes an RSA key in some seconds


class Transport(Protocol):
    """An open TPM."""

    def transmit(self, command: bytes) -> bytes:
        """The response to ``command``. Raises ``OSError`` or ``TeeError``."""
        ...


#: Opens a TPM for a few commands. The kernel's ``tpmrm`` devices forget what they loaded when it ends.
Connect: TypeAlias = Callable[[], AbstractContextManager[Transport]]


def parse_address(address: str) -> Connect:
    """How to open the TPM at ``address``; nothing is opened yet. Raises ``ConfigurationError``."""
    match = _SWTPM.fullmatch(address)
    if match is not None and 0 < int(match["port"]) < 65536:
        return partial(_open_swtpm, match["host"], int(match["port"]))
    path = address.removeprefix("device:")
    if not path.startswith("/"):
        raise ConfigurationError(
            f"the address of a TPM is {DEFAULT_DEVICE} or another device's path, or "
            f"swtpm:host=127.0.0.1,port=2321; found {address!r}"
        )
    return partial(_open_device, path)


@contextmanager
def _open_device(path: str) -> Iterator[Transport]:
    with device_errors(f"TPM {path}"):
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            yield _Device(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _open_swtpm(host: str, port: int) -> Iterator[Transport]:
    with (
        device_errors(f"swtpm at {host}:{port}"),
        socket.create_connection((host, port), _TIMEOUT_SECONDS) as connection,
    ):
        yield _Stream(connection)


class _Device:
    """One write is a command, one read is its response (Linux, drivers/char/tpm/tpm-dev-common.c)."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def transmit(self, command: bytes) -> bytes:
        os.write(self._descriptor, command)
        return os.read(self._descriptor, MAX_RESPONSE_BYTES)


class _Stream:
    """Commands and responses say their sizes themselves."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def transmit(self, command: bytes) -> bytes:
        self._connection.sendall(command)
        head = self._receive(_HEADER_SIZE)
        size = int.from_bytes(head[2:6], "big")
        if not _HEADER_SIZE <= size <= MAX_RESPONSE_BYTES:
            raise TeeError(
                f"the TPM announces a response of {size} bytes, at most {MAX_RESPONSE_BYTES} allowed"
            )
        return head + self._receive(size - _HEADER_SIZE)

    def _receive(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            piece = self._connection.recv(size - len(received))
            if not piece:
                raise TeeError(f"the TPM closed the connection after {len(received)} of {size} bytes")
            received += piece
        return received
