"""What an answer means: which error to raise for it. Pure.

Outer answers, the ones not sealed, come from anyone on the path. They can make a call fail but never choose
what happens to data, and nothing of their content reaches an error text: only the status and the media type
do. Sealed answers come from the attested server, so their text is passed on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from confonnx.client.exchange import MAX_PROBLEM_BYTES, PROBLEM_MEDIA_TYPE, HttpRequest, HttpResponse
from confonnx.errors import (
    AuthenticationError,
    ConfonnxError,
    DeadlineExceededError,
    EncapsulationError,
    InferenceError,
    InvalidInputError,
    ModelNotFoundError,
    NotConfonnxError,
    OipError,
    OverloadedError,
    ReplayError,
    ServerError,
    TooLargeError,
)
from confonnx.ohttp import bhttp
from confonnx.ohttp.hpke import Buffer
from confonnx.oip.messages import parse_error

DATE_PROBLEM = "https://iana.org/assignments/http-problem-types#date"  # RFC 9458 §6.5.2
_MAX_RETRY_AFTER = 24 * 60 * 60


def check_answer(request: HttpRequest, response: HttpResponse) -> None:
    """Returns for a 200 of the media type that ``request`` accepts; else raises what the answer means."""
    if response.status != 200 or response.media_type != request.accept:
        raise _outer_error(request, response)


def could_not_open(response: HttpResponse) -> bool:
    """Whether the answer says that the server could not open a sealed request.

    That is 400 with a problem document: ``#ohttp-key`` (RFC 9458 §5.3) where the key identifier is unknown,
    no type otherwise, which a restarted server with other keys under the same identifier gives. Both are
    treated alike, as anyone on the path can write either.
    """
    return response.status == 400 and response.media_type == PROBLEM_MEDIA_TYPE


def unopened_error() -> EncapsulationError:
    """The server could not open a request sealed to keys that it had attested to a moment before."""
    return EncapsulationError(
        "the server says that it cannot open requests sealed to the keys it has just attested to; if "
        "several servers share this address they must share keys, or each client must stay with one of them"
    )


def is_date_problem(response: bhttp.Response) -> bool:
    """Whether a sealed answer refuses the request's ``Date`` (RFC 9458 §6.5.2)."""
    return (
        response.status == 400
        and _sealed_media_type(response) == PROBLEM_MEDIA_TYPE
        and _problem_type(response.body) == DATE_PROBLEM
    )


def sealed_date(response: bhttp.Response) -> datetime:
    """The server's clock by a sealed answer, aware UTC. Raises ReplayError where it does not say."""
    try:
        date = parsedate_to_datetime(response.field("date") or "")
        if date.tzinfo is not None:  # None is "-0000": a date of unknown zone (RFC 5322 §3.3)
            return date.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise date_error()


def date_error() -> ReplayError:
    """The server keeps refusing the ``Date`` of requests."""
    return ReplayError(
        "the server refuses the date of the request, even by its own clock; check the clocks of both machines"
    )


def sealed_error(response: bhttp.Response, *, inference: bool) -> ConfonnxError:
    """The error for a sealed answer whose status is not 200. ``inference``: it answers a prediction."""
    text = _sealed_text(response)
    match response.status:
        case 400 | 422:
            return InvalidInputError(f"the server refuses the request: {text}")
        case 401 | 403:
            return AuthenticationError(
                f"the server refuses the credentials (auth_key, or auth_user and auth_pass): {text}"
            )
        case 404:
            return ModelNotFoundError(f"the server does not find it: {text}")
        case 413:
            return TooLargeError(f"too large for the server: {text}")
        case 429 | 503:
            wait = _retry_after(response.field("retry-after"))
            return OverloadedError(f"the server is busy; try again in {wait} s: {text}", retry_after=wait)
        case 500 if inference:
            return InferenceError(f"the inference failed: {text}")
        case 504:
            return DeadlineExceededError(f"the server gave up: {text}")
        case status:
            return ServerError(f"the server answered {status}: {text}", status=status)


def _outer_error(request: HttpRequest, response: HttpResponse) -> ConfonnxError:
    status, what = response.status, f"{request.method} {request.path.partition('?')[0]}"
    found = f"{what} was answered with status {status} and {response.media_type or 'no media type'}"
    match status:
        case 401 | 403 | 407:
            wants = "the relay wants" if request.relayed else "an ingress or proxy before the server wants"
            option = "relay_auth" if request.relayed else "ingress_auth"
            return AuthenticationError(
                f"{found}: {wants} credentials; give them as {option}, as auth_key, auth_user and auth_pass "
                "are shown to the verified server only"
            )
        case 413:
            return TooLargeError(f"{found}: the message is too large for what stands at this address")
        case 429 | 503:
            wait = _retry_after(response.field("retry-after"))
            return OverloadedError(f"{found}; try again in {wait} s", retry_after=wait)
        case _ if 300 <= status < 400:
            return NotConfonnxError(f"{found}: redirects are not followed; use the address it leads to")
        case _ if status >= 500:
            return ServerError(f"{found}, from the server or from what stands before it", status=status)
        case 404:
            return NotConfonnxError(
                f"{found}, expected {request.accept}: no confonnx server is at this address; check host, "
                "port and path prefix"
            )
        case _ if response.media_type == PROBLEM_MEDIA_TYPE:
            return ServerError(f"{found}", status=status)
        case _:
            return NotConfonnxError(
                f"{found}, expected status 200 and {request.accept}: this is no confonnx server, or "
                "something before it answers in its place; check the address and its path prefix"
            )


class _Problem(msgspec.Struct):
    """The one member of a problem document that matters here (RFC 9457 §3.1.1)."""

    type: str = "about:blank"


def _problem_type(body: Buffer) -> str | None:
    if len(body) > MAX_PROBLEM_BYTES:
        return None
    try:
        return msgspec.json.decode(body, type=_Problem).type
    except (msgspec.MsgspecError, RecursionError):
        return None


def _sealed_text(response: bhttp.Response) -> str:
    try:
        return parse_error(bytes(response.body))
    except OipError:
        return f"status {response.status} without an explanation"


def _sealed_media_type(response: bhttp.Response) -> str:
    return (response.field("content-type") or "").partition(";")[0].strip().lower()


def _retry_after(text: str | None) -> int:
    """Seconds (RFC 9110 §10.2.3). The date form is not used by our server, and an ingress that uses it gets
    1."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 9):
        return 1
    return min(int(text), _MAX_RETRY_AFTER)
