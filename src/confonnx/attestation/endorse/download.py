"""HTTP to the vendors' services: the only place where the verifying side of attestation touches a network.

As everywhere in the client: no redirect is followed, the environment (``HTTPS_PROXY``, ``.netrc``) is not
read, bodies have limits and calls have deadlines. No credentials are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from time import monotonic, sleep
from typing import Final

from confonnx.attestation.endorse.exchange import MALFORMED, MISSING, Answer, Request
from confonnx.errors import (
    EndorsementError,
    OverloadedError,
    TooLargeError,
    TransportError,
)
from confonnx.http.blocking import Pool
from confonnx.http.fields import field_value
from confonnx.http.message import Head, Outgoing, OutOfTimeError, Sink, request_head
from confonnx.http.route import Route, system_tls
from confonnx.http.url import parse_proxy, parse_url

_OK: Final = 200
# KDS lets one address ask a few times a minute (AMD 57230): it says 429 and how long to wait.
_BUSY: Final = frozenset({429, 503})
_MISSING: Final = frozenset({400, 404, 410})
_DEFAULT_RETRY: Final = 10  # seconds, where a busy service does not say
_LONGEST_WAIT: Final = 30  # seconds; a longer Retry-After is the caller's to wait for


class Downloader:
    """Gets documents, each over a connection of its own. Many threads may use it."""

    def __init__(
        self,
        *,
        ca_file: str | PathLike[str] | None = None,
        proxy: str | None = None,
        wait: Callable[[float], None] = sleep,
    ) -> None:
        """``ca_file`` holds certificate authorities (PEM) beside the system's, for a PCCS with its own.

        Opens nothing yet. Raises ConfigurationError for a file or proxy that cannot be used.
        """
        self._wait = wait
        self._route = Route(system_tls(ca_file), None if proxy is None else parse_proxy(proxy))
        self._pool = Pool(self._route)

    def get(self, request: Request, *, deadline: float | None) -> Answer:
        """The document, by ``deadline`` on the monotonic clock (None: whenever it comes).

        A service that is busy is asked once more, if it says when and there is time. Raises
        EndorsementError (``endorse.missing``, ``endorse.malformed``), OverloadedError, TooLargeError and
        TransportError.
        """
        try:
            return self._get(request, deadline)
        except OverloadedError as error:
            left = None if deadline is None else deadline - monotonic()
            if error.retry_after > _LONGEST_WAIT or (left is not None and error.retry_after >= left):
                raise
            self._wait(error.retry_after)
            return self._get(request, deadline)

    def close(self) -> None:
        """Closes the connections."""
        self._pool.close()

    def _get(self, request: Request, deadline: float | None) -> Answer:
        download = _Download(request)
        try:
            self._pool.exchange(self._outgoing(request), download.open, deadline=deadline)
        except OutOfTimeError as error:
            raise TransportError(f"{request.what}: {request.url} did not answer in time") from error
        except (TransportError, ValueError) as error:  # the latter: no URL
            raise TransportError(f"{request.what}: cannot get {request.url}: {error}") from error
        return download.answer()

    def _outgoing(self, request: Request) -> Outgoing:
        url = parse_url(request.url)
        fields = (
            *self._route.fields(url.origin),
            ("accept", "*/*"),
            ("accept-encoding", "identity"),
            ("connection", "close"),  # a service is asked a few times a day
            ("user-agent", "confonnx"),
        )
        return Outgoing("GET", url, request_head("GET", self._route.through(url), fields) + b"\r\n")


class _Download(Sink):
    """The answer to ``request`` as it comes: a sink, and what opens it. Mutable."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._body = bytearray()
        self._head: Head | None = None

    def open(self, head: Head) -> Sink | None:
        """An `OpenBody`: documents are read, nothing else."""
        self._head = head
        return self if head.status == _OK and not _is_compressed(head) else None

    def feed(self, piece: bytes) -> None:
        """Keeps ``piece``. Raises TooLargeError."""
        self._body += piece
        if len(self._body) > self._request.max_bytes:
            raise TooLargeError(
                f"{self._request.what}: at most {self._request.max_bytes} bytes expected, more found at "
                f"{self._request.url}"
            )

    def answer(self) -> Answer:
        """The document, once it is complete. Raises what the status means."""
        head = self._head
        assert head is not None  # an answer has a head
        _check_head(self._request, head)
        wanted = ((name, field_value(head.fields, name)) for name in self._request.fields)
        return Answer(bytes(self._body), tuple((name, value) for name, value in wanted if value is not None))


def _check_head(request: Request, head: Head) -> None:
    status = head.status
    if status == _OK:
        if _is_compressed(head):
            raise EndorsementError(
                MALFORMED, f"{request.what}: the answer is compressed, which was not asked for"
            )
        return
    where = f"{request.what} ({request.url})"
    if status in _BUSY:
        seconds = _retry_after(head)
        raise OverloadedError(
            f"{where}: the service is busy (status {status}); try again in {seconds} s, or keep what was "
            "fetched with a cache directory",
            retry_after=seconds,
        )
    if status in _MISSING:
        raise EndorsementError(
            MISSING,
            f"{where}: the service has no such document (status {status}); the evidence may be made up",
        )
    raise TransportError(f"{where}: the service answered with status {status}, expected 200")


def _is_compressed(head: Head) -> bool:
    return (field_value(head.fields, "content-encoding") or "identity").lower() != "identity"


def _retry_after(head: Head) -> int:
    text = field_value(head.fields, "retry-after") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else _DEFAULT_RETRY
