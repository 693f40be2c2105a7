"""TPMS_ATTEST and TPMT_SIGNATURE: everything that is none."""

from __future__ import annotations

import pytest

from confonnx.attestation.formats import tpm
from confonnx.attestation.formats.evidence import parse_pcrs
from confonnx.attestation.formats.tpm import EcdsaSignature, RsaSignature
from confonnx.errors import EvidenceFormatError
from tests.support.authorities.pki import ec_key
from tests.support.authorities.tcg import Quote, select, sized

GOOD = Quote()
MESSAGE = GOOD.message()
SELECTION = select([(0x0B, [0, 4, 7])])


def test_quote() -> None:
    quote = tpm.parse_quote(MESSAGE)
    assert quote.selection == (("sha256", 0), ("sha256", 4), ("sha256", 7))
    assert (quote.clock, quote.reset_count, quote.restart_count, quote.safe) == (5, 6, 7, True)
    assert quote.signed == MESSAGE


def test_truncated_at_every_length() -> None:
    for length in range(len(MESSAGE)):
        with pytest.raises(EvidenceFormatError):
            tpm.parse_quote(MESSAGE[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MESSAGE + b"\0", "1 unexpected bytes"),
        (MESSAGE.replace(SELECTION, select([(0x0B, [0])] * 2)), "twice"),
        (MESSAGE.replace(SELECTION, select([(0x05, [0])])), "PCR bank"),
        (MESSAGE.replace(SELECTION, (5).to_bytes(4, "big") + SELECTION[4:]), "5 PCR banks"),
        (MESSAGE.replace(SELECTION, b"\0\0\0\1\0\x0b\4\0\0\0\1"), "above 23"),
        (MESSAGE.replace(b"\0\0\0\7\1", b"\0\0\0\7\2"), "safe"),
        (MESSAGE[:6] + b"\xff\xff" + MESSAGE[8:], "qualifiedSigner needs 65535"),
        (bytes(4097), "at most 4096"),
    ],
)
def test_refused_quotes(data: bytes, message: str) -> None:
    assert data != MESSAGE
    with pytest.raises(EvidenceFormatError, match=message):
        tpm.parse_quote(data)


def test_signatures() -> None:
    rsa = tpm.parse_signature(GOOD.signature())
    bare = tpm.parse_signature(GOOD.but(bare=True).signature())
    assert isinstance(rsa, RsaSignature)
    assert rsa == bare
    assert isinstance(tpm.parse_signature(GOOD.but(key=ec_key("ak")).signature()), EcdsaSignature)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "algorithm"),
        (b"\0\x16\0\x0b" + sized(bytes(256)), "algorithm"),
        (b"\0\x14\0\x04" + sized(bytes(256)), "hash"),
        (b"\0\x14\0\x0b" + sized(bytes(256)) + b"\0", "unexpected"),
        (b"\0\x18\0\x0b" + sized(bytes(32)), "length of s"),
        (b"\0\x18\0\x0b" + sized(bytes(32)) * 2 + b"\0", "unexpected"),
        (bytes(1025), "at most 1024"),
    ],
)
def test_refused_signatures(data: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        tpm.parse_signature(data)


@pytest.mark.parametrize("name", ["07", "-1", "24", "", "x", " 7"])
def test_a_pcr_has_one_spelling(name: str) -> None:
    with pytest.raises(EvidenceFormatError, match="expected 0 to 23"):
        parse_pcrs({"sha256": {name: "00" * 32}})


def test_a_pcr_value_is_hexadecimal() -> None:
    with pytest.raises(EvidenceFormatError, match="not hexadecimal"):
        parse_pcrs({"sha256": {"7": "no"}})
