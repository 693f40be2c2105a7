"""The outer HTTP request and response as plain values, shared by the socket side and the socket-free core.

These, and ``routes.Reply``, are msgspec's structs: every request makes some, and a frozen dataclass costs
several times as much (docs/adr/0017-what-a-session-remembers.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Protocol, TypeAlias

import msgspec

Buffer: TypeAlias = bytes | bytearray | memoryview

PROBLEM_MEDIA_TYPE = "application/problem+json"
KEY_PROBLEM = "https://iana.org/assignments/http-problem-types#ohttp-key"  # RFC 9458 §5.3
DATE_PROBLEM = "https://iana.org/assignments/http-problem-types#date"  # RFC 9458 §6.5.2
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class HttpRequest(msgspec.Struct, frozen=True):
    """One outer request, complete with its body.

    ``target`` is in origin form (``/path?query``, undecoded). ``fields`` has lower-case names; a field that
    came more than once is joined by ``", "`` (RFC 9110 §5.3). ``body`` is writable, so that it can be opened
    in place.
    """

    method: str
    target: str
    fields: Mapping[str, str]
    body: bytearray

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the first ``?`` of the target, or the empty string."""
        return self.target.partition("?")[2]


class HttpResponse(msgspec.Struct, frozen=True):
    """One outer response. ``body`` is written part by part, never joined; its length is announced."""

    status: int
    fields: Mapping[str, str] = _NO_FIELDS
    body: tuple[Buffer, ...] = ()


class Handler(Protocol):
    """What the socket side needs of an application."""

    def wants_body(self, method: str, path: str) -> bool:
        """Whether a body for this method and path is worth reading; else it is dropped unread."""

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """Answer one request. Raises nothing but ``asyncio.CancelledError``.

        What comes before its first wait runs in no task, so nothing there may need one, as
        ``asyncio.timeout`` does; and ``asyncio.sleep(0)`` is no wait, but the end of a stage (``cohort``).
        """


def text(status: int, content: str) -> HttpResponse:
    """A short plain-text answer."""
    return HttpResponse(status, {"content-type": "text/plain; charset=utf-8"}, (content.encode(),))


def problem(
    status: int, *, problem_type: str = "about:blank", fields: Mapping[str, str] = _NO_FIELDS
) -> HttpResponse:
    """A problem document (RFC 9457) that says no more than its status: the outer side must learn nothing.

    Two problems of the same status and type are the same bytes, whatever went wrong.
    """
    return HttpResponse(
        status, {"content-type": PROBLEM_MEDIA_TYPE, **fields}, (problem_body(status, problem_type),)
    )


def problem_body(status: int, problem_type: str) -> bytes:
    """The JSON of a problem document (RFC 9457 §3)."""
    return msgspec.json.encode({"type": problem_type, "title": HTTPStatus(status).phrase, "status": status})
