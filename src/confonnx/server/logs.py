"""The log: a closed set of events, each with typed fields, as JSON lines or text on standard error.

Nothing else can be logged, so nothing that was sealed can be: no field holds bytes, an exception's text or
anything that a client chose, except the outer request id, which is host-visible anyway and has a narrow
alphabet.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import ClassVar, TextIO

import structlog


class LogLevel(StrEnum):
    """From which severity on events are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How events are written."""

    JSON = "json"
    TEXT = "text"


_SEVERITY = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The server answers. ``models`` are ``name/version sha256:digest``."""

    event: ClassVar = "ready"
    level: ClassVar = LogLevel.INFO
    url: str
    port: int
    metrics_port: int | None
    tee: str
    measurement: str
    models: tuple[str, ...]
    authentication: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprotected:
    """No TEE: what runs here is protected from nobody."""

    event: ClassVar = "no protection: the TEE is simulated"
    level: ClassVar = LogLevel.WARNING
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsWarning:
    """An option or variable that does not do what its user may expect."""

    event: ClassVar = "settings"
    level: ClassVar = LogLevel.WARNING
    warning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HardeningFailed:
    """A measure that keeps memory from leaving the process could not be taken."""

    event: ClassVar = "hardening failed"
    level: ClassVar = LogLevel.WARNING
    measure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswered:
    """An outer request, by route and outer status: what the host sees anyway."""

    event: ClassVar = "request"
    level: ClassVar = LogLevel.DEBUG
    request_id: str
    route: str
    status: int
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused:
    """As :class:`RequestAnswered`, for an outer status of 400 or more."""

    event: ClassVar = "request refused"
    level: ClassVar = LogLevel.INFO
    request_id: str
    route: str
    status: int
    milliseconds: int


class StreamEnding(StrEnum):
    """How a stream of predictions ended."""

    COMPLETE = "complete"  # both sealed ends came
    CLOSED = "closed"  # the server ended it
    REFUSED = "refused"  # by a sealed answer to its head
    UNOPENED = "unopened"
    BROKEN = "broken"  # cut, changed, or the client went away


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """A stream of predictions, of which the host can count the chunks anyway. ``ending``: `StreamEnding`."""

    event: ClassVar = "stream"
    level: ClassVar = LogLevel.DEBUG
    request_id: str
    ending: str
    predictions: int
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError:
    """A defect of ours. ``exception`` is a class name, ``frames`` are ``file:line``: no text, no values."""

    event: ClassVar = "internal error"
    level: ClassVar = LogLevel.ERROR
    error_id: str
    exception: str
    frames: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundError:
    """A defect of ours outside any request. ``exception`` is a class name."""

    event: ClassVar = "background error"
    level: ClassVar = LogLevel.ERROR
    exception: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRollover:
    """A new key epoch began."""

    event: ClassVar = "key rollover"
    level: ClassVar = LogLevel.INFO
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFailed:
    """There is no evidence. ``reason`` is the device's or the key ring's, and holds nothing of a request."""

    event: ClassVar = "no evidence"
    level: ClassVar = LogLevel.ERROR
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded:
    """One of several processes ended on its own, so the server ends. ``status`` as subprocess says it: below
    zero it is a signal's number.
    """

    event: ClassVar = "worker ended"
    level: ClassVar = LogLevel.ERROR
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """The server was told to stop; it finishes what it has."""

    event: ClassVar = "draining"
    level: ClassVar = LogLevel.INFO
    connections: int
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The server has ended; ``complete`` unless requests were cut off."""

    event: ClassVar = "stopped"
    level: ClassVar = LogLevel.INFO
    complete: bool


Event = (
    Ready
    | Unprotected
    | SettingsWarning
    | HardeningFailed
    | RequestAnswered
    | RequestRefused
    | StreamEnded
    | InternalError
    | BackgroundError
    | KeyRollover
    | EvidenceFailed
    | WorkerEnded
    | Draining
    | Stopped
)


class Log:
    """Writes events. Keeps no global state, so that two servers in one process do not share a log."""

    def __init__(self, *, form: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
        """``stream`` defaults to standard error."""
        target = sys.stderr if stream is None else stream
        renderer: structlog.typing.Processor = (
            structlog.processors.JSONRenderer()
            if form is LogFormat.JSON
            else structlog.dev.ConsoleRenderer(colors=target.isatty())
        )
        self._threshold = _SEVERITY[level]
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(target),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                renderer,
            ],
            wrapper_class=structlog.BoundLogger,
        )

    def writes(self, level: LogLevel) -> bool:
        """Whether events of ``level`` are written, for whoever would make many that are not."""
        return _SEVERITY[level] >= self._threshold

    def emit(self, event: Event) -> None:
        """Write ``event``, if its level is high enough."""
        if not self.writes(event.level):
            return
        values = {item.name: getattr(event, item.name) for item in fields(event)}
        getattr(self._logger, event.level.value)(event.event, **values)
