"""The test vectors beside the specifications: ``docs/spec/vectors/*.json``.

    python -m tests.support.spec_vectors --write

writes them anew; ``tests/vectors/test_spec_vectors.py`` holds the code to what is committed. All randomness
is fixed, except that of an X-Wing sender, whose coins the library does not let us choose: that one exchange
is kept from the file, and checked from the receiver's side.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from confonnx.attestation.statement import report_data
from confonnx.errors import ConfonnxError, UnknownKeyError
from confonnx.ohttp import bhttp
from confonnx.ohttp.aead import TAG_SIZE
from confonnx.ohttp.bhttp_stream import (
    CONTENT_END,
    content_chunks,
    encode_request_head,
    encode_response_head,
)
from confonnx.ohttp.chunked import ChunkedRequestOpener, ChunkedRequestSealer, ChunkedResponseSealer
from confonnx.ohttp.encapsulation import HEADER_SIZE, encapsulate_request, open_request, read_prefix
from confonnx.ohttp.hpke import Buffer, Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig, encode_key_configs
from confonnx.ohttp.session import MAX_REQUESTS, SEQ_SIZE, ReceiverSession, SenderSession
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.records import CHUNK_BYTES, NOTICE, RECORDS_MEDIA_TYPE, encode_record
from tests.support import simulated_server

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "spec" / "vectors"

_SEED = bytes(range(32))  # input keying material of the gateway's keys
_EPHEMERAL = bytes(range(64, 96))  # the X25519 sender's private key
_RESPONSE_NONCE = bytes(range(128, 144))
_DATE = "Tue, 24 Nov 2026 08:00:00 GMT"
_MASKS = {"the last bit": (-1, 1), "the first bit of enc": (7, 128), "the AEAD": (6, 3)}


class _Keys:
    """The gateway's keys by identifier."""

    def __init__(self, *keys: tuple[int, PrivateKey]) -> None:
        self._keys = dict(keys)

    def private_key(self, key_id: int) -> PrivateKey:
        """See ``KeyLookup``; here every other identifier is unknown."""
        try:
            return self._keys[key_id]
        except KeyError:
            raise UnknownKeyError("no such key") from None


def wire() -> dict[str, Any]:
    """One inference in every layer, and messages that must not open."""
    question = messages.InferRequest(
        inputs=(
            messages.InferInput(
                "image", TensorType(Datatype.FP32, (1, 2)), np.array([[0.5, -2]], np.float32)
            ),
        ),
        id="vector",
    )
    encoded = binary.encode_infer_request(question)
    request = bhttp.Request(
        "POST",
        "https",
        "confonnx.example",
        "/v2/models/digits/versions/1/infer",
        (
            ("date", _DATE),
            ("content-type", encoded.content_type),
            (binary.HEADER_LENGTH_FIELD, str(encoded.header_length)),
        ),
        b"".join(encoded.parts),
    )
    answer = binary.encode_infer_response(
        messages.InferResponse(
            "digits", "1", (messages.InferOutput("digit", TensorType(Datatype.INT64, (1,)), np.array([7])),)
        ),
        question,
    )
    response = bhttp.Response(
        200,
        (
            ("date", _DATE),
            ("content-type", answer.content_type),
            (binary.HEADER_LENGTH_FIELD, str(answer.header_length)),
        ),
        b"".join(answer.parts),
    )
    request_bytes, response_bytes = (
        _joined(bhttp.encode_request(request)),
        _joined(bhttp.encode_response(response)),
    )
    key = PrivateKey.derive(Kem.X25519, _SEED)
    config = KeyConfig(key_id=1, kem=Kem.X25519, public_key=key.public_key)
    sealed, opener = encapsulate_request(config, [request_bytes], randomness=_EPHEMERAL)
    opened = open_request(_Keys((1, key)), bytes(sealed))
    sealed_answer = opened.sealer.seal([response_bytes], randomness=_RESPONSE_NONCE)
    assert bytes(opener.open(bytes(sealed_answer))).startswith(response_bytes)
    return {
        "what": "docs/spec/wire.md: an inference over KEM 0x0020; all values hexadecimal",
        "key_seed": _SEED.hex(),
        "key_configurations": encode_key_configs([config]).hex(),
        "ephemeral_private_key": _EPHEMERAL.hex(),
        "request_bhttp": request_bytes.hex(),
        "request_sealed": sealed.hex(),
        "response_nonce": _RESPONSE_NONCE.hex(),
        "response_bhttp": response_bytes.hex(),
        "response_sealed": sealed_answer.hex(),
        "refused": [
            {"what": name, "request": message.hex(), "error": _error(key, message)}
            for name, message in _damaged(bytes(sealed)).items()
        ],
    }


def xwing(kept: dict[str, Any] | None) -> dict[str, Any]:
    """One request sealed over KEM 0x647a: the one that is kept, or else a new one."""
    key = PrivateKey.derive(Kem.MLKEM768_X25519, _SEED)
    config = KeyConfig(key_id=2, kem=Kem.MLKEM768_X25519, public_key=key.public_key)
    plaintext = b"confonnx"
    sealed = bytes.fromhex(kept["request_sealed"]) if kept else encapsulate_request(config, [plaintext])[0]
    opened = open_request(_Keys((2, key)), bytes(sealed))
    return {
        "what": "docs/spec/wire.md: a request over KEM 0x647a; all values hexadecimal",
        "key_seed": _SEED.hex(),
        "key_configurations": encode_key_configs([config]).hex(),
        "request_sealed": bytes(sealed).hex(),
        "request_plaintext": bytes(opened.plaintext).hex(),
        "response_nonce": _RESPONSE_NONCE.hex(),
        "response_plaintext": plaintext.hex(),
        "response_sealed": opened.sealer.seal([plaintext], randomness=_RESPONSE_NONCE).hex(),
    }


def session() -> dict[str, Any]:
    """Two requests of one session over KEM 0x0020, a response, and messages that must not open."""
    key = PrivateKey.derive(Kem.X25519, _SEED)
    config = KeyConfig(key_id=1, kem=Kem.X25519, public_key=key.public_key)
    sender = SenderSession(config, randomness=_EPHEMERAL)
    exchanges = [sender.seal([text]) for text in (b"first", b"second")]
    (one, _), (two, opener) = [exchange for exchange in exchanges if exchange is not None]
    first, second = bytes(one), bytes(two)
    keys = _Keys((1, key))
    receiver = ReceiverSession(*read_prefix(keys, memoryview(first)))
    answer = receiver.open(second).sealer.seal([b"answer"], randomness=_RESPONSE_NONCE)
    assert bytes(opener.open(bytes(answer))) == b"answer"
    start = HEADER_SIZE + Kem.X25519.enc_size
    damaged = {
        **_damaged(second),
        "the number of another request": second[:start]
        + first[start : start + SEQ_SIZE]
        + second[start + 8 :],
        "a number over the last": second[:start]
        + MAX_REQUESTS.to_bytes(SEQ_SIZE, "big")
        + second[start + 8 :],
        "no number": second[:start],
    }
    return {
        "what": "docs/spec/sessions.md: two requests of a session over KEM 0x0020; all values hexadecimal",
        "key_seed": _SEED.hex(),
        "key_configurations": encode_key_configs([config]).hex(),
        "ephemeral_private_key": _EPHEMERAL.hex(),
        "requests": [
            {"plaintext": text.hex(), "sealed": message.hex()}
            for text, message in ((b"first", first), (b"second", second))
        ],
        "response_to": 1,
        "response_nonce": _RESPONSE_NONCE.hex(),
        "response_plaintext": b"answer".hex(),
        "response_sealed": answer.hex(),
        "refused": [
            {"what": name, "request": message.hex(), "error": _session_error(keys, message)}
            for name, message in damaged.items()
        ],
    }


def stream() -> dict[str, Any]:
    """Two records of one stream over KEM 0x0020, their answers and a notice; cut and damaged ones."""
    key = PrivateKey.derive(Kem.X25519, _SEED)
    config = KeyConfig(key_id=1, kem=Kem.X25519, public_key=key.public_key)
    fields = (("date", _DATE), ("content-type", RECORDS_MEDIA_TYPE))
    request = bhttp.Request("POST", "https", "confonnx.example", "/v2/models/digits/infer_stream", fields)
    records = [
        encode_record((b'{"inputs":[]}',)),
        encode_record((b"{}      ", b"tensor"), header_length=8, padding=2),
    ]
    answers = [
        encode_record((b"{}      ", b"output"), header_length=8, status=200, padding=2),
        encode_record((b'{"error":"busy"}',), status=503, retry_after=2),
        encode_record((), status=NOTICE),
    ]
    sealer = ChunkedRequestSealer(config, randomness=_EPHEMERAL)
    sealed = _chunks(sealer, encode_request_head(request), records)
    opener = ChunkedRequestOpener(_Keys((1, key)))
    opened = [bytes(chunk) for chunk in opener.feed(sealed)]
    answer = _chunks(
        opener.response_sealer(randomness=_RESPONSE_NONCE),
        encode_response_head(bhttp.Response(200, fields)),
        answers,
    )
    first = len(sealed) - len(bytes(opener.finish())) - TAG_SIZE - 1
    damaged = {
        "the sealed end is missing": sealed[:first],
        "nothing of the last chunk": sealed[: first + 1],
        "cut by one byte": sealed[:-1],
        "one byte more": sealed + b"\0",
        "another key identifier": b"\x09" + sealed[1:],
    }
    return {
        "what": "docs/spec/streams.md: a stream over KEM 0x0020; all values hexadecimal",
        "key_seed": _SEED.hex(),
        "key_configurations": encode_key_configs([config]).hex(),
        "ephemeral_private_key": _EPHEMERAL.hex(),
        "request_chunks": [chunk.hex() for chunk in opened],
        "request_sealed": sealed.hex(),
        "records": [_joined(record).hex() for record in records],
        "response_nonce": _RESPONSE_NONCE.hex(),
        "response_chunks": [bytes(chunk).hex() for chunk in sealer.response_opener().feed(answer)],
        "response_sealed": answer.hex(),
        "answers": [_joined(record).hex() for record in answers],
        "refused": [
            {"what": name, "request": message.hex(), "error": _stream_error(key, message)}
            for name, message in damaged.items()
        ],
    }


def _chunks(
    sealer: ChunkedRequestSealer | ChunkedResponseSealer, head: bytes, records: Sequence[Sequence[Buffer]]
) -> bytes:
    sealed = [sealer.seal([head])]
    for record in records:
        sealed += [sealer.seal(chunk) for chunk in content_chunks(record, size=CHUNK_BYTES)]
    return b"".join([*sealed, sealer.finish([CONTENT_END])])


def attestation() -> dict[str, Any]:
    """A statement, what binds it, and the bundle that carries both, from one fixed secret, nonce and time."""
    bundle = simulated_server.bundle()
    return {
        "what": "docs/spec/attestation.md: simulated evidence; nonce and report data in hex, the rest text",
        "nonce": simulated_server.NONCE.hex(),
        "now": simulated_server.NOW.isoformat().replace("+00:00", "Z"),
        "statement": bundle.statement.decode("utf-8"),
        "report_data": report_data(bundle.statement).hex(),
        "evidence_type": bundle.evidence_type,
        "evidence": bundle.evidence.decode("utf-8"),
        "bundle": bundle.encode().decode("utf-8"),
    }


def documents() -> dict[str, dict[str, Any]]:
    """Every vector file by its name."""
    path = DIRECTORY / "wire-xwing.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else None
    return {
        "wire-x25519.json": wire(),
        "wire-xwing.json": xwing(kept),
        "session-x25519.json": session(),
        "stream-x25519.json": stream(),
        "attestation.json": attestation(),
    }


def _damaged(sealed: bytes) -> dict[str, bytes]:
    changed = {}
    for name, (at, mask) in _MASKS.items():
        message = bytearray(sealed)
        message[at] ^= mask
        changed[f"{name} changed"] = bytes(message)
    return {
        **changed,
        "another key identifier": b"\x09" + sealed[1:],
        "cut by one byte": sealed[:-1],
        "one byte more": sealed + b"\0",
        "the header alone": sealed[:7],
        "nothing": b"",
    }


def _error(key: PrivateKey, message: bytes) -> str:
    try:
        open_request(_Keys((1, key)), message)
    except ConfonnxError as error:
        return error.code
    raise AssertionError("a damaged message opened")


def _session_error(keys: _Keys, message: bytes) -> str:
    try:
        ReceiverSession(*read_prefix(keys, memoryview(message))).open(message)
    except ConfonnxError as error:
        return error.code
    raise AssertionError("a damaged message opened")


def _stream_error(key: PrivateKey, message: bytes) -> str:
    opener = ChunkedRequestOpener(_Keys((1, key)))
    try:
        opener.feed(message)
        opener.finish()
    except ConfonnxError as error:
        return error.code
    raise AssertionError("a damaged stream opened")


def _joined(parts: Sequence[Buffer]) -> bytes:
    return b"".join(parts)


def main() -> None:
    """Write the files, or say that it needs to be asked for."""
    parser = argparse.ArgumentParser(description="Write the test vectors of the specifications.")
    parser.add_argument("--write", action="store_true", required=True)
    parser.parse_args()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, document in documents().items():
        (DIRECTORY / name).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
