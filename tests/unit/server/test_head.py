"""Request heads: one verdict however the bytes are cut, and never anything but a verdict."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from confonnx.server.head import Head, HeadLimits, Rejection, RequestParser

LIMITS = HeadLimits(max_bytes=512, max_target=64, max_fields=8)
GOOD = (
    b"POST /ohttp?x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: message/ohttp-req\r\n\r\nhello"
)
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LINES = st.sampled_from(
    [b"Content-Length: 5", b"Content-Length: 6", b"Content-Length: 05", b"Transfer-Encoding: chunked",
     b"Host: a", b"Host: b", b"Connection: close", b"Expect: 100-continue", b"X: y", b" folded", b"X : y",
     b"X:", b"Upgrade: h2c"]
)  # fmt: skip


def verdict(data: bytes, cuts: tuple[int, ...] = ()) -> tuple[Head | Rejection, bytes] | None:
    parser = RequestParser(LIMITS)
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        if start == end:
            continue
        outcome = parser.feed_head(data[start:end])
        if outcome is not None:
            return outcome[0], outcome[1] + data[end:]
    return None


def test_good_head() -> None:
    outcome = verdict(GOOD)
    assert outcome is not None
    head, rest = outcome
    assert isinstance(head, Head)
    assert rest == b"hello"
    assert (head.method, head.target, head.length) == ("POST", "/ohttp?x", 5)
    assert head.fields == {"host": "a", "content-length": "5", "content-type": "message/ohttp-req"}
    assert head.keep_alive
    assert not head.chunked
    assert not head.expects_continue


@given(st.lists(LINES, max_size=5), st.lists(st.integers(0, 200), max_size=4))
@example([b"Host: a", b"Content-Length: 5"], [1, 2, 3])
def test_the_verdict_does_not_depend_on_the_cuts(lines: list[bytes], cuts: list[int]) -> None:
    data = b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\nrest"
    whole = verdict(data)
    cut = verdict(data, tuple(place for place in cuts if place < len(data)))
    assert whole is not None
    assert cut is not None
    assert cut[0] == whole[0]
    if isinstance(whole[0], Head):
        assert cut[1] == whole[1] == b"rest"


@given(st.lists(LINES, max_size=6))
def test_accepted_heads_have_one_framing(lines: list[bytes]) -> None:
    outcome = verdict(b"POST / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    assert outcome is not None
    if isinstance(outcome[0], Head):
        lengths = [line for line in lines if line.startswith(b"Content-Length")]
        codings = [line for line in lines if line.startswith(b"Transfer")]
        assert len(lengths) + len(codings) <= 1
        assert outcome[0].chunked == bool(codings)
        assert outcome[0].length == (int(lengths[0][15:]) if lengths else 0)
        assert sum(line.startswith(b"Host") for line in lines) == 1
        assert not {b" folded", b"X : y"} & set(lines)


@given(st.binary(max_size=600), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_any_bytes_give_a_verdict_or_a_wish_for_more(noise: bytes, start: int, end: int) -> None:
    for data in (noise, GOOD[:start] + noise + GOOD[end:]):
        outcome = verdict(data)
        if outcome is None:
            assert len(data) <= LIMITS.max_bytes
        elif isinstance(outcome[0], Head):
            assert outcome[0].target == "*" or outcome[0].target.startswith("/")
            assert len(outcome[0].target) <= LIMITS.max_target
        else:
            assert outcome[0].status in {400, 414, 417, 431, 505}


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), max_size=8),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_chunked_bodies(content: bytes, sizes: list[int], cuts: list[int]) -> None:
    encoded, left = b"", content
    for size in [*sizes, len(content)]:
        piece, left = left[:size], left[size:]
        encoded += b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""
    encoded += b"0\r\n\r\n"
    parser = RequestParser(LIMITS)
    assert parser.feed_head(CHUNKED) is not None
    body = parser.start_chunked(max_content=300)
    edges = [0, *sorted(place for place in cuts if place < len(encoded)), len(encoded)]
    outcomes = [parser.feed_chunked(encoded[a:b]) for a, b in pairwise(edges) if a != b]
    assert outcomes[-1] is True
    assert not any(outcomes[:-1])
    assert bytes(body) == content


@pytest.mark.parametrize("size", [10, 11])
def test_chunked_body_at_its_limit(size: int) -> None:
    parser = RequestParser(LIMITS)
    parser.feed_head(CHUNKED)
    parser.start_chunked(max_content=10)
    outcome = parser.feed_chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size)))
    assert outcome == (True if size == 10 else Rejection(413))
