"""X-Wing against the vectors of its draft and of draft-irtf-cfrg-concrete-hybrid-kems.

Only the receiver's side: the library chooses ML-KEM's coins, so an encapsulation cannot be replayed. The
sender's side is held to the receiver's by the agreement tests (tests/property/test_ohttp_hpke_agreement.py).
"""

from __future__ import annotations

import pytest

from confonnx.ohttp.kem import Kem, PrivateKey, decapsulate
from tests.support.shared import vector

DRAFT = vector("vectors-protocol/kem/xwing-test-vectors.json")
CONCRETE = vector("vectors-protocol/kem/concrete-hybrid-kems-test-vectors.json")["mlkem768_x25519"]


def test_there_are_as_many_as_we_counted() -> None:
    assert (len(DRAFT), len(CONCRETE)) == (3, 10)


@pytest.mark.parametrize("entry", DRAFT, ids=lambda entry: str(entry["seed"][:8]))
def test_draft_connolly(entry: dict[str, str]) -> None:
    key = PrivateKey.from_bytes(Kem.MLKEM768_X25519, bytes.fromhex(entry["sk"]))
    assert key.public_key.hex() == entry["pk"]
    assert decapsulate(key, bytes.fromhex(entry["ct"])).hex() == entry["ss"]


@pytest.mark.parametrize("entry", CONCRETE, ids=lambda entry: str(entry["seed"][:8]))
def test_concrete_hybrid_kems(entry: dict[str, str]) -> None:
    key = PrivateKey.from_bytes(Kem.MLKEM768_X25519, bytes.fromhex(entry["decapsulation_key"]))
    assert key.public_key.hex() == entry["encapsulation_key"]
    assert decapsulate(key, bytes.fromhex(entry["ciphertext"])).hex() == entry["shared_secret"]
