"""HTTP over httpx2: the only place where the client touches a network.

Both transports keep connections open between requests, follow no redirect, and ignore the environment: a
proxy is used only where the client was told one, because the environment's ``.netrc`` would also add
credentials to the outer request. Bodies are streamed through an `AnswerReader`, so no answer takes more
memory than its limit.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import monotonic
from typing import Protocol

import httpx2

from confonnx.attestation.endorse.deadline import DeadlineTransport
from confonnx.client.exchange import AnswerReader, Fields, HttpRequest, HttpResponse
from confonnx.client.options import Connection
from confonnx.errors import ConfigurationError, TransportError
from confonnx.ohttp.hpke import Buffer

# Below the idle limits of usual ingresses (60 s and more), so that a kept connection is rarely found closed.
_KEEP_ALIVE_SECONDS = 30.0
_PIECE_BYTES = 256 * 1024  # the HTTP library copies what it sends; in pieces, so that the copy stays small


class Transport(Protocol):
    """Carries one request at a time per thread; many threads may call it."""

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """The answer, within ``timeout`` seconds. Raises TransportError, and what `AnswerReader` raises."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...

    def now(self) -> datetime:
        """The local clock, aware UTC. It dates answers, and decides how long verified keys may be used."""
        ...


class AsyncTransport(Protocol):
    """`Transport` for asyncio."""

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`."""
        ...

    async def close(self) -> None:
        """See `Transport.close`."""
        ...

    def now(self) -> datetime:
        """See `Transport.now`."""
        ...


class HttpTransport:
    """`Transport` over a pool of connections."""

    def __init__(self, connection: Connection) -> None:
        """Opens nothing yet. Raises ConfigurationError for a CA file or proxy that cannot be used."""
        self._connection = connection
        with _configuration_errors():
            self._transport = DeadlineTransport(
                verify=_tls(connection), proxy=connection.proxy, limits=_limits()
            )
            self._client = httpx2.Client(
                transport=self._transport,
                trust_env=False,
                follow_redirects=False,
                cookies=_cookies(connection),
            )

    def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`. A slow peer is cut off at ``timeout``; looking up its name is outside."""
        deadline = None if timeout is None else monotonic() + timeout
        prepared = self._client.build_request(
            request.method,
            _url(request, self._connection),
            headers=_headers(request, self._connection),
            content=_pieces(request.body) if request.body else None,
            timeout=httpx2.Timeout(timeout),
        )
        try:
            with _network_errors(prepared), self._transport.until(deadline):
                reader = self._exchange(prepared, request)
        except TransportError as error:
            if timeout is not None and deadline is not None and monotonic() >= deadline:
                raise _timed_out(prepared, timeout) from error
            raise
        return reader.finish(self.now())

    def _exchange(self, prepared: httpx2.Request, request: HttpRequest) -> AnswerReader:
        response = self._client.send(prepared, stream=True)
        try:
            reader = AnswerReader(request, response.status_code, _fields(response))
            if reader.wants_body:
                for piece in response.iter_raw():
                    reader.feed(piece)
        finally:
            response.close()
        return reader

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()

    def now(self) -> datetime:
        """See `Transport.now`."""
        return datetime.now(UTC)


class AsyncHttpTransport:
    """`AsyncTransport` over a pool of connections of one event loop."""

    def __init__(self, connection: Connection) -> None:
        """Opens nothing yet. Raises ConfigurationError for a CA file or proxy that cannot be used."""
        self._connection = connection
        with _configuration_errors():
            self._client = httpx2.AsyncClient(
                verify=_tls(connection),
                proxy=connection.proxy,
                trust_env=False,
                follow_redirects=False,
                limits=_limits(),
                cookies=_cookies(connection),
            )

    async def send(self, request: HttpRequest, *, timeout: float | None) -> HttpResponse:
        """See `Transport.send`. A slow sender is cut off at ``timeout``."""
        prepared = self._client.build_request(
            request.method,
            _url(request, self._connection),
            headers=_headers(request, self._connection),
            content=_async_pieces(request.body) if request.body else None,
            timeout=httpx2.Timeout(timeout),
        )
        with _network_errors(prepared):
            try:
                async with asyncio.timeout(timeout):
                    return await self._exchange(prepared, request)
            except TimeoutError:
                assert timeout is not None  # asyncio.timeout(None) never ends
                raise _timed_out(prepared, timeout) from None

    async def _exchange(self, prepared: httpx2.Request, request: HttpRequest) -> HttpResponse:
        response = await self._client.send(prepared, stream=True)
        try:
            reader = AnswerReader(request, response.status_code, _fields(response))
            if reader.wants_body:
                async for piece in response.aiter_raw():
                    reader.feed(piece)
        finally:
            await response.aclose()
        return reader.finish(self.now())

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._client.aclose()

    def now(self) -> datetime:
        """See `Transport.now`."""
        return datetime.now(UTC)


def _tls(connection: Connection) -> ssl.SSLContext | bool:
    if connection.skip_tls_verification:
        return False
    return True if connection.ca_file is None else ssl.create_default_context(cafile=connection.ca_file)


def _limits() -> httpx2.Limits:
    # No limit of connections here: a caller with many threads has as many requests in flight as it wants.
    return httpx2.Limits(
        max_connections=None, max_keepalive_connections=64, keepalive_expiry=_KEEP_ALIVE_SECONDS
    )


def _headers(request: HttpRequest, connection: Connection) -> list[tuple[str, str]]:
    headers = [
        ("accept", request.accept),
        ("accept-encoding", "identity"),
        ("user-agent", "confonnx"),
        *request.fields,
    ]
    if request.body:
        headers.append(("content-length", str(len(request.body))))
    authorization = connection.relay_authorization if request.relayed else connection.ingress_authorization
    if authorization is not None:
        headers.append(("authorization", authorization))
    return headers


def _url(request: HttpRequest, connection: Connection) -> str:
    if not request.relayed:
        return connection.url.join(request.path)
    assert connection.relay is not None  # flows mark a request as relayed where there is a relay
    return connection.relay


def _cookies(connection: Connection) -> CookieJar:
    """An ingress may keep a client at one replica by a cookie. Through a relay, a cookie would link requests
    that are to be unlinkable, so none is kept there.
    """
    if connection.relay is None:
        return CookieJar()
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _fields(response: httpx2.Response) -> Fields:
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw
    )


def _pieces(body: Buffer) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(view), _PIECE_BYTES):
        yield bytes(view[start : start + _PIECE_BYTES])


async def _async_pieces(body: Buffer) -> AsyncIterator[bytes]:
    for piece in _pieces(body):
        yield piece


@contextmanager
def _configuration_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, httpx2.InvalidURL) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(f"ca_file or proxy cannot be used: {error}") from error


@contextmanager
def _network_errors(request: httpx2.Request) -> Iterator[None]:
    try:
        yield
    except httpx2.TimeoutException as error:
        raise TransportError(f"{_name(request)}: no answer in time ({type(error).__name__})") from error
    except httpx2.ConnectError as error:
        raise TransportError(f"{_name(request)}: cannot connect: {error}") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        raise TransportError(f"{_name(request)}: the connection failed: {error}") from error


def _timed_out(request: httpx2.Request, timeout: float) -> TransportError:
    what = f"{_name(request)}: no complete answer within {timeout:.3g} s"
    return TransportError(f"{what}; give a longer timeout= if it needs more")


def _name(request: httpx2.Request) -> str:
    return f"{request.method} {str(request.url).partition('?')[0]}"
