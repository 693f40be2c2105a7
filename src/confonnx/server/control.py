"""What the parent of several processes and its workers say to each other.

A message is one packet on a socket pair that the two of them alone hold: a byte that says what it is, then
its content. File descriptors travel beside it (unix(7), SCM_RIGHTS). Nothing of it is on a command line, in
an environment or on a disk, and what carries the key ring's secret is wiped by who sent and who received it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from pathlib import Path

from pydantic import SecretStr

from confonnx.errors import (
    BundleError,
    ConfigurationError,
    ConfonnxError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    TeeError,
)
from confonnx.keys.ring import SECRET_SIZE
from confonnx.server.batch_rules import BatchRule, table
from confonnx.server.settings import Settings

MAX_PACKET = 1 << 17
"""Bytes of a message; more than settings need, and less than a socket takes by default."""
_CLOCK_SIZE = 8

# What ends a start, and may be told to the person who started the server.
START_ERRORS: tuple[type[ConfonnxError], ...] = (
    *(ConfigurationError, BundleError, ModelFormatError, ModelNotFoundError, ModelError, TeeError),
)


class Kind(IntEnum):
    """The first byte of a message; ``←``: the worker sends it, ``→``: the parent."""

    HELLO = 1  # ← its memory is hardened, it may have the secret
    START = 2  # → :class:`Start`
    READY = 3  # ← :class:`Description`
    FAILED = 4  # ← the error that ended its start
    CONNECTION = 5  # → with a client's connection
    ENDED = 6  # ← how many connections ended, in decimal digits
    SCRAPE = 7  # → with a stream, on which the worker writes its metrics
    DRAIN = 8  # →
    STOPPED = 9  # ← "complete" unless requests were cut off


_IN_FILES = frozenset({Kind.READY, Kind.FAILED})
"""Messages that may list thousands of models, so their content travels as a file in memory."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker needs. ``settings`` are its own share; ``secret`` is S(0) of the key ring, whose epoch 0
    began at ``started_at``; ``index`` counts workers from 0.
    """

    index: int
    processes: int
    started_at: datetime
    secret: bytearray = field(repr=False)
    settings: Settings = field(repr=False)

    def encode(self) -> bytearray:
        """The content of the message; who sends it wipes it. Raises ConfigurationError for too many
        settings.
        """
        rest = json.dumps([self.index, self.processes, _plain(self.settings)]).encode()
        if len(rest) > MAX_PACKET // 2:
            raise ConfigurationError(
                f"the settings have {len(rest)} bytes, more than {MAX_PACKET // 2} that several processes "
                "can be given; name fewer models with --batch, or leave --processes out"
            )
        content = bytearray(SECRET_SIZE)
        content[:] = self.secret
        content += int(self.started_at.timestamp()).to_bytes(_CLOCK_SIZE, "big") + rest
        return content

    @classmethod
    def parse(cls, content: bytearray) -> Start:
        """The inverse of :meth:`encode`; wipes ``content``."""
        secret = content[:SECRET_SIZE]
        clock = int.from_bytes(content[SECRET_SIZE : SECRET_SIZE + _CLOCK_SIZE], "big")
        index, processes, settings = json.loads(content[SECRET_SIZE + _CLOCK_SIZE :])
        wipe(content)
        return cls(index, processes, datetime.fromtimestamp(clock, UTC), secret, Settings(**settings))


@dataclass(frozen=True, slots=True)
class Description:
    """What a worker found itself to be; all workers of a server must be the same."""

    tee: str
    measurement: str
    models: tuple[str, ...]
    authentication: tuple[str, ...]

    def encode(self) -> bytes:
        """The content of the message."""
        return json.dumps([self.tee, self.measurement, self.models, self.authentication]).encode()

    @classmethod
    def parse(cls, content: bytearray) -> Description:
        """The inverse of :meth:`encode`."""
        tee, measurement, models, authentication = json.loads(content)
        return cls(tee, measurement, tuple(models), tuple(authentication))


def encode_error(error: ConfonnxError) -> bytes:
    """The content of a ``FAILED`` message; ``error`` is one of :data:`START_ERRORS`."""
    return json.dumps([error.code, str(error)]).encode()


def parse_error(content: bytearray) -> ConfonnxError:
    """The inverse of :func:`encode_error`."""
    code, text = json.loads(content)
    return next((kind for kind in START_ERRORS if kind.code == code), ConfigurationError)(text)


def send(
    control: socket.socket, kind: Kind, content: bytes | bytearray = b"", *, descriptor: int = -1
) -> None:
    """Send a message, with a ``descriptor`` where one is given. Raises OSError."""
    if kind in _IN_FILES:
        with open(os.memfd_create("confonnx-message"), "w+b") as file:
            file.write(content)
            file.seek(0)
            socket.send_fds(control, [bytes([kind])], [file.fileno()])
        return
    descriptors = [descriptor] if descriptor >= 0 else []
    socket.send_fds(control, [bytes([kind]), content], descriptors)


def receive(control: socket.socket) -> tuple[Kind, bytearray, int] | None:
    """The next message and its descriptor (else -1); None where the other side is gone. Raises OSError.

    The content is in a buffer that nothing else has a copy of.
    """
    packet = bytearray(MAX_PACKET)
    try:
        size, ancillary, _, _ = control.recvmsg_into([packet], socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    if size == 0:
        return None
    descriptor = int.from_bytes(ancillary[0][2][:4], sys.byteorder) if ancillary else -1
    kind, content = Kind(packet[0]), packet[1:size]
    packet[:size] = bytes(size)
    if kind in _IN_FILES:
        with open(descriptor, "rb") as file:
            return kind, bytearray(file.read()), -1
    return kind, content, descriptor


def wipe(content: bytearray) -> None:
    """Overwrite ``content`` with zeros."""
    content[:] = bytes(len(content))


def _plain(settings: Settings) -> dict[str, object]:
    """Every field that is not at its default, as what JSON carries and its own parser takes back."""
    return {
        name: _plain_value(value)
        for name, info in Settings.model_fields.items()
        if (value := getattr(settings, name)) != info.default
    }


def _plain_value(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case SecretStr():
            return value.get_secret_value()
        case StrEnum():
            return value.value
        case Path():
            return str(value)
        case (BatchRule(), *_):
            return table(tuple(rule for rule in value if isinstance(rule, BatchRule)))
        case tuple():
            return os.pathsep.join(map(str, value))
        case _:
            return value
