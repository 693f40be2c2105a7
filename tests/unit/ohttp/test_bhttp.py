from __future__ import annotations

import time
from dataclasses import replace

import pytest

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import (
    KEPT_REQUESTS,
    BhttpLimits,
    Fields,
    InformationalResponse,
    Request,
    RequestHead,
    RequestParser,
    Response,
    encode_request,
    encode_response,
    parse_request,
    parse_response,
)
from confonnx.ohttp.reader import Buffer, encode_varint

FULL = Request(
    "POST",
    "https",
    "example.com:8443",
    "/v2/models/m/infer?x=%20",
    (("date", "now"), ("x", "")),
    b"body",
    (("t", "1"),),
)


def text(value: bytes | str) -> bytes:
    raw = value.encode("latin-1") if isinstance(value, str) else value
    return encode_varint(len(raw)) + raw


def request_bytes(*control: str, rest: bytes = b"", framing: int = 0) -> bytes:
    return bytes((framing,)) + b"".join(map(text, control)) + rest


GET = request_bytes("GET", "https", "a", "/")
GET_INDETERMINATE = request_bytes("GET", "https", "a", "/", framing=2)
OK = b"\x01\x40\xc8"
OK_INDETERMINATE = b"\x03\x40\xc8"


def section(*lines: tuple[str, str]) -> bytes:
    return text(b"".join(text(name) + text(value) for name, value in lines))


def test_request_round_trip() -> None:
    parsed = parse_request(b"".join(encode_request(FULL)))
    assert parsed == FULL
    assert parsed.field("date") == "now"
    assert parsed.field("x") == ""
    assert parsed.field("absent") is None


def test_response_round_trip() -> None:
    early = (InformationalResponse(103, (("link", "</a>"),)), InformationalResponse(100))
    response = Response(503, (("date", "now"),), b"later", (("t", "1"),), early)
    parsed = parse_response(b"".join(encode_response(response)))
    assert parsed == response
    assert parsed.field("date") == "now"
    assert parsed.field("absent") is None


def test_body_is_a_part_of_its_own_and_a_view() -> None:
    body = bytearray(b"x" * 1000)
    parts = encode_request(Request("POST", "https", "a", "/", body=body))
    assert any(part is body for part in parts), "the encoder copied the body"
    message = bytearray(b"".join(parts))
    parsed = parse_request(message)
    assert isinstance(parsed.body, memoryview)
    assert parsed.body.readonly
    assert parsed.body.obj is message, "the parser copied the body"


PARTS: list[Buffer] = [b"head", memoryview(b"tensor")]


def test_a_body_in_parts_is_the_same_message_and_not_joined() -> None:
    fields = (("content-length", "10"),)
    parts = encode_response(Response(200, fields), PARTS)
    assert b"".join(parts) == b"".join(encode_response(Response(200, fields, b"headtensor")))
    assert parts[1] is PARTS[0]
    assert parts[2] is PARTS[1]
    request = Request("POST", "http", "a", "/", trailers=(("t", "1"),))
    assert parse_request(b"".join(encode_request(request, PARTS))).body == b"headtensor"


def test_a_body_in_parts_obeys_the_rules() -> None:
    with pytest.raises(BhttpError, match="content-length is not the size of the body, which has 10 bytes"):
        encode_response(Response(200, (("content-length", "11"),)), PARTS)
    with pytest.raises(ValueError, match="has a body"):
        encode_response(Response(200, (), b"x"), PARTS)


@pytest.mark.parametrize("size", [1 << 16, 1 << 24])
@pytest.mark.parametrize("path", ["/" + "p" * length for length in range(8)])
@pytest.mark.parametrize("fields", [(), (("f", "v"),), (("f", "v" * 100),)])
def test_a_large_body_is_aligned_where_the_message_will_lie(size: int, path: str, fields: Fields) -> None:
    body = bytes(size)
    request = Request("POST", "http", "a", path, fields)
    parts = encode_request(request, [body], offset=7)
    assert (7 + len(parts[0])) % 16 == 0
    assert len(parts[0]) <= len(encode_request(request, [body])[0]) + 31
    assert parse_request(b"".join(parts)) == replace(request, body=body)
    response = Response(200, (*fields, ("p", path)))
    parts = encode_response(response, [body], offset=0)
    assert len(parts[0]) % 16 == 0 or len(parts[0]) % 16 == len(encode_response(response, [body])[0]) % 16
    assert parse_response(b"".join(parts)) == replace(response, body=body)


@pytest.mark.parametrize("length", range(16384, 16392))
def test_what_no_lengths_align_stays_as_short_as_it_can_be(length: int) -> None:
    response = Response(200, (("f", "v" * length),))
    parts = encode_response(response, [bytes(1 << 16)], offset=0)
    shortest = encode_response(response, [bytes(1 << 16)])
    assert len(parts[0]) % 16 == 0 or parts == shortest
    assert parse_response(b"".join(parts)) == parse_response(b"".join(shortest))


def test_a_small_body_has_the_shortest_encoding() -> None:
    assert encode_request(FULL, offset=1) == encode_request(FULL)


def test_repeated_fields_are_joined() -> None:
    request = Request("GET", "https", "a", "/", (("accept", "a"), ("x", "1"), ("accept", "b")))
    assert request.field("accept") == "a, b"


@pytest.mark.parametrize("rest", ["", "00", "0000", "000000", "000000" + "00" * 100])
@pytest.mark.parametrize("head", [GET, GET_INDETERMINATE], ids=["known", "indeterminate"])
def test_truncated_and_padded_requests_are_the_same(head: bytes, rest: str) -> None:
    assert parse_request(head + bytes.fromhex(rest)) == Request("GET", "https", "a", "/")


@pytest.mark.parametrize("rest", ["", "00", "0000", "000000", "000000" + "00" * (1 << 17)])
@pytest.mark.parametrize("head", [OK, OK_INDETERMINATE], ids=["known", "indeterminate"])
def test_truncated_and_padded_responses_are_the_same(head: bytes, rest: str) -> None:
    assert parse_response(head + bytes.fromhex(rest)) == Response(200)


@pytest.mark.parametrize("position", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1])
def test_padding_is_zero(position: int) -> None:
    padding = bytearray((1 << 16) + 2)
    padding[position] = 1
    with pytest.raises(BhttpError, match="bytes other than zero follow the message"):
        parse_request(GET + bytes(3) + padding)


def test_every_other_truncation_of_a_request_is_refused() -> None:
    """RFC 9292 §3.8: only before the headers, the content or the trailers may a message end."""
    message = b"".join(encode_request(FULL))
    control = len(request_bytes(FULL.method, FULL.scheme, FULL.authority, FULL.path))
    headers = control + len(section(*FULL.fields))
    content = headers + 1 + len(FULL.body)
    expected = {
        control: Request(FULL.method, FULL.scheme, FULL.authority, FULL.path),
        headers: Request(FULL.method, FULL.scheme, FULL.authority, FULL.path, FULL.fields),
        content: Request(FULL.method, FULL.scheme, FULL.authority, FULL.path, FULL.fields, FULL.body),
    }
    for size in range(len(message)):
        if size in expected:
            assert parse_request(message[:size]) == expected[size]
        else:
            with pytest.raises(BhttpError):
                parse_request(message[:size])


def test_every_other_truncation_of_an_indeterminate_response_is_refused() -> None:
    early = text("link") + text("</a>") + b"\0"
    headers = b"\x03\x40\x67" + early + b"\x40\xc8" + text("date") + text("now") + b"\0"
    content = text(b"one") + text(b"two") + b"\0"
    message = headers + content + text("t") + text("1") + b"\0"
    informational = (InformationalResponse(103, (("link", "</a>"),)),)
    fields = (("date", "now"),)
    expected = {
        len(b"\x03\x40\x67" + early + b"\x40\xc8"): Response(200, informational=informational),
        len(headers): Response(200, fields, informational=informational),
        len(headers + content): Response(200, fields, b"onetwo", informational=informational),
    }
    assert parse_response(message) == Response(200, fields, b"onetwo", (("t", "1"),), informational)
    for size in range(len(message)):
        if size in expected:
            assert parse_response(message[:size]) == expected[size]
        else:
            with pytest.raises(BhttpError):
                parse_response(message[:size])


def test_one_chunk_stays_a_view() -> None:
    message = GET_INDETERMINATE + b"\0" + text(b"chunk") + b"\0"
    assert isinstance(parse_request(message).body, memoryview)


@pytest.mark.parametrize("framing", [1, 2, 3, 4, 63])
def test_framing_of_the_other_kind(framing: int) -> None:
    if framing != 2:
        with pytest.raises(BhttpError, match=f"of a request is 0 or 2, not {framing}"):
            parse_request(bytes((framing,)) + GET[1:])
    if framing not in (1, 3):
        with pytest.raises(BhttpError, match=f"of a response is 1 or 3, not {framing}"):
            parse_response(bytes((framing,)) + OK[1:])


@pytest.mark.parametrize(
    ("control", "text_"),
    [
        (("", "https", "a", "/"), "method is not a token"),
        (("GE T", "https", "a", "/"), "method is not a token"),
        (("GET\r\n", "https", "a", "/"), "method is not a token"),
        (("CONNECT", "https", "a", "/"), "method is CONNECT"),
        (("GET", "", "a", "/"), "scheme"),
        (("GET", "ht tp", "a", "/"), "scheme"),
        (("GET", "1http", "a", "/"), "scheme"),
        (("GET", "https", "user@a", "/"), "authority"),
        (("GET", "https", "a/b", "/"), "authority"),
        (("GET", "https", "a b", "/"), "authority"),
        (("GET", "https", "a%2", "/"), "authority"),
        (("GET", "https", "a", ""), "path"),
        (("GET", "https", "a", "*"), "path"),
        (("GET", "https", "a", "v2"), "path"),
        (("GET", "https", "a", "https://a/"), "path"),
        (("GET", "https", "a", "/a b"), "path"),
        (("GET", "https", "a", "/a#b"), "path"),
        (("GET", "https", "a", "/%zz"), "path"),
        (("GET", "https", "a", "/\r\nx: y"), "path"),
        (("GET", "https", "a", "/\xe9"), "path"),
    ],
)
def test_control_data(control: tuple[str, str, str, str], text_: str) -> None:
    with pytest.raises(BhttpError, match=text_):
        parse_request(request_bytes(*control))
    with pytest.raises(BhttpError, match=text_):
        Request(*control)


def test_control_data_that_is_allowed() -> None:
    assert parse_request(request_bytes("OPTIONS", "http", "", "*")).path == "*"
    assert parse_request(request_bytes("GET", "http", "[::1]:80", "/a?b=/?&c=%2F")).authority == "[::1]:80"


@pytest.mark.parametrize("status", [0, 99, 600, 16383])
def test_final_status(status: int) -> None:
    with pytest.raises(BhttpError, match=f"not {status}"):
        parse_response(b"\x01" + encode_varint(status) + bytes(8))
    with pytest.raises(BhttpError, match=f"200..599, not {status}"):
        Response(status)


@pytest.mark.parametrize("status", [0, 99, 200])
def test_informational_status(status: int) -> None:
    with pytest.raises(BhttpError, match=f"100..199, not {status}"):
        InformationalResponse(status)


BAD_FIELDS = [
    ("", "x", "name of field 1"),
    ("Date", "x", "name of field 1"),
    ("a b", "x", "name of field 1"),
    ("a:", "x", "name of field 1"),
    (":method", "POST", "name of field 1"),
    (":status", "200", "name of field 1"),
    (":protocol", "x", "name of field 1"),
    ("a\0", "x", "name of field 1"),
    ("caf\xe9", "x", "name of field 1"),
    ("x", "a\r\nb: c", "value of field 1"),
    ("x", "a\nb", "value of field 1"),
    ("x", "a\0b", "value of field 1"),
    ("x", "a\x7fb", "value of field 1"),
    ("x", "a\x1bb", "value of field 1"),
    ("x", " a", "value of field 1"),
    ("x", "a ", "value of field 1"),
    ("x", "\ta", "value of field 1"),
    ("x", "\t", "value of field 1"),
    ("x", "a\n", "value of field 1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_FIELDS)
def test_fields_that_are_refused(name: str, value: str, message: str) -> None:
    """In headers, trailers and informational responses, in both encodings, and in messages of our own."""
    good = ("ok", "yes")
    known = section(good, (name, value))
    lines = text("ok") + text("yes") + text(name) + text(value) + b"\0"
    for data in (GET + known, GET + b"\0\0" + known):
        with pytest.raises(BhttpError, match=message):
            parse_request(data)
    for data in (OK + known, OK + b"\0\0" + known, b"\x01\x40\x67" + known + OK[1:]):
        with pytest.raises(BhttpError, match=message):
            parse_response(data)
    if name:  # an empty name ends a section of indeterminate length
        with pytest.raises(BhttpError, match=message):
            parse_request(GET_INDETERMINATE + lines)
    fields: Fields = (good, (name, value))
    for build in (
        lambda: Request("GET", "https", "a", "/", fields),
        lambda: Request("GET", "https", "a", "/", trailers=fields),
        lambda: Response(200, fields),
        lambda: Response(200, trailers=fields),
        lambda: InformationalResponse(103, fields),
    ):
        with pytest.raises(BhttpError, match=message):
            build()


def test_field_values_that_are_allowed() -> None:
    fields = (("a", ""), ("b", "x\ty z"), ("c", "caf\xe9"), ("!#$%&'*+-.^_`|~09az", "1"))
    assert parse_request(GET + section(*fields)).fields == fields


@pytest.mark.parametrize("place", ["{}", "{}b", "a{}", "a{}b"])
def test_every_character_of_a_field_value(place: str) -> None:
    allowed = {chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))}
    if place == "a{}b":
        allowed |= {" ", "\t"}
    for code in range(0x110):
        fields = (("f", place.format(chr(code))),)
        if chr(code) in allowed:
            assert Response(200, fields).field("f") == place.format(chr(code))
        else:
            with pytest.raises(BhttpError, match="value of field 0"):
                Response(200, fields)


def test_a_long_path_that_is_wrong_at_its_end_is_refused_at_once() -> None:
    started = time.perf_counter()
    with pytest.raises(BhttpError, match="the path"):
        Request("GET", "http", "a", "/" + "a%20" * 2000 + "%")
    assert time.perf_counter() - started < 1


def test_values_beyond_latin_1_cannot_be_encoded() -> None:
    with pytest.raises(BhttpError, match="beyond Latin-1"):
        Request("GET", "https", "a", "/", (("x", "\u20ac"),))


@pytest.mark.parametrize(
    ("authority", "hosts", "text_"),
    [
        ("a", ("b",), "differs from the authority"),
        ("a", ("a", "a"), "2 host fields"),
        ("", ("a", "b"), "2 host"),
    ],
)
def test_host_and_authority(authority: str, hosts: tuple[str, ...], text_: str) -> None:
    with pytest.raises(BhttpError, match=text_):
        Request("GET", "https", authority, "/", tuple(("host", host) for host in hosts))


def test_host_that_agrees() -> None:
    assert (
        Request("GET", "https", "Example.com", "/", (("host", "example.COM"),)).field("host") == "example.COM"
    )
    assert Request("GET", "https", "", "/", (("host", "a"),)).authority == ""


@pytest.mark.parametrize("value", ["3", "5", "+4", "4, 4", "-4", "", "4" * 30])
def test_content_length_contradicts_the_body(value: str) -> None:
    with pytest.raises(BhttpError, match="which has 4 bytes"):
        Request("POST", "https", "a", "/", (("content-length", value),), b"body")
    with pytest.raises(BhttpError, match="which has 4 bytes"):
        Response(200, (("content-length", value),), b"body")


def test_content_length_that_agrees() -> None:
    fields = (("content-length", "4"),)
    assert Request("POST", "https", "a", "/", fields, b"body").fields == fields
    assert Response(200, fields, b"body").fields == fields
    assert Response(200, fields).fields == fields, "the response to a HEAD request"


LIMITS = BhttpLimits(
    max_control_bytes=20, max_field_section_bytes=30, max_fields=3, max_informational=2, max_chunks=2
)


def test_limits_at_their_edge() -> None:
    fields = tuple(("abcd", "1234") for _ in range(3))
    assert len(section(*fields)) == 1 + 30
    indeterminate = b"".join(text(name) + text(value) for name, value in fields) + b"\0"
    assert parse_request(GET + section(*fields), LIMITS).fields == fields
    assert parse_request(GET_INDETERMINATE + indeterminate, LIMITS).fields == fields
    assert parse_request(request_bytes("GET", "https", "a", "/" + "p" * 19), LIMITS).path == "/" + "p" * 19
    assert len(parse_response(b"\x01" + b"\x40\x64\x00" * 2 + OK[1:], LIMITS).informational) == 2
    assert parse_request(GET_INDETERMINATE + b"\0\x01a\x01b\0", LIMITS).body == b"ab"


@pytest.mark.parametrize(
    ("data", "text_"),
    [
        (GET + b"\x1f" + bytes(31), "field section has 31 bytes, the limit is 30"),
        (GET + b"\xff" * 8, "field section has 4611686018427387903 bytes"),
        (GET + section(("a", ""), ("b", ""), ("c", ""), ("d", "")), "more than 3 field lines"),
        (GET_INDETERMINATE + b"\x01a\x00" * 4 + b"\0", "more than 3 field lines"),
        (GET_INDETERMINATE + text("n" * 31), "a field section has more than 30 bytes"),
        (GET_INDETERMINATE + text("n" * 20) + text("v" * 10), "field value has 10 bytes, the limit is"),
        (request_bytes("GET", "https", "a", "/" + "p" * 20), "path has 21 bytes, the limit is 20"),
        (request_bytes("G" * 21, "https", "a", "/"), "method has 21 bytes, the limit is 20"),
        (GET_INDETERMINATE + b"\0\x01a\x01b\x01c\0", "more than 2 chunks"),
        (GET + b"\0" + b"\xff" * 8, "content is truncated: needs 4611686018427387903 bytes, 0 are left"),
    ],
)
def test_over_a_limit(data: bytes, text_: str) -> None:
    """Nothing is allocated for a length that was only announced: 2^62 bytes fail like one byte too many."""
    with pytest.raises(BhttpError, match=text_):
        parse_request(data, LIMITS)


def test_informational_limit() -> None:
    with pytest.raises(BhttpError, match="more than 2 informational responses"):
        parse_response(b"\x01" + b"\x40\x64\x00" * 3 + OK[1:], LIMITS)


def test_errors_and_representations_hold_nothing_of_the_message() -> None:
    """Rule 12: what was sealed must not reach a log through ``repr`` or an exception."""
    canary = "canary"
    fields = (("authorization", canary), ("x-" + canary, canary))
    request = Request("POST", "https", canary, "/" + canary, fields, canary.encode())
    response = Response(200, fields, canary.encode(), informational=(InformationalResponse(103, fields),))
    shown = [repr(request), repr(response), repr(response.informational)]
    for data in (
        request_bytes(canary + "\0", "https", "a", "/"),
        request_bytes("GET", canary + "\0", "a", "/"),
        request_bytes("GET", "https", canary + "\0", "/"),
        request_bytes("GET", "https", "a", "/" + canary + "\0"),
        GET + section((canary + " ", "x")),
        GET + section(("x", canary + "\0")),
        GET + section(("host", canary)),
        GET + section(("content-length", canary)),
        GET + b"\0\0\0" + canary.encode(),
    ):
        with pytest.raises(BhttpError) as caught:
            parse_request(data)
        shown.append(str(caught.value))
    assert [item for item in shown if canary in item] == []


# One sender's requests, whose heads repeat.


def message_of(path: str, body: bytes, *fields: tuple[str, str]) -> bytes:
    return b"".join(encode_request(Request("POST", "https", "a", path, fields, body)))


def test_a_head_that_repeats_is_the_same_object() -> None:
    parser = RequestParser()
    head, body = parser.parse(message_of("/x", b"one", ("date", "now")))
    assert (head.method, head.scheme, head.authority, head.path) == ("POST", "https", "a", "/x")
    assert (head.field("date"), head.field("age"), bytes(body)) == ("now", None, b"one")
    again, body = parser.parse(message_of("/x", b"two", ("date", "now")))
    assert again is head
    assert bytes(body) == b"two"
    other, body = parser.parse(message_of("/x", b"another", ("date", "now")))
    assert (other, bytes(body)) == (head, b"another")
    assert other is not head, "what is said of the content's size is part of the beginning"
    other, _ = parser.parse(message_of("/x", b"one", ("date", "yes")))
    assert other.field("date") == "yes"
    assert parser.parse(message_of("/y", b"one", ("date", "yes")))[0].path == "/y"


def test_beginnings_of_the_last_sizes_are_kept() -> None:
    parser = RequestParser()
    messages = [message_of("/x", b"b" * size) for size in range(1, KEPT_REQUESTS + 2)]
    heads = [parser.parse(message)[0] for message in messages]
    for message, head in list(zip(messages, heads, strict=True))[1:]:
        assert parser.parse(message)[0] is head
    assert parser.parse(messages[0])[0] is not heads[0]


def test_content_of_another_size_in_a_message_of_the_same_is_parsed_anew() -> None:
    parser = RequestParser()
    assert bytes(parser.parse(message_of("/x", b"body") + bytes(3))[1]) == b"body"
    assert bytes(parser.parse(message_of("/x", b"bodies") + bytes(1))[1]) == b"bodies"
    assert bytes(parser.parse(message_of("/x", b"body") + bytes(3))[1]) == b"body"


def test_a_message_that_was_cut_is_not_known_again() -> None:
    parser = RequestParser()
    whole = message_of("/x", b"body", ("a", "b"))
    control = whole[: whole.index(b"/x") + 2]
    for _ in range(2):
        assert parser.parse(control)[0].fields == ()
        assert parser.parse(whole)[0].fields == (("a", "b"),)
        with pytest.raises(BhttpError, match="truncated"):
            parser.parse(whole[: whole.index(b"body") + 3])


def test_a_large_head_is_parsed_each_time() -> None:
    parser = RequestParser()
    message = message_of("/x", b"", ("a", "b" * 4096))
    assert parser.parse(message)[0] == parser.parse(message)[0]
    assert parser.parse(message)[0] is not parser.parse(message)[0]


@pytest.mark.parametrize("repeated", [False, True])
def test_what_follows_a_known_head_is_checked_each_time(repeated: bool) -> None:
    parser = RequestParser()
    good = message_of("/x", b"body", ("content-length", "4"))
    if repeated:
        parser.parse(good)
    for bad, text in (
        (good[:-2] + b"\0\1", "trail|field"),
        (good + b"\0\1", "other than zero"),
        (good[: good.index(b"body") + 2], "content is truncated"),
        (good[: good.index(b"\4body")] + b"\0\0", "content-length is not the size"),
    ):
        with pytest.raises(BhttpError, match=text):
            parser.parse(bad)
    assert bytes(parser.parse(good + bytes(9))[1]) == b"body"


def test_trailers_are_checked_though_nobody_reads_them() -> None:
    parser, request = RequestParser(), Request("POST", "https", "a", "/", (), b"body", (("a", "b"),))
    message = b"".join(encode_request(request))
    assert bytes(parser.parse(message)[1]) == b"body"
    with pytest.raises(BhttpError, match="lower-case"):
        parser.parse(message.replace(b"\1a\1b", b"\1A\1b"))


def test_a_head_breaks_no_rule() -> None:
    with pytest.raises(BhttpError, match="the scheme"):
        RequestHead("GET", "1", "a", "/")
    with pytest.raises(BhttpError, match="host field differs"):
        RequestHead("GET", "https", "a", "/", (("host", "b"),))
    assert (
        repr(RequestHead("GET", "https", "secret", "/secret", (("a", "secret"),))) == "RequestHead(1 fields)"
    )
    twice = RequestHead("GET", "https", "a", "/", (("a", "1"), ("a", "2")))
    assert twice.field("a") == "1, 2"
