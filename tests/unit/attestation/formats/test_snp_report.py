"""SNP report layout: what is read, and everything that is not a report."""

from __future__ import annotations

import pytest

from confonnx.attestation.claims import SnpTcb
from confonnx.attestation.formats import snp_report
from confonnx.attestation.formats.snp_report import SigningKey
from confonnx.errors import EvidenceFormatError
from tests.support.authorities import amd


def test_fields() -> None:
    report = snp_report.parse(amd.report({0x10: b"\x0f" * 16, 0x30: b"\3", 0x48: b"\1", 0xC0: b"\7" * 32}))
    assert report.version == 3
    assert report.product == "Milan"
    assert report.family_id == b"\x0f" * 16
    assert report.vmpl == 3
    assert report.author_key_en
    assert not report.mask_chip_key
    assert report.signing_key is SigningKey.VCEK
    assert report.host_data == b"\7" * 32
    assert report.chip_id == amd.CHIP_ID
    assert (
        report.signed == amd.report({0x10: b"\x0f" * 16, 0x30: b"\3", 0x48: b"\1", 0xC0: b"\7" * 32})[:0x2A0]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0x00: b"\1"}, "VERSION"),
        ({0x00: b"\6"}, "VERSION"),
        ({0x0A: b"\1"}, "bit 17 must be one"),
        ({0x0B: b"\4"}, "unknown bits"),
        ({0x0F: b"\x80"}, "unknown bits"),
        ({0x30: b"\4"}, "VMPL"),
        ({0x34: b"\2"}, "SIGNATURE_ALGO"),
        ({0x48: b"\x08"}, "SIGNING_KEY is 2"),
        ({0x48: b"\x1c"}, "SIGNING_KEY is 7"),
        ({0x48: b"\x20"}, "reserved bits"),
        ({0x4C: b"\1"}, "reserved field after KEY_INFO"),
        ({0x188: b"\x1b"}, "none of Milan, Genoa, Turin"),
        ({0x18B: b"\1"}, "18Bh"),
        ({0x00: b"\2"}, "version 2 has no CPUID"),
        ({0x1F8: b"\1"}, "before SIGNATURE"),
        ({0x29F: b"\1"}, "before SIGNATURE"),
    ],
)
def test_refused(changes: dict[int, bytes], message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        snp_report.parse(amd.report(changes))


@pytest.mark.parametrize(
    ("offset", "message"),
    [(0x2A0 + 48, "after SIGNATURE.R"), (0x2E8 + 71, "after SIGNATURE.S"), (0x49F, "of SIGNATURE")],
)
def test_unsigned_bytes_cannot_vary(offset: int, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        snp_report.parse(amd.report(after={offset: b"\1"}))


@pytest.mark.parametrize("size", [0, 1, 0x2A0, 0x49F, 0x4A1, 4000])
def test_size(size: int) -> None:
    with pytest.raises(EvidenceFormatError, match="expected 1184 bytes"):
        snp_report.parse(amd.report().ljust(size, b"\0")[:size])


@pytest.mark.parametrize(("model", "product"), [(0x0F, "Milan"), (0x11, "Genoa"), (0xA0, "Genoa")])
def test_products(model: int, product: str) -> None:
    assert snp_report.parse(amd.report({0x189: bytes((model,))})).product == product


def test_tcb_layouts() -> None:
    raw = bytes((1, 2, 0, 0, 0, 0, 3, 4))
    assert snp_report.tcb(raw, "Genoa") == SnpTcb(boot_loader=1, tee=2, snp=3, microcode=4)
    raw = bytes((9, 1, 2, 3, 0, 0, 0, 4))
    assert snp_report.tcb(raw, "Turin") == SnpTcb(boot_loader=1, tee=2, snp=3, microcode=4, fmc=9)
    with pytest.raises(EvidenceFormatError, match="reserved"):
        snp_report.tcb(raw, "Milan")
    with pytest.raises(EvidenceFormatError, match="1 unexpected bytes"):
        snp_report.tcb(raw + b"\0", "Turin")
