"""HPKE against the vectors of RFC 9180, of draft-ietf-hpke-pq and of Go's crypto/hpke."""

from __future__ import annotations

from typing import Any

import pytest

from confonnx.ohttp.hpke import Aead, Kdf, Kem, PrivateKey, Suite, setup_receiver, setup_sender
from confonnx.ohttp.kem import decapsulate
from tests.support.shared import vector

FILES = ("rfc9180-vectors", "hpke-pq-vectors", "go-8aa8a04-pq-hpke")
BASE_MODE = 0


def ours() -> list[Any]:
    """Every base-mode entry for a suite of ours: two of RFC 9180, one each of the post-quantum files."""
    entries = []
    for name in FILES:
        for number, entry in enumerate(vector(f"vectors-protocol/hpke/{name}.json")):
            algorithms = (entry["kem_id"], entry["kdf_id"], entry["aead_id"])
            if entry["mode"] == BASE_MODE and algorithms in SUITES:
                entries.append(pytest.param(SUITES[algorithms], entry, id=f"{name}-{number}"))
    return entries


SUITES = {(kem, kdf, aead): Suite(kem, kdf, aead) for kem in Kem for kdf in Kdf for aead in Aead}
VECTORS = ours()


def unhex(entry: dict[str, str], name: str) -> bytes:
    return bytes.fromhex(entry[name])


def test_there_are_as_many_as_we_counted() -> None:
    """A filter that matches nothing would pass everything below."""
    assert len(VECTORS) == 4


@pytest.mark.parametrize(("suite", "entry"), VECTORS)
def test_key_derivation(suite: Suite, entry: dict[str, str]) -> None:
    derived = PrivateKey.derive(suite.kem, unhex(entry, "ikmR"))
    assert derived.public_key == unhex(entry, "pkRm")
    assert PrivateKey.from_bytes(suite.kem, unhex(entry, "skRm")).public_key == unhex(entry, "pkRm")


@pytest.mark.parametrize(("suite", "entry"), VECTORS)
def test_shared_secret(suite: Suite, entry: dict[str, str]) -> None:
    key = PrivateKey.from_bytes(suite.kem, unhex(entry, "skRm"))
    assert decapsulate(key, unhex(entry, "enc")) == unhex(entry, "shared_secret")


@pytest.mark.parametrize(("suite", "entry"), VECTORS)
def test_receiver(suite: Suite, entry: dict[str, Any]) -> None:
    """Every message of the sequence, in order and by number, and every export."""
    key = PrivateKey.from_bytes(suite.kem, unhex(entry, "skRm"))
    context = setup_receiver(suite, key, unhex(entry, "enc"), info=unhex(entry, "info"))
    assert len(entry["encryptions"]) >= 10
    for seq, message in enumerate(entry["encryptions"]):
        ciphertext, aad = unhex(message, "ct"), unhex(message, "aad")
        assert bytes(context.open_at(seq, bytearray(ciphertext), aad)) == unhex(message, "pt")
        assert bytes(context.open(ciphertext, aad)) == unhex(message, "pt")
    assert entry["exports"]
    for export in entry["exports"]:
        assert context.export(unhex(export, "exporter_context"), export["L"]) == unhex(
            export, "exported_value"
        )


@pytest.mark.parametrize(("suite", "entry"), [case for case in VECTORS if "rfc9180" in str(case.id)])
def test_sender(suite: Suite, entry: dict[str, Any]) -> None:
    """Bit for bit with the vector's ephemeral key. Not for X-Wing: ML-KEM's coins are not ours to choose."""
    enc, context = setup_sender(
        suite, unhex(entry, "pkRm"), info=unhex(entry, "info"), randomness=unhex(entry, "skEm")
    )
    assert enc == unhex(entry, "enc")
    for seq, message in enumerate(entry["encryptions"]):
        if seq % 2:
            sealed = context.seal(unhex(message, "pt"), unhex(message, "aad"))
        else:
            number, parts = context.seal_parts([unhex(message, "pt")], aad=unhex(message, "aad"))
            assert number == seq
            sealed = bytes(parts)
        assert sealed == unhex(message, "ct")
    for export in entry["exports"]:
        assert context.export(unhex(export, "exporter_context"), export["L"]) == unhex(
            export, "exported_value"
        )
    ephemeral = PrivateKey.derive(suite.kem, unhex(entry, "ikmE"))
    assert ephemeral.public_key == enc
