"""The TPM client against a TPM (swtpm, with tpm2-tools as other eyes), and against wrong responses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.errors import TeeError
from tests.support.fake_kernel import no_wait
from tests.support.swtpm import SoftwareTpm, running_swtpm
from tests.support.tpm_keys import put_nv

HANDLE = 0x8100C0F0
QUALIFYING_DATA = bytes(range(64))


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """A TPM with the EK that a vendor puts into it."""
    with running_swtpm(tmp_path_factory.mktemp("swtpm"), ek_certificate=True) as tpm:
        yield tpm


@pytest.fixture
def device(software: SoftwareTpm) -> Iterator[Tpm]:
    with parse_address(software.address)() as transport:
        yield Tpm(transport, wait=time.sleep)


def public(software: SoftwareTpm, handle: int, directory: Path) -> object:
    software.tool("tpm2_readpublic", "-c", hex(handle), "-f", "pem", "-o", "key.pem", directory=directory)
    return load_pem_public_key((directory / "key.pem").read_bytes())


def test_an_attestation_key_is_made_once_and_kept(software: SoftwareTpm, tmp_path: Path) -> None:
    connect = parse_address(software.address)
    with connect() as transport:
        device = Tpm(transport, wait=time.sleep)
        assert device.read_public(HANDLE) is None
        device.make_attestation_key(HANDLE)
        key = device.read_public(HANDLE)
    assert key is not None
    assert key.public_key == public(software, HANDLE, tmp_path)
    shown = software.tool("tpm2_readpublic", "-c", hex(HANDLE)).decode()
    assert "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign" in shown
    assert software.tool("tpm2_getcap", "handles-transient") == b""  # nothing is left in its few slots
    with connect() as transport, pytest.raises(TeeError, match=r"TPM2_EvictControl.*code"):
        Tpm(transport, wait=time.sleep).make_attestation_key(HANDLE)  # the handle is taken
    assert software.tool("tpm2_getcap", "handles-transient") == b""


@pytest.mark.parametrize(
    ("handle", "kind"), [(0x81010001, rsa.RSAPublicKey), (0x81010016, ec.EllipticCurvePublicKey)]
)
def test_public_keys(software: SoftwareTpm, handle: int, kind: type, tmp_path: Path) -> None:
    with parse_address(software.address)() as transport:
        key = Tpm(transport, wait=time.sleep).read_public(handle)
    assert key is not None
    assert isinstance(key.public_key, kind)
    assert key.public_key == public(software, handle, tmp_path)


def test_nv_in_several_reads(software: SoftwareTpm, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5 + b"end"
    put_nv(software, 0x01400001, content, tmp_path)
    with parse_address(software.address)() as transport:
        device = Tpm(transport, wait=time.sleep)
        assert device.read_nv(0x01400001) == content
        assert device.read_nv(0x01400009) is None


def test_pcrs(software: SoftwareTpm) -> None:
    software.tool("tpm2_pcrextend", f"9:sha256={'5a' * 32}")
    expected = software.tool("tpm2_pcrread", "sha256:0,1,2,3,4,5,6,7,8,9,11,23").decode()
    with parse_address(software.address)() as transport:
        values = Tpm(transport, wait=time.sleep).read_pcrs("sha256", (*range(10), 11, 23))
    assert len(values) == 12
    for index, value in values.items():
        assert f"{index:<2}: 0x{value.hex().upper()}" in expected
    assert any(values[9])


def test_a_bank_that_is_off(software: SoftwareTpm, device: Tpm) -> None:
    with pytest.raises(TeeError, match=r"PCRs \[0, 1\] of the sha384 bank"):
        device.read_pcrs("sha384", (0, 1))


def test_another_register_in_the_place_of_the_one_asked_for() -> None:
    selection = bytes.fromhex("00000001 000b 03 800000")  # PCR 23, for PCR 0
    answer = response(0, bytes(4) + selection + bytes.fromhex("00000001 0020") + bytes(32))
    with pytest.raises(TeeError, match=r"PCRs \[0\] of the sha256 bank"):
        scripted(answer).read_pcrs("sha256", (0,))


def test_no_such_key(device: Tpm) -> None:
    with pytest.raises(TeeError, match="TPM2_Quote: the TPM answered with code 0x18b"):
        device.quote(0x8100FFFF, QUALIFYING_DATA, bank="sha256", indices=(0,))


class Script:
    """A TPM that answers from a list."""

    def __init__(self, *responses: bytes) -> None:
        self.responses = list(responses)

    def transmit(self, command: bytes) -> bytes:
        assert int.from_bytes(command[2:6], "big") == len(command)
        return self.responses.pop(0)


def response(code: int, body: bytes = b"") -> bytes:
    return b"\x80\x01" + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def scripted(*responses: bytes) -> Tpm:
    return Tpm(Script(*responses), wait=no_wait)


@pytest.mark.parametrize("code", [0x922, 0x908, 0x90A, 0xB0922])
def test_a_busy_tpm_is_asked_again(code: int) -> None:
    assert scripted(response(code), response(code), response(0x18B)).read_public(HANDLE) is None
    with pytest.raises(TeeError, match="times to try again"):
        scripted(*[response(code)] * 20).read_public(HANDLE)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0x100, r"code 0x100.*startup"),
        (0x98E, r"code 0x98e.*password"),
        (0x9A2, r"code 0x9a2.*password"),
        (0x101, r"TPM2_ReadPublic: the TPM answered with code 0x101$"),
    ],
)
def test_codes_say_what_to_do(code: int, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        scripted(response(code)).read_public(HANDLE)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "cannot be read"),
        (response(0)[:9], "cannot be read"),
        (response(0) + b"x", "has 11 bytes and says 10"),
        (response(0), "cannot be read"),
        (response(0, b"\0\5abc"), "cannot be read"),
        (response(0, b"\0\2\0\7"), "type"),
    ],
)
def test_malformed_responses(answer: bytes, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        scripted(answer).read_public(HANDLE)


def rsa_public(
    exponent: int, modulus: bytes, *, symmetric: bytes = b"\0\x10", scheme: bytes = b"\0\x10"
) -> bytes:
    head = bytes.fromhex("0001 000b 00050072 0000") + symmetric + scheme + b"\x08\x00"
    area = head + exponent.to_bytes(4, "big") + len(modulus).to_bytes(2, "big") + modulus
    return response(0, len(area).to_bytes(2, "big") + area)


def test_forms_of_rsa_keys() -> None:
    modulus = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n.to_bytes(128, "big")
    for answer in (
        rsa_public(0, modulus),
        rsa_public(
            65537, modulus, symmetric=bytes.fromhex("0006 0080 0043"), scheme=bytes.fromhex("0014 000b")
        ),
    ):
        key = scripted(answer).read_public(HANDLE)
        assert key is not None
        assert key.public_key.public_numbers() == rsa.RSAPublicNumbers(65537, int.from_bytes(modulus, "big"))
    with pytest.raises(TeeError, match="not a public key"):
        scripted(rsa_public(2, modulus)).read_public(HANDLE)


def ecc_public(curve: int, x: int, y: int, kdf: bytes = b"\0\x10") -> bytes:
    size = 48 if curve == 4 else 32
    points = b"".join(size.to_bytes(2, "big") + number.to_bytes(size, "big") for number in (x, y))
    area = bytes.fromhex("0023 000b 00050072 0000 0010 0018 000b") + curve.to_bytes(2, "big") + kdf + points
    return response(0, len(area).to_bytes(2, "big") + area)


def test_forms_of_elliptic_keys() -> None:
    numbers = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    key = scripted(ecc_public(4, numbers.x, numbers.y, b"\0\x20\0\x0b")).read_public(HANDLE)
    assert key is not None
    assert key.public_key.public_numbers() == numbers
    with pytest.raises(TeeError, match="not a public key"):
        scripted(ecc_public(3, 1, 1)).read_public(HANDLE)
    with pytest.raises(TeeError, match="curveID"):
        scripted(ecc_public(5, 1, 1)).read_public(HANDLE)


def test_an_nv_index_that_ends_early() -> None:
    public_area = bytes.fromhex("01400001 000b 00000000 0000 0008")
    size = response(0, len(public_area).to_bytes(2, "big") + public_area)
    short = response(0, b"\0\0\0\5" + b"\0\3abc" + bytes(5))
    with pytest.raises(TeeError, match="3 bytes, expected 8"):
        scripted(size, short).read_nv(0x01400001)
    with pytest.raises(TeeError, match="TPM2_NV_ReadPublic: the TPM answered"):
        scripted(response(0x101)).read_nv(0x01400001)


def test_a_key_that_cannot_be_flushed() -> None:
    created = response(0, b"\x80\0\0\0" + bytes(8))
    with pytest.raises(TeeError, match="TPM2_FlushContext"):
        scripted(created, response(0, bytes(9)), response(0x101)).make_attestation_key(HANDLE)
