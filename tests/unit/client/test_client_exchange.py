"""Outer answers: what is read, how much of it, and what is refused at once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from confonnx.client.exchange import MAX_PROBLEM_BYTES, AnswerReader, HttpRequest, HttpResponse
from confonnx.errors import NotConfonnxError, TooLargeError, TransportError
from confonnx.http.fields import Fields

NOW = datetime(2026, 11, 24, tzinfo=UTC)
REQUEST = HttpRequest("POST", "/ohttp?a=secret-query", accept="message/ohttp-res", max_response_bytes=10)
WANTED = ("content-type", "Message/OHTTP-res; x=y")


def read(*pieces: bytes, fields: Fields) -> HttpResponse:
    reader = AnswerReader(REQUEST, 200, fields)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish(NOW)


def test_a_body_of_announced_length_is_kept() -> None:
    response = read(b"abc", b"defg", fields=(WANTED, ("content-length", "7")))
    assert (response.body, response.received_at, response.media_type) == (
        b"abcdefg",
        NOW,
        "message/ohttp-res",
    )


def test_a_body_without_length_is_kept() -> None:
    assert read(b"abc", b"defghij", fields=(WANTED,)).body == b"abcdefghij"


@pytest.mark.parametrize("media_type", ["text/html", "application/json", "message/ohttp-req", ""])
def test_other_media_types_are_not_read(media_type: str) -> None:
    fields = (("content-type", media_type), ("content-length", "9" * 15))
    assert AnswerReader(REQUEST, 200, fields).wants_body is False
    assert AnswerReader(REQUEST, 200, ()).finish(NOW).body == b""


def test_an_empty_body_is_not_waited_for() -> None:
    assert AnswerReader(REQUEST, 200, (WANTED, ("content-length", "0"))).wants_body is False


def test_a_body_announced_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(TooLargeError, match=r"POST /ohttp .* at most 10 bytes expected, 11 bytes found"):
        AnswerReader(REQUEST, 200, (WANTED, ("content-length", "11")))


def test_a_body_that_grows_too_large_is_refused() -> None:
    with pytest.raises(TooLargeError, match="more than 10 bytes"):
        read(b"a" * 10, b"b", fields=(WANTED,))


def test_problem_documents_have_their_own_limit() -> None:
    problem = ("content-type", "application/problem+json")
    assert len(read(b"x" * MAX_PROBLEM_BYTES, fields=(problem,)).body) == MAX_PROBLEM_BYTES
    with pytest.raises(TooLargeError):
        read(b"x" * (MAX_PROBLEM_BYTES + 1), fields=(problem,))


def test_a_short_body_is_a_broken_connection() -> None:
    with pytest.raises(TransportError, match="7 bytes announced, 3 came"):
        read(b"abc", fields=(WANTED, ("content-length", "7")))


@pytest.mark.parametrize("length", ["", "-1", "+1", "1, 1", "1e3", "٣", "1" * 20])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    with pytest.raises(NotConfonnxError, match="content-length"):
        AnswerReader(REQUEST, 200, (WANTED, ("content-length", length)))


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", ""])
def test_compressed_answers_are_refused(coding: str) -> None:
    with pytest.raises(NotConfonnxError, match="compress"):
        AnswerReader(REQUEST, 200, (WANTED, ("content-encoding", coding)))


def test_identity_is_no_compression() -> None:
    assert read(b"abc", fields=(WANTED, ("content-encoding", "Identity"))).body == b"abc"


def test_repeated_fields_are_joined() -> None:
    response = HttpResponse(200, (("a", "1"), ("b", "2"), ("a", "3")), b"", NOW)
    assert (response.field("a"), response.field("c"), response.media_type) == ("1, 3", None, "")


def test_errors_do_not_repeat_the_query() -> None:
    with pytest.raises(NotConfonnxError) as caught:
        AnswerReader(REQUEST, 200, (WANTED, ("content-encoding", "gzip")))
    assert "secret-query" not in str(caught.value)
