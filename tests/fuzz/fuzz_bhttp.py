"""Binary HTTP: any bytes are a message, which then encodes and parses to itself, or a ``BhttpError``.

``python -m tests.fuzz.fuzz_bhttp --seconds 600``
"""

from __future__ import annotations

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import (
    BhttpLimits,
    InformationalResponse,
    Request,
    Response,
    encode_request,
    encode_response,
    parse_request,
    parse_response,
)
from tests.fuzz.mutator import main

LIMITS = BhttpLimits(max_field_section_bytes=500, max_fields=12, max_informational=3, max_chunks=8)

_FIELDS = (("date", "Tue, 24 Nov 2026 08:00:00 GMT"), ("authorization", "Bearer x"), ("x-empty", ""))
_INDETERMINATE = b"\x04date\x03now\0\x05first\x06second\0\x01t\x011\0"

CORPUS = [
    b"".join(encode_request(Request("POST", "https", "a:1", "/v2/models/m/infer", _FIELDS, b"body" * 30))),
    b"".join(encode_request(Request("GET", "http", "", "/v2", trailers=_FIELDS))) + bytes(20),
    b"".join(encode_response(Response(200, _FIELDS, b"body" * 30, (("t", "1"),)))),
    b"".join(encode_response(Response(503, informational=(InformationalResponse(103, _FIELDS),)))),
    b"\x02\x04POST\x05https\x01a\x01/" + _INDETERMINATE + bytes(5),
    b"\x03\x40\x67\x04link\x01x\0\x40\xc8" + _INDETERMINATE,
]


def fuzz_bhttp(data: bytes) -> None:
    """The target: both parsers on ``data``."""
    try:
        request = parse_request(data, LIMITS)
    except BhttpError:
        pass
    else:
        assert parse_request(b"".join(encode_request(request))) == request
    try:
        response = parse_response(data, LIMITS)
    except BhttpError:
        pass
    else:
        assert parse_response(b"".join(encode_response(response))) == response


if __name__ == "__main__":
    main(fuzz_bhttp, CORPUS)
