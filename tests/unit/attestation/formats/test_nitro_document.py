"""Nitro documents: everything that is none."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from confonnx.attestation.formats import nitro_document
from confonnx.errors import EvidenceFormatError
from tests.support.authorities.aws import Document

GOOD = Document()


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_optional_members_may_be_null_or_absent(name: str) -> None:
    for value in (None, ...):
        parsed = nitro_document.parse(GOOD.but(changes={name: value}).encode())
        assert getattr(parsed, name) is None


@pytest.mark.parametrize(
    "changes",
    [
        *({name: ...} for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")),
        {"module_id": ""},
        {"module_id": b"bytes"},
        {"digest": "SHA256"},
        {"timestamp": 0},
        {"timestamp": True},
        {"timestamp": 2**63},
        {"timestamp": 1.5},
        {"pcrs": {}},
        {"pcrs": []},
        {"pcrs": {32: bytes(48)}},
        {"pcrs": {-1: bytes(48)}},
        {"pcrs": {"0": bytes(48)}},
        {"pcrs": {0: bytes(32)}},
        {"pcrs": {0: "text"}},
        {"pcrs": {index: bytes(48) for index in range(33)}},
        {"certificate": b""},
        {"certificate": bytes(1025)},
        {"cabundle": []},
        {"cabundle": [b""]},
        {"cabundle": [b"0"] * 9},
        {"cabundle": b"0"},
        {"user_data": "text"},
        {"user_data": bytes(1025)},
        {"nonce": bytes(1025)},
        {"public_key": bytes(1025)},
        {"else": 1},
    ],
    ids=repr,
)
def test_refused_payload(changes: dict[str, Any]) -> None:
    with pytest.raises(EvidenceFormatError, match="Nitro document"):
        nitro_document.parse(GOOD.but(changes=changes).encode())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (GOOD.but(protected={1: -7}), "ES384"),
        (GOOD.but(protected={1: -35, 4: b"kid"}), "ES384"),
        (GOOD.but(protected={}), "ES384"),
        (GOOD.but(unprotected={1: -35}), "unprotected"),
        (GOOD.but(signature=bytes(95)), "signature of 95 bytes"),
        (GOOD.but(signature=bytes(97)), "signature"),
    ],
)
def test_refused_envelope(document: Document, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        nitro_document.parse(document.encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no CBOR"),
        (b"\xd2", "no CBOR"),
        (GOOD.encode() + b"\0", "1 bytes after"),
        (b"\x81" * 1000, "no CBOR"),
        (b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "no CBOR"),
        (b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "no CBOR"),
        (b"\x9f\x01\x02\x03\x04\xff", "no CBOR"),
        (b"\x83\x01\x02\x03", "array of four"),
        (b"\xa0", "array of four"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, b"\x80", bytes(96)]), "no map"),
        (cbor2.dumps([b"\xa1\x01\x38\x22", {}, b"\xa2\x01\x01\x01\x02", bytes(96)]), "no CBOR"),
        (bytes(32 * 1024 + 1), "at most"),
    ],
)
def test_no_document(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        nitro_document.parse(data)


def test_truncated_at_every_length() -> None:
    data = GOOD.encode()
    for length in range(len(data)):
        with pytest.raises(EvidenceFormatError):
            nitro_document.parse(data[:length])
