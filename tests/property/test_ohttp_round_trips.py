"""What is encoded or sealed comes back as it was, for whatever hypothesis thinks of."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.errors import BhttpError
from confonnx.ohttp.bhttp import (
    Fields,
    InformationalResponse,
    Request,
    RequestParser,
    Response,
    encode_request,
    encode_response,
    parse_request,
    parse_response,
)
from confonnx.ohttp.encapsulation import encapsulate_request, open_request
from confonnx.ohttp.hpke import Aead, Kdf, Kem
from confonnx.ohttp.key_config import KeyConfig, encode_key_configs, parse_key_config, parse_key_configs
from confonnx.ohttp.padding import padme
from confonnx.ohttp.reader import encode_varint
from tests.unit.ohttp.single_key import SingleKey

TOKEN = "!#$%&'*+-.^_`|~0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"
NAMES = st.text(TOKEN + LOWER, min_size=1, max_size=80).filter(
    lambda name: name not in ("host", "content-length")
)
VISIBLE = [chr(code) for code in (*range(0x21, 0x7F), *range(0x80, 0x100))]
VALUES = st.text([*VISIBLE, " ", "\t"], max_size=80).filter(lambda value: value == value.strip(" \t"))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple)
BODIES = st.one_of(st.binary(max_size=100), st.integers(0, 70_000).map(bytes))
METHODS = st.text(TOKEN + LOWER.upper(), min_size=1, max_size=12).filter(lambda method: method != "CONNECT")
PATHS = st.text(LOWER + "0123456789-._~!$&'()*+,;=:@/?", max_size=100).map(lambda path: "/" + path)
REQUESTS = st.builds(
    Request,
    method=METHODS,
    scheme=st.sampled_from(["http", "https", "coap+tcp"]),
    authority=st.sampled_from(["", "a", "example.com:1", "[2001:db8::1]:443"]),
    path=PATHS,
    fields=FIELDS,
    body=BODIES,
    trailers=FIELDS,
)
RESPONSES = st.builds(
    Response,
    status=st.integers(200, 599),
    fields=FIELDS,
    body=BODIES,
    trailers=FIELDS,
    informational=st.lists(st.builds(InformationalResponse, st.integers(100, 199), FIELDS), max_size=3).map(
        tuple
    ),
)
KEYS = {kem: SingleKey.derived(kem) for kem in Kem}


def indeterminate_fields(fields: Fields) -> bytes:
    texts = [text.encode("latin-1") for line in fields for text in line]
    return b"".join(encode_varint(len(text)) + text for text in texts) + b"\0"


def indeterminate_sections(fields: Fields, body: bytes, trailers: Fields, chunk: int) -> bytes:
    """The second half of a message of indeterminate length (RFC 9292 §3.2), which we read but never write."""
    chunks = [body[start : start + chunk] for start in range(0, len(body), chunk)]
    content = b"".join(encode_varint(len(piece)) + piece for piece in chunks) + b"\0"
    return indeterminate_fields(fields) + content + indeterminate_fields(trailers)


@given(request=REQUESTS, padding=st.integers(0, 100))
def test_request(request: Request, padding: int) -> None:
    encoded = b"".join(encode_request(request))
    assert parse_request(encoded + bytes(padding)) == request
    assert b"".join(encode_request(parse_request(encoded))) == encoded


@given(response=RESPONSES, padding=st.integers(0, 100))
def test_response(response: Response, padding: int) -> None:
    encoded = b"".join(encode_response(response))
    assert parse_response(encoded + bytes(padding)) == response
    assert b"".join(encode_response(parse_response(encoded))) == encoded


@given(request=REQUESTS, chunk=st.integers(1000, 70_000), padding=st.integers(0, 100))
def test_request_of_indeterminate_length(request: Request, chunk: int, padding: int) -> None:
    control = [request.method, request.scheme, request.authority, request.path]
    head = b"\x02" + b"".join(encode_varint(len(text)) + text.encode("latin-1") for text in control)
    rest = indeterminate_sections(request.fields, bytes(request.body), request.trailers, chunk)
    assert parse_request(head + rest + bytes(padding)) == request


@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=3),
    order=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=8),
    data=st.data(),
)
def test_a_parser_that_remembers_says_what_one_without_memory_says(
    requests: list[Request], order: list[tuple[int, int]], data: st.DataObject
) -> None:
    parser = RequestParser()
    for number, padding in order:
        message = bytearray(b"".join(encode_request(requests[number % len(requests)])) + bytes(padding))
        if data.draw(st.booleans()):  # cut, changed or whole
            del message[data.draw(st.integers(0, len(message))) :]
            if message:
                message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(0, 255))
        try:
            expected = parse_request(message)
        except BhttpError:
            with pytest.raises(BhttpError):
                parser.parse(message)
            continue
        head, body = parser.parse(message)
        control = (expected.method, expected.scheme, expected.authority, expected.path, expected.fields)
        assert (head.method, head.scheme, head.authority, head.path, head.fields) == control
        assert bytes(body) == bytes(expected.body)
        assert all(head.field(name) == expected.field(name) for name, _ in expected.fields)


@given(response=RESPONSES, chunk=st.integers(1000, 70_000), padding=st.integers(0, 100))
def test_response_of_indeterminate_length(response: Response, chunk: int, padding: int) -> None:
    head = b"\x03"
    for early in response.informational:
        head += encode_varint(early.status) + indeterminate_fields(early.fields)
    head += encode_varint(response.status)
    rest = indeterminate_sections(response.fields, bytes(response.body), response.trailers, chunk)
    assert parse_response(head + rest + bytes(padding)) == response


@settings(deadline=None)
@given(
    kem=st.sampled_from(Kem),
    aead=st.sampled_from(Aead),
    request=st.lists(st.binary(max_size=300), max_size=4),
    response=st.lists(st.binary(max_size=300), max_size=4),
    pads=st.tuples(st.booleans(), st.booleans()),
    writable=st.booleans(),
)
def test_encapsulation(
    kem: Kem,
    aead: Aead,
    request: list[bytes],
    response: list[bytes],
    pads: tuple[bool, bool],
    writable: bool,
) -> None:
    message, opener = encapsulate_request(KEYS[kem].config(), request, aead=aead, pad=pads[0])
    opened = open_request(KEYS[kem], message if writable else bytes(message))
    assert bytes(opened.plaintext) == padded(b"".join(request), pads[0])
    sealed = opened.sealer.seal(response, pad=pads[1])
    assert bytes(opener.open(sealed if writable else bytes(sealed))) == padded(b"".join(response), pads[1])


def padded(plaintext: bytes, pad: bool) -> bytes:
    return plaintext.ljust(padme(len(plaintext)), b"\0") if pad else plaintext


@settings(deadline=None)
@given(
    kems=st.lists(st.sampled_from(Kem), min_size=1, max_size=4),
    algorithms=st.lists(
        st.sampled_from([(kdf, aead) for kdf in Kdf for aead in Aead]), min_size=1, unique=True
    ),
)
def test_key_configurations(kems: list[Kem], algorithms: list[tuple[Kdf, Aead]]) -> None:
    configs = tuple(
        KeyConfig(number, kem, KEYS[kem].key.public_key, tuple(algorithms)) for number, kem in enumerate(kems)
    )
    assert parse_key_configs(encode_key_configs(configs)) == configs
    assert [parse_key_config(config.encode()) for config in configs] == list(configs)


@given(length=st.integers(0, 1 << 50))
def test_padme(length: int) -> None:
    bucket = padme(length)
    assert length <= bucket
    assert bucket - length <= length * 0.12
    assert padme(bucket) == bucket
