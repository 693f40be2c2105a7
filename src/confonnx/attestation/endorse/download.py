"""HTTP to the vendors' services: the only place where the verifying side of attestation touches a network.

As everywhere in the client: no redirect is followed, the environment (``HTTPS_PROXY``, ``.netrc``) is not
read, bodies have limits and calls have deadlines. No credentials are sent.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from time import monotonic, sleep
from typing import Final

import httpx2

from confonnx.attestation.endorse.deadline import DeadlineTransport
from confonnx.attestation.endorse.exchange import MALFORMED, MISSING, Answer, Request
from confonnx.errors import (
    ConfigurationError,
    EndorsementError,
    OverloadedError,
    TooLargeError,
    TransportError,
)

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
        try:
            tls = ssl.create_default_context()
            if ca_file is not None:
                tls.load_verify_locations(cafile=ca_file)
            # A service is asked a few times a day: it would have closed an idle connection.
            limits = httpx2.Limits(max_keepalive_connections=0)
            self._transport = DeadlineTransport(verify=tls, proxy=proxy, limits=limits)
            self._client = httpx2.Client(transport=self._transport, trust_env=False, follow_redirects=False)
        except (OSError, ValueError, httpx2.InvalidURL) as error:  # ssl.SSLError is an OSError
            raise ConfigurationError(f"ca_file or proxy cannot be used: {error}") from error

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
        self._client.close()

    def _get(self, request: Request, deadline: float | None) -> Answer:
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            raise _too_late(request)
        with (
            _network_errors(request, deadline),
            self._transport.until(deadline),
            self._client.stream(
                "GET",
                request.url,
                headers={"accept": "*/*", "accept-encoding": "identity", "user-agent": "confonnx"},
                timeout=httpx2.Timeout(left),
            ) as response,
        ):
            _check_status(request, response)
            body = _read(request, response, deadline)
        wanted = ((name, response.headers.get(name)) for name in request.fields)
        return Answer(body, tuple((name, value) for name, value in wanted if value is not None))


def _check_status(request: Request, response: httpx2.Response) -> None:
    status = response.status_code
    if status == httpx2.codes.OK:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise EndorsementError(
                MALFORMED, f"{request.what}: the answer is compressed, which was not asked for"
            )
        return
    where = f"{request.what} ({request.url})"
    if status in _BUSY:
        seconds = _retry_after(response)
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


def _retry_after(response: httpx2.Response) -> int:
    text = response.headers.get("retry-after", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else _DEFAULT_RETRY


def _read(request: Request, response: httpx2.Response, deadline: float | None) -> bytes:
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > request.max_bytes:
            raise TooLargeError(
                f"{request.what}: at most {request.max_bytes} bytes expected, more found at {request.url}"
            )
    # A body without a length ends with its connection: one that was cut off looks whole.
    if deadline is not None and monotonic() >= deadline:
        raise _too_late(request)
    return bytes(body)


def _too_late(request: Request) -> TransportError:
    return TransportError(f"{request.what}: {request.url} did not answer in time")


@contextmanager
def _network_errors(request: Request, deadline: float | None) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        raise _too_late(request) from error
    except (httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL) as error:
        if deadline is not None and monotonic() >= deadline:
            raise _too_late(request) from error
        raise TransportError(f"{request.what}: cannot get {request.url}: {error}") from error
