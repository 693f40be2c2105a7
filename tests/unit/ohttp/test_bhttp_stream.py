"""Binary HTTP of indeterminate length: what is read, what is refused, and where a message may end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import (
    BhttpLimits,
    InformationalResponse,
    Request,
    Response,
    parse_request,
    parse_response,
)
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    content_chunks,
    encode_request_head,
    encode_response_head,
    request_reader,
    response_reader,
)

FIELDS = (("date", "now"), ("x-empty", ""))
REQUEST = Request("POST", "https", "a:1", "/v2/models/m/infer_stream", FIELDS)
RESPONSE = Response(200, FIELDS, informational=(InformationalResponse(103, FIELDS),))
HEAD = encode_request_head(REQUEST)
SMALL = BhttpLimits(
    max_control_bytes=8, max_field_section_bytes=20, max_fields=2, max_informational=1, max_chunks=3
)


def chunked(parts: Sequence[bytes], size: int = 4) -> bytes:
    return b"".join(b"".join(chunk) for chunk in content_chunks(parts, size=size))


def read(message: bytes, limits: BhttpLimits | None = None) -> tuple[Request | None, bytes]:
    reader = request_reader() if limits is None else request_reader(limits)
    content = b"".join(reader.feed(message))
    reader.finish()
    return reader.head, content


def test_a_request_is_read_as_the_whole_parser_reads_it() -> None:
    message = HEAD + chunked([b"first", b"", b"second"]) + CONTENT_END
    assert read(message) == (REQUEST, b"firstsecond")
    whole = parse_request(message)
    assert (whole.fields, bytes(whole.body)) == (FIELDS, b"firstsecond")


def test_a_response_is_read_as_the_whole_parser_reads_it() -> None:
    message = encode_response_head(RESPONSE) + chunked([b"answer"]) + CONTENT_END
    reader = response_reader()
    assert b"".join(reader.feed(message)) == b"answer"
    reader.finish()
    assert reader.head == RESPONSE
    assert bytes(parse_response(message).body) == b"answer"


def test_content_comes_out_as_views_of_what_came_in() -> None:
    reader = request_reader()
    reader.feed(HEAD)
    piece = bytearray(b"\x04abcd")
    (view,) = reader.feed(piece)
    assert view.obj is piece
    assert view.readonly


def test_the_head_is_there_before_the_content() -> None:
    reader = request_reader()
    assert reader.feed(HEAD[:-1]) == []
    assert reader.head is None
    assert reader.feed(HEAD[-1:]) == []
    assert reader.head == REQUEST
    assert not reader.ended
    reader.feed(b"\0")
    assert reader.ended


def test_a_message_may_end_after_its_control_data_and_after_its_fields() -> None:
    bare = Request("POST", "https", "a:1", "/")
    assert read(encode_request_head(bare)[:-1]) == (bare, b"")
    assert read(HEAD) == (REQUEST, b"")


def test_a_response_may_end_after_its_status() -> None:
    reader = response_reader()
    reader.feed(b"\x03\x40\xc8")
    reader.finish()
    assert reader.head == Response(200)


def test_a_message_may_end_after_its_content() -> None:
    assert read(HEAD + b"\x01a\0") == (REQUEST, b"a")


def test_padding_and_trailers_are_taken() -> None:
    assert read(HEAD + b"\x01a\0" + b"\x01t\x011\0" + bytes(70)) == (REQUEST, b"a")


@pytest.mark.parametrize("end", [1, 2, 5, len(HEAD) - 1, len(HEAD) + 1, len(HEAD) + 2])
def test_every_other_end_is_a_truncation(end: int) -> None:
    reader = request_reader()
    reader.feed((HEAD + b"\x02ab\0\0")[:end])
    with pytest.raises(BhttpError, match="truncated"):
        reader.finish()


def test_nothing_is_no_message() -> None:
    with pytest.raises(BhttpError, match="truncated"):
        request_reader().finish()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\0", "is 2, not 0"),
        (b"\x03", "is 2, not 3"),
        (b"\x02\x40\x09", "method has 9 bytes, the limit is 8"),
        (b"\x02\x03G T\x04http\0\x01/\0", "method is not a token"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\x15", "more than 20 bytes"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\x01a\x14", "field value has 20 bytes, the limit is 19"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\x01a\0\x01b\0\x01c", "more than 2 field lines"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\x01A\0\0", "lower-case token"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\0\0\0" + b"\0\0\1", "other than zero"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\0\x01a\x01b\x01c\x01d", "more than 3 chunks"),
        (b"\x02\x03GET\x04http\0\x01/" + b"\0\0\x01T\0\0", "lower-case token"),
    ],
)
def test_refused_requests(message: bytes, text: str) -> None:
    with pytest.raises(BhttpError, match=text):
        read(message, SMALL)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"\x01", "is 3, not 1"),
        (b"\x03\x40\x67\0\x40\x67\0", "more than 1 informational"),
        (b"\x03\x42\x58\0", "200..599, not 600"),
    ],
)
def test_refused_responses(message: bytes, text: str) -> None:
    with pytest.raises(BhttpError, match=text):
        response_reader(SMALL).feed(message)


@pytest.mark.parametrize("length", ["0", "5"])
def test_an_announced_length_is_refused(length: str) -> None:
    head = encode_response_head(Response(200, (("content-length", length),)))
    with pytest.raises(BhttpError, match="content-length"):
        response_reader().feed(head)


def test_large_chunks_earn_small_ones() -> None:
    message = HEAD + b"\x40\x80" + bytes(128) + b"\x01a" * 4 + CONTENT_END
    assert len(read(message, BhttpLimits(max_chunks=3))[1]) == 132
    with pytest.raises(BhttpError, match="on average"):
        read(HEAD + b"\x01a" * 4, BhttpLimits(max_chunks=3))


def test_content_is_divided_without_a_copy() -> None:
    whole = bytearray(range(10))
    chunks = list(content_chunks([b"ab", memoryview(whole)], size=5))
    assert [b"".join(chunk) for chunk in chunks] == [b"\x05ab\0\1\2", b"\x05\3\4\5\6\7", b"\x02\x08\x09"]
    assert all(view.obj is whole for chunk in chunks for view in chunk[-1:] if isinstance(view, memoryview))


def test_no_content_is_no_chunk() -> None:
    assert list(content_chunks([b"", b""], size=5)) == []


def test_no_error_holds_what_was_sealed() -> None:
    canary = b"CANARY"
    for message in (
        b"\x02\x06" + canary + b"\x01 ",
        b"\x02\x03GET\x04http\0\x01/\x06" + canary + b"\0\0",
        HEAD + b"\0\0" + canary,
    ):
        with pytest.raises(BhttpError) as caught:
            read(message)
        assert "CANARY" not in str(caught.value)
