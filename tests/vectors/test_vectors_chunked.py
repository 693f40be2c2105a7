"""Chunked Oblivious HTTP against draft-ietf-ohai-chunked-ohttp-08, bit for bit, from both of its sources."""

from __future__ import annotations

from typing import Any

import pytest

from confonnx.ohttp.bhttp import Request, Response, parse_request, parse_response
from confonnx.ohttp.chunked import (
    CHUNKED_REQUEST_MEDIA_TYPE,
    CHUNKED_RESPONSE_MEDIA_TYPE,
    ChunkedRequestOpener,
    ChunkedRequestSealer,
)
from confonnx.ohttp.hpke import Aead, Kem, PrivateKey
from confonnx.ohttp.key_config import parse_key_config
from tests.support.shared import vector
from tests.unit.ohttp.single_key import SingleKey

DRAFT: dict[str, Any] = vector("vectors-protocol/ohttp/chunked-ohttp-draft08-example.json")
(TS,) = vector("vectors-protocol/ohttp/ohttp-ts-chunked-ohttp-08.json")["vectors"]
SOURCES = pytest.mark.parametrize("source", [DRAFT, TS], ids=["draft", "ohttp-ts"])


def split(plaintext: bytes, lengths: list[int]) -> list[bytes]:
    parts, start = [], 0
    for length in lengths:
        parts.append(plaintext[start : start + length])
        start += length
    assert start == len(plaintext)
    return parts


# ohttp-ts lists plaintexts that do not agree with its own ciphertexts; where the chunks end is the draft's.
REQUEST_CHUNKS = split(bytes.fromhex(DRAFT["request_bhttp"]), DRAFT["request_plaintext_chunk_lengths"])
RESPONSE_CHUNKS = split(bytes.fromhex(DRAFT["response_bhttp"]), DRAFT["response_plaintext_chunk_lengths"])


def sealer(source: dict[str, Any]) -> ChunkedRequestSealer:
    config = parse_key_config(bytes.fromhex(DRAFT["keyConfig"]))
    return ChunkedRequestSealer(config, aead=Aead.AES_128_GCM, randomness=bytes.fromhex(source["skE"]))


def gateway(source: dict[str, Any]) -> SingleKey:
    return SingleKey(1, PrivateKey.from_bytes(Kem.X25519, bytes.fromhex(source["skR"])))


def test_the_sources_agree_and_the_media_types_are_the_drafts() -> None:
    for name in ("skR", "skE", "enc", "encapsulatedRequest", "encapsulatedResponse", "secret", "salt", "prk"):
        assert DRAFT[name] == TS[name]
    assert DRAFT["media_types"] == [CHUNKED_REQUEST_MEDIA_TYPE, CHUNKED_RESPONSE_MEDIA_TYPE]


@SOURCES
def test_client(source: dict[str, Any]) -> None:
    request = sealer(source)
    *chunks, final = REQUEST_CHUNKS
    sealed = [*(request.seal([chunk]) for chunk in chunks), request.finish([final])]
    assert b"".join(sealed).hex() == source["encapsulatedRequest"]
    response = request.response_opener()
    opened = response.feed(bytes.fromhex(source["encapsulatedResponse"]))
    assert [bytes(chunk) for chunk in (*opened, response.finish())] == RESPONSE_CHUNKS
    assert parse_response(b"".join(RESPONSE_CHUNKS)) == Response(200)


@SOURCES
def test_gateway(source: dict[str, Any]) -> None:
    request = ChunkedRequestOpener(gateway(source))
    opened = request.feed(bytes.fromhex(source["encapsulatedRequest"]))
    assert [bytes(chunk) for chunk in (*opened, request.finish())] == REQUEST_CHUNKS
    assert parse_request(b"".join(REQUEST_CHUNKS)) == Request("GET", "https", "example.com", "/")
    assert request.enc is not None
    assert request.enc.hex() == source["enc"]
    nonce = bytes.fromhex(source["salt"])[len(request.enc) :]
    response = request.response_sealer(randomness=nonce)
    *chunks, final = RESPONSE_CHUNKS
    sealed = [*(response.seal([chunk]) for chunk in chunks), response.finish([final])]
    assert b"".join(sealed).hex() == source["encapsulatedResponse"]


def test_chunk_by_chunk() -> None:
    request = sealer(TS)
    for plaintext, entry in zip(REQUEST_CHUNKS, TS["requestChunks"], strict=True):
        sealed = request.finish([plaintext]) if entry.get("final") else request.seal([plaintext])
        assert sealed.hex().endswith(entry["ciphertext"])
    for plaintext, entry in zip(RESPONSE_CHUNKS, TS["responseChunks"], strict=True):
        assert plaintext.hex() == entry["plaintext"]
