"""Streams of records in Binary HTTP, cut anywhere: the same comes out, and every truncation is noticed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from confonnx.errors import BhttpError, OipError, TooLargeError
from confonnx.ohttp.bhttp import Request, Response
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    StreamReader,
    content_chunks,
    encode_request_head,
    request_reader,
)
from confonnx.oip.records import RecordReader, encode_record

FIELDS = st.lists(
    st.tuples(
        st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True), st.from_regex(r"[!-~]{0,80}", fullmatch=True)
    ),
    max_size=4,
).map(lambda fields: tuple(field for field in fields if field[0] not in ("content-length", "host")))
MESSAGES = st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.integers(0, 256)), max_size=5)
CUTS = st.lists(st.integers(0, 1 << 14), max_size=12)


def message(
    fields: tuple[tuple[str, str], ...], bodies: list[tuple[bytes, int]], size: int
) -> tuple[Request, bytes]:
    request = Request("POST", "https", "a", "/v2", fields)
    stream = [encode_request_head(request)]
    for body, padding in bodies:
        record = encode_record((body[:1], body[1:]), padding=padding)
        stream += [b"".join(chunk) for chunk in content_chunks(record, size=size)]
    return request, b"".join([*stream, CONTENT_END])


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(ends)]


def bodies_in(http: StreamReader[Request] | StreamReader[Response], pieces: list[bytes]) -> list[bytes]:
    """The messages; both readers are told that it ends there."""
    reader = RecordReader(max_size=300, answers=False)
    found = []
    for piece in pieces:
        for content in http.feed(piece):
            reader.feed(content)
            while (record := reader.next_record()) is not None:
                found.append(bytes(record.message or b""))
    http.finish()
    reader.finish()
    return found


@given(FIELDS, MESSAGES, st.integers(1, 400), CUTS)
def test_cuts_make_no_difference(
    fields: tuple[tuple[str, str], ...], bodies: list[tuple[bytes, int]], size: int, cuts: list[int]
) -> None:
    request, stream = message(fields, bodies, size)
    http = request_reader()
    assert bodies_in(http, cut(stream, cuts)) == [body for body, _ in bodies]
    assert http.head == request


@given(MESSAGES, st.integers(1, 400), st.integers(0, 1 << 14), CUTS)
def test_a_truncated_stream_raises_or_has_ended_by_rfc_9292(
    bodies: list[tuple[bytes, int]], size: int, end: int, cuts: list[int]
) -> None:
    _, stream = message((), bodies, size)
    end %= len(stream)
    http = request_reader()
    try:
        found = bodies_in(http, cut(stream[:end], cuts))
    except (BhttpError, OipError):
        return
    # RFC 9292 §3.8: before the content, or behind its end. (Cut elsewhere, the sealed end is missing anyway.)
    head = len(encode_request_head(Request("POST", "https", "a", "/v2")))
    assert end in (head - 1, head, len(stream) - 1)
    assert found == ([] if end <= head else [body for body, _ in bodies])


@given(st.binary(max_size=400), CUTS)
def test_any_bytes_are_read_or_refused_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    outcomes: list[object] = []
    for pieces in ([data], cut(data, cuts), [bytes((byte,)) for byte in data]):
        http = request_reader()
        try:
            outcomes.append((bodies_in(http, pieces), http.head))
        except (BhttpError, OipError, TooLargeError):
            outcomes.append("refused")  # of two mistakes, which is found first depends on the pieces
    assert outcomes[0] == outcomes[1] == outcomes[2]
