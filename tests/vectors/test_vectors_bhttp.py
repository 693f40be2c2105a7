"""Binary HTTP against the examples of RFC 9292 §5, and against the same messages as HTTP/1.1 text.

The texts of martinthomson/ohttp are the originals of those examples, so both must come to one value.
"""

from __future__ import annotations

import re

import pytest

from confonnx.ohttp.bhttp import (
    Fields,
    InformationalResponse,
    Request,
    Response,
    encode_request,
    encode_response,
    parse_request,
    parse_response,
)
from tests.support.shared import shared_dir, vector

EXAMPLES = {
    entry["name"]: bytes.fromhex(entry["hex"])
    for entry in vector("vectors-protocol/bhttp/rfc9292-examples.json")["vectors"]
}
REQUEST_KNOWN = EXAMPLES["request known-length"]
REQUEST_INDETERMINATE = EXAMPLES["request indeterminate-length with 10 bytes of zero padding"]
RESPONSE_INDETERMINATE = EXAMPLES["response indeterminate-length with 102/103 informational, trailers"]
RESPONSE_CHUNKED = EXAMPLES["response known-length, chunked example"]


def text_of(name: str) -> bytes:
    return (
        (shared_dir() / f"vectors-protocol/bhttp/martinthomson-{name}.txt")
        .read_bytes()
        .replace(b"\r\n", b"\n")
    )


def fields_of(block: str) -> Fields:
    lines = (line.split(": ", 1) for line in block.splitlines())
    return tuple((name.lower(), value) for name, value in lines)


def request_of_the_text() -> Request:
    line, _, block = text_of("request").decode().strip().partition("\n")
    method, path, _ = line.split(" ")
    return Request(method, "https", "", path, fields_of(block))


def responses_of_the_text() -> Response:
    *early, final, body = re.split(r"\n\n", text_of("response").decode(), maxsplit=3)
    informational = []
    for message in early:
        line, _, block = message.partition("\n")
        informational.append(InformationalResponse(int(line.split(" ")[1]), fields_of(block)))
    line, _, block = final.partition("\n")
    content = body.rstrip("\n").encode() + b"\r\n"
    return Response(int(line.split(" ")[1]), fields_of(block), content, (), tuple(informational))


def test_request() -> None:
    expected = request_of_the_text()
    assert parse_request(REQUEST_KNOWN) == expected
    assert parse_request(REQUEST_INDETERMINATE) == expected
    assert b"".join(encode_request(expected)) == REQUEST_KNOWN


@pytest.mark.parametrize(
    ("message", "removable"),
    [(REQUEST_KNOWN, 2), (REQUEST_INDETERMINATE, 12)],
    ids=["known", "indeterminate"],
)
def test_request_may_be_truncated_as_the_rfc_says(message: bytes, removable: int) -> None:
    for size in range(removable + 1):
        assert parse_request(message[: len(message) - size]) == parse_request(message)


def test_response_with_informational_responses() -> None:
    expected = responses_of_the_text()
    assert [early.status for early in expected.informational] == [102, 103]
    assert parse_response(RESPONSE_INDETERMINATE) == expected
    assert parse_response(b"".join(encode_response(expected))) == expected


def test_chunked_response() -> None:
    """The text's chunks are 4, 6 and 0x13 bytes; Transfer-Encoding is for the connection and is gone."""
    body = b"This content contains CRLF.\r\n"
    expected = Response(200, (), body, (("trailer", "text"),))
    assert parse_response(RESPONSE_CHUNKED) == expected
    assert b"".join(encode_response(expected)) == RESPONSE_CHUNKED
    text = text_of("chunked").decode()
    assert text.startswith("HTTP/1.1 200 OK\n")
    assert "Trailer: text" in text
    for piece in ("This", " conte", "nt contains CRLF.\n"):
        assert piece in text
