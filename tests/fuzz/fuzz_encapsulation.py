"""Key configurations and sealed messages, of sessions and in chunks too: any bytes give a value or the
documented ``ProtocolError``.

A mutated message never opens, always fails with the same text, and leaves zeros where it was opened.

``python -m tests.fuzz.fuzz_encapsulation --seconds 600``
"""

from __future__ import annotations

from confonnx.errors import EncapsulationError, KeyConfigError, TooLargeError, UnknownKeyError
from confonnx.ohttp.aead import OPEN_FAILED, Aead
from confonnx.ohttp.chunked import ChunkedRequestOpener, ChunkedRequestSealer
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    ResponseOpener,
    encapsulate_request,
    open_request,
    read_prefix,
)
from confonnx.ohttp.hpke import Kem, PrivateKey
from confonnx.ohttp.key_config import (
    KeyConfig,
    encode_key_configs,
    parse_key_config,
    parse_key_configs,
)
from confonnx.ohttp.session import SEQ_SIZE, ReceiverSession, SenderSession
from tests.fuzz.mutator import main

KEYS = {number: PrivateKey.derive(kem, bytes(range(32))) for number, kem in enumerate(Kem)}
CONFIGS = [KeyConfig(number, key.kem, key.public_key) for number, key in KEYS.items()]
REQUESTS = [
    bytes(encapsulate_request(config, [b"request"], aead=aead)[0]) for config in CONFIGS for aead in Aead
]
SESSION_REQUESTS = [
    bytes(sealed[0])
    for config in CONFIGS
    for aead in Aead
    for sealed in [SenderSession(config, aead=aead).seal([b"request"])]
    if sealed is not None
]
CHUNKED_REQUESTS = [
    bytes(sealer.seal([b"chunk"]) + sealer.finish([b"end"]))
    for sealer in (ChunkedRequestSealer(config) for config in CONFIGS)
]
CORPUS = [
    *REQUESTS,
    *SESSION_REQUESTS,
    *CHUNKED_REQUESTS,
    *(config.encode() for config in CONFIGS),
    encode_key_configs(CONFIGS),
]


class Keys:
    """The gateway's keys, by identifier."""

    def private_key(self, key_id: int) -> PrivateKey:
        """A :class:`confonnx.ohttp.encapsulation.KeyLookup`."""
        if key_id not in KEYS:
            raise UnknownKeyError(f"no key {key_id}")
        return KEYS[key_id]


def fuzz_encapsulation(data: bytes) -> None:
    """The target: ``data`` as a request of each kind, a response, a key configuration and a list of them."""
    _open_request(data)
    _open_session_request(data)
    _open_chunked_request(data)
    _open_response(data)
    try:
        config = parse_key_config(data)
    except KeyConfigError:
        pass
    else:
        assert parse_key_config(config.encode()) == config
    try:
        configs = parse_key_configs(data)
    except KeyConfigError:
        pass
    else:
        assert parse_key_configs(encode_key_configs(configs)) == configs


def _open_request(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        opened = open_request(Keys(), buffer)
    except UnknownKeyError:
        assert data[0] not in KEYS
    except EncapsulationError as error:
        _check_text(error)
        assert buffer == data or not any(_sealed_part(buffer)), "neither untouched nor wiped"
    else:
        assert data in REQUESTS, "a forged request opened"
        assert bytes(opened.plaintext) == b"request"


def _open_session_request(data: bytes) -> None:
    buffer = bytearray(data)
    try:
        opened = ReceiverSession(*read_prefix(Keys(), memoryview(buffer))).open(buffer)
    except UnknownKeyError:
        assert data[0] not in KEYS
    except EncapsulationError as error:
        _check_text(error)
        assert buffer == data or not any(_sealed_part(buffer)[SEQ_SIZE:]), "neither untouched nor wiped"
    else:
        assert data in SESSION_REQUESTS, "a forged request of a session opened"
        assert bytes(opened.plaintext) == b"request"


def _open_chunked_request(data: bytes) -> None:
    opener = ChunkedRequestOpener(Keys())
    middle = len(data) // 2
    try:
        chunks = [bytes(chunk) for half in (data[:middle], data[middle:]) for chunk in opener.feed(half)]
        assert all(chunk == b"chunk" for chunk in chunks), "a forged chunk opened"
        final = bytes(opener.finish())
    except UnknownKeyError:
        assert data[0] not in KEYS
    except EncapsulationError as error:
        _check_text(error)
    except TooLargeError:
        pass
    else:
        assert (chunks, final) == ([b"chunk"], b"end"), "a forged stream opened to its end"


def _sealed_part(message: bytearray) -> bytearray:
    return message[HEADER_SIZE + KEYS[message[0]].kem.enc_size :]


def _open_response(data: bytes) -> None:
    try:
        ResponseOpener(Aead.AES_128_GCM, bytes(16), b"enc", key_id=1).open(bytearray(data))
    except EncapsulationError as error:
        _check_text(error)
    else:
        raise AssertionError("a forged response opened")


def _check_text(error: EncapsulationError) -> None:
    assert str(error) == OPEN_FAILED


if __name__ == "__main__":
    main(fuzz_encapsulation, CORPUS)
