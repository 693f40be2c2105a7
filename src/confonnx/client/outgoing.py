"""From what a flow asks for to what goes out: URL, fields, cookies, the proxy; and how failures are told. No
I/O."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from ssl import SSLContext
from typing import Final, cast
from urllib.request import Request as CookieRequest

from confonnx.client.exchange import HttpRequest
from confonnx.client.options import Connection
from confonnx.errors import TransportError
from confonnx.http.fields import Fields
from confonnx.http.message import Outgoing, OutOfTimeError, request_head
from confonnx.http.route import Route, dangerous_unverified_tls, private_tls, system_tls
from confonnx.http.url import Url, parse_proxy, parse_url

_MAX_HEADS: Final = 64  # kept; a client asks for two or three things


class Requests:
    """Makes requests. Mutable: it keeps cookies, and the heads that it made. Many threads may use it."""

    def __init__(self, connection: Connection) -> None:
        """Raises ConfigurationError for a CA file or proxy that cannot be used."""
        self.route = Route(
            _tls(connection), None if connection.proxy is None else parse_proxy(connection.proxy)
        )
        self._connection = connection
        # An ingress may keep a client at one replica by a cookie. Through a relay, a cookie would link
        # requests that are to be unlinkable.
        self._cookies = CookieJar() if connection.relay is None else None
        self._has_cookies = False
        self._heads: dict[tuple[str, str, str, Fields], tuple[Url, bytes]] = {}

    def make(self, request: HttpRequest) -> Outgoing:
        """``request`` with its whole body."""
        url, head = self._begin(request)
        if request.body:
            head += b"content-length: %d\r\n" % len(request.body)
        return Outgoing(request.method, url, head + b"\r\n", request.body)

    def make_open(self, request: HttpRequest) -> Outgoing:
        """The head of ``request``, whose body follows in chunks (RFC 9112 §7.1)."""
        url, head = self._begin(request)
        return Outgoing(request.method, url, head + b"transfer-encoding: chunked\r\n\r\n")

    def heard(self, outgoing: Outgoing, fields: Fields) -> None:
        """Keeps the cookies of an answer."""
        if self._cookies is None or not any(name == "set-cookie" for name, _ in fields):
            return
        answer = cast("HTTPResponse", _Heard(fields))  # of which it reads no more than info()
        about = CookieRequest(str(outgoing.url))  # noqa: S310 - nothing is opened
        self._cookies.extract_cookies(answer, about)
        self._has_cookies = True

    def _begin(self, request: HttpRequest) -> tuple[Url, bytes]:
        where = self._where(request)
        fields = self._fields(request, where)
        key = (request.method, where, request.accept, fields)
        found = self._heads.get(key)
        if found is None:
            url = parse_url(where)
            head = request_head(
                request.method, self.route.through(url), (*self.route.fields(url.origin), *fields)
            )
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            found = self._heads[key] = (url, head)
        return found

    def _where(self, request: HttpRequest) -> str:
        if not request.relayed:
            return self._connection.url.join(request.path)
        assert self._connection.relay is not None  # flows mark a request as relayed where there is a relay
        return self._connection.relay

    def _fields(self, request: HttpRequest, where: str) -> Fields:
        connection = self._connection
        fields = (
            ("accept", request.accept),
            ("accept-encoding", "identity"),
            ("connection", "keep-alive"),
            ("user-agent", "confonnx"),
            *request.fields,
        )
        authorization = (
            connection.relay_authorization if request.relayed else connection.ingress_authorization
        )
        if authorization is not None:
            fields += (("authorization", authorization),)
        if self._has_cookies and (cookie := self._cookie(where)) is not None:
            fields += (("cookie", cookie),)
        return fields

    def _cookie(self, where: str) -> str | None:
        assert self._cookies is not None  # there are some
        request = CookieRequest(where)  # noqa: S310 - nothing is opened
        self._cookies.add_cookie_header(request)
        return request.get_header("Cookie")


@contextmanager
def told(outgoing: Outgoing, timeout: float | None) -> Iterator[None]:
    """Failures in the block, raised as TransportErrors that name the request and its URL without a query."""
    try:
        yield
    except (OutOfTimeError, TimeoutError) as error:
        assert timeout is not None  # there is no other deadline
        raise TransportError(
            f"{_name(outgoing)}: no complete answer within {timeout:.3g} s; give a longer timeout= if it "
            "needs more"
        ) from error
    except TransportError as error:
        raise TransportError(f"{_name(outgoing)}: {error}") from error


def _name(outgoing: Outgoing) -> str:
    return f"{outgoing.method} {str(outgoing.url).partition('?')[0]}"


def _tls(connection: Connection) -> SSLContext:
    if connection.skip_tls_verification:
        return dangerous_unverified_tls()
    return system_tls() if connection.ca_file is None else private_tls(connection.ca_file)


class _Heard:
    """What http.cookiejar reads of an answer."""

    def __init__(self, fields: Fields) -> None:
        self._message = Message()
        for name, value in fields:
            self._message[name] = value

    def info(self) -> Message:
        """The fields."""
        return self._message
