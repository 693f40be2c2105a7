"""DCAP quote layout: everything that is not a quote."""

from __future__ import annotations

import pytest

from confonnx.attestation.formats import dcap_collateral, dcap_quote, pck_extension
from confonnx.attestation.formats.dcap_quote import SgxBody, TdBody
from confonnx.errors import EndorsementError, EvidenceFormatError
from tests.support.authorities.intel import SGX, SGX_COLLATERAL, TDX4, TDX5, Cpu, Quote, sgx_body, td_body

GOOD = SGX.encode()


def patched(offset: int, value: bytes, quote: bytes = GOOD) -> bytes:
    return quote[:offset] + value + quote[offset + len(value) :]


@pytest.mark.parametrize(("quote", "kind"), [(SGX, SgxBody), (TDX4, TdBody), (TDX5, TdBody)])
def test_kinds(quote: Quote, kind: type) -> None:
    data = quote.encode()
    parsed = dcap_quote.parse(data + bytes(9))
    assert isinstance(parsed.body, kind)
    assert parsed.raw == data


@pytest.mark.parametrize(
    ("quote", "message"),
    [
        (patched(0, b"\6"), "version"),
        (patched(2, b"\3"), "attestation key type"),
        (patched(4, b"\x81"), "TEE type"),
        (patched(4, b"\0", TDX4.encode()), "TEE type"),
        (patched(12, b"\0"), "QE vendor ID"),
        (patched(48 + 20, b"\1"), "reserved field after MISCSELECT"),
        (SGX.but(body=sgx_body(reserved2=b"\1" * 32)).encode(), "reserved field after MRENCLAVE"),
        (SGX.but(body=sgx_body(reserved3=b"\1" * 32)).encode(), "reserved field after MRSIGNER"),
        (SGX.but(body=sgx_body(reserved4=b"\1" * 42)).encode(), "reserved field after CONFIGSVN"),
        (patched(48 + 384, b"\xff\xff\xff\xff"), "4294967295 bytes"),
        (GOOD + b"\0\0\1", "padding"),
        (GOOD + bytes(40_000), "at most 32768"),
        (TDX5.but(body_type=1).encode(), "body type"),
        (TDX5.but(body_type=2).encode(), "body size"),
        (TDX5.but(body=td_body()).encode(), "body size"),
        (patched(48 + 584 + 4 + 128, b"\5", TDX4.encode()), "certification data type"),
        (patched(48 + 384 + 4 + 128 + 448, b"\xff\xff"), "QE authentication data needs 65535"),
        (patched(48 + 384 + 4 + 128 + 448 + 2 + 32, b"\4"), "PCK certification data type"),
    ],
)
def test_refused(quote: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        dcap_quote.parse(quote)


@pytest.mark.parametrize("quote", [SGX, TDX4, TDX5])
def test_truncated_at_every_length(quote: Quote) -> None:
    data = quote.encode()
    for length in range(len(data)):
        with pytest.raises(EvidenceFormatError):
            dcap_quote.parse(data[:length])


def test_bytes_after_the_inner_parts() -> None:
    data = GOOD
    size = int.from_bytes(data[432:436], "little")
    longer = patched(432, (size + 1).to_bytes(4, "little"), data) + b"\0"
    with pytest.raises(EvidenceFormatError, match="1 unexpected bytes"):
        dcap_quote.parse(longer)


def test_bytes_after_the_certification_data() -> None:
    data = TDX4.encode()
    at = 48 + 584
    size = int.from_bytes(data[at : at + 4], "little")
    with pytest.raises(EvidenceFormatError, match="1 unexpected bytes"):
        dcap_quote.parse(patched(at, (size + 1).to_bytes(4, "little"), data) + b"\0")


@pytest.mark.parametrize("size", [585, 647, 649])
def test_td_bodies_of_another_size(size: int) -> None:
    with pytest.raises(EvidenceFormatError, match="unexpected bytes"):
        dcap_quote.td_body(bytes(size))


def test_enclave_reports_of_another_size() -> None:
    with pytest.raises(EvidenceFormatError, match="1 unexpected bytes"):
        dcap_quote.sgx_body(bytes(385), "it")


EXTENSION = Cpu().extension()


def test_pck_extension() -> None:
    parsed = pck_extension.parse(EXTENSION)
    assert parsed.components == (5,) * 16
    assert parsed.pce_svn == 13
    assert parsed.fmspc.hex() == "00a067110000"


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (b"", "tag"),
        (b"\x31\0", "type is 0x31"),
        (b"\x30\x12\x30\x10\x06\x0a" + bytes.fromhex("2a864886f84d010d0101") + b"\5\0\5\0", "2 unexpected"),
        (Cpu(fmspc=bytes(5)).extension(), "FMSPC has 5 bytes"),
        (EXTENSION + b"\0", "unexpected bytes"),
        (b"\x30\x84\0\0\0\0", "length form"),
        (b"\x30\0", "TCB is missing"),
        (b"\x30\x02\x31\0", "entry"),
        (b"\x30\x04\x30\x02\x05\0", "entry name"),
        (
            EXTENSION.replace(bytes.fromhex("2a864886f84d010d0104"), bytes.fromhex("2a864886f84d010d0103")),
            "double",
        ),
        (
            EXTENSION.replace(bytes.fromhex("2a864886f84d010d0104"), bytes.fromhex("2a864886f84d010e0104")),
            "unknown",
        ),
        (EXTENSION.replace(b"\x0d\x01\x02\x11\x02\x01\x0d", b"\x0d\x01\x02\x11\x02\x01\xff"), "PCESVN is -1"),
        (EXTENSION.replace(b"\x0d\x01\x03\x04\x02", b"\x0d\x01\x03\x05\x02"), "PCEID is missing"),
    ],
)
def test_refused_pck_extension(der: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        pck_extension.parse(der)


def test_truncated_pck_extension() -> None:
    for length in range(len(EXTENSION)):
        with pytest.raises(EvidenceFormatError):
            pck_extension.parse(EXTENSION[:length])


def test_collateral_dates_need_a_zone() -> None:
    text = SGX_COLLATERAL.with_tcb_info(lambda i: i.update(issueDate="2026-01-01T00:00:00")).encode()
    with pytest.raises(EndorsementError, match="issueDate"):
        dcap_collateral.parse(text)
