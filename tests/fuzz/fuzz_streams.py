"""Streams: any bytes give the content and the records that are in them, however they are cut, or an error.

``python -m tests.fuzz.fuzz_streams --seconds 600``
"""

from __future__ import annotations

from confonnx.errors import BhttpError, OipError, TooLargeError
from confonnx.ohttp.bhttp import BhttpLimits, InformationalResponse, Request, Response
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    content_chunks,
    encode_request_head,
    encode_response_head,
    request_reader,
    response_reader,
)
from confonnx.oip.records import RecordReader, encode_record
from tests.fuzz.mutator import main

LIMITS = BhttpLimits(max_field_section_bytes=500, max_fields=12, max_informational=3, max_chunks=8)

_FIELDS = (("date", "Tue, 24 Nov 2026 08:00:00 GMT"), ("authorization", "Bearer x"), ("x-empty", ""))
_RECORDS = [
    *encode_record((b'{"inputs":[]}',), padding=9),
    *encode_record((b"{}", bytes(80)), header_length=2),
]
_ANSWERS = [*encode_record((b"{}",), status=200), *encode_record((), status=100, padding=8)]


def _content(parts: list[bytes | bytearray | memoryview], size: int) -> bytes:
    return b"".join(b"".join(chunk) for chunk in content_chunks(parts, size=size)) + CONTENT_END


CORPUS = [
    encode_request_head(Request("POST", "https", "a:1", "/v2/models/m/infer_stream", _FIELDS))
    + _content(_RECORDS, 60),
    encode_request_head(Request("POST", "https", "", "/")) + _content(_RECORDS, 1000) + bytes(9),
    encode_response_head(Response(200, _FIELDS)) + _content(_ANSWERS, 30),
    encode_response_head(Response(503, informational=(InformationalResponse(103, _FIELDS),)))
    + b"\0\x01t\0\0",
]


def fuzz_streams(data: bytes) -> None:
    """The target: both readers on ``data``, whole and byte by byte."""
    pieces = [data[at : at + 1] for at in range(len(data))]
    for answers in (False, True):
        assert _outcome([data], answers=answers) == _outcome(pieces, answers=answers)


def _outcome(pieces: list[bytes], *, answers: bool) -> object:
    http = response_reader(LIMITS) if answers else request_reader(LIMITS)
    records = RecordReader(max_size=1000, answers=answers)
    found = []
    try:
        for piece in pieces:
            for content in http.feed(piece):
                records.feed(content)
                while (record := records.next_record()) is not None:
                    found.append((record.status, record.message))
        http.finish()
        records.finish()
    except (BhttpError, OipError, TooLargeError):
        return "refused"  # of two mistakes, which is found first depends on the pieces
    return found, http.head


if __name__ == "__main__":
    main(fuzz_streams, CORPUS)
