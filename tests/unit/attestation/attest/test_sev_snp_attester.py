"""SEV-SNP through configfs and through the ioctl, with the host's certificate table."""

from __future__ import annotations

import errno
from collections import deque

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.attest import sev_snp
from confonnx.attestation.attest.attester import Attester
from confonnx.attestation.attest.certificate_table import parse_table
from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST, SEV_SNP_REPORT, Tee
from confonnx.attestation.verify import sev_snp as verifier
from confonnx.attestation.verify.x509 import parse_endorsements
from confonnx.errors import TeeError
from tests.support.authorities import amd
from tests.support.authorities.pki import NOW, crl
from tests.support.fake_devices import FakeSevGuest
from tests.support.fake_kernel import FakeFiles, no_wait
from tests.support.fake_tsm import FakeTsm, table

VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782"
ARK = "c0b406a4-a803-4952-9743-3fb6014cd0ae"
CRL = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
OTHER = "00112233-4455-6677-8899-aabbccddeeff"
CERTIFICATES = {
    ARK: amd.ARK.build().public_bytes(Encoding.DER),
    OTHER: b"not for us",
    VCEK: amd.Chip().vek().build().public_bytes(Encoding.DER),
    ASK: amd.ASK.build().public_bytes(Encoding.DER),
    CRL: crl(amd.ARK).public_bytes(Encoding.DER),
}
DEVICE_FILES = FakeFiles({"/dev/sev-guest": b""})


def report(report_data: bytes) -> bytes:
    return amd.report({0x50: report_data})


def from_tsm(auxblob: bytes) -> Attester:
    found = sev_snp.find(FakeTsm(report, auxblob=auxblob), refuse, wait=no_wait)
    assert found is not None
    return found


def from_ioctl(device: FakeSevGuest) -> Attester:
    found = sev_snp.find(DEVICE_FILES, device.ioctl, wait=no_wait)
    assert found is not None
    return found


def refuse(device: str, request: int, argument: bytearray) -> None:
    raise AssertionError("configfs comes first")


@pytest.mark.parametrize("source", ["configfs", "ioctl"])
def test_a_report_and_certificates_that_verify(source: str) -> None:
    certificates = table(CERTIFICATES)
    attester = (
        from_tsm(certificates) if source == "configfs" else from_ioctl(FakeSevGuest(report, certificates))
    )
    assert (attester.tee, attester.evidence_type) == (Tee.SEV_SNP, SEV_SNP_REPORT)
    evidence, endorsements = attester.collect(amd.REPORT_DATA)
    assert [kind for kind, _ in endorsements] == [CERTIFICATE_CHAIN, CERTIFICATE_LIST]
    claims = verifier.verify(
        evidence, parse_endorsements(endorsements, step="sev-snp"), now=NOW, roots=amd.roots()
    )
    assert claims.report_data == amd.REPORT_DATA


@pytest.mark.parametrize("source", ["configfs", "ioctl"])
def test_a_host_without_certificates(source: str) -> None:
    attester = from_tsm(b"") if source == "configfs" else from_ioctl(FakeSevGuest(report))
    assert attester.collect(amd.REPORT_DATA)[1] == ()


def test_other_machines_have_none() -> None:
    assert sev_snp.find(FakeFiles(), refuse, wait=no_wait) is None
    assert sev_snp.find(FakeTsm(report, "tdx_guest"), refuse, wait=no_wait) is None
    both = FakeTsm(report, None, contents={"/dev/sev-guest": b""})  # no provider yet: the device still works
    assert sev_snp.find(both, FakeSevGuest(report).ioctl, wait=no_wait) is not None


@pytest.mark.parametrize("failure", [(errno.EBUSY, 0), (errno.EAGAIN, 0), (errno.EIO, 2 << 32)])
def test_a_busy_host_is_asked_again(failure: tuple[int, int]) -> None:
    device = FakeSevGuest(report, failures=deque([failure, failure]))
    evidence, _ = from_ioctl(device).collect(amd.REPORT_DATA)
    assert evidence[:0x2A0] == report(amd.REPORT_DATA)[:0x2A0]  # the signature differs each time
    assert device.calls == 3


def test_a_host_that_stays_busy() -> None:
    device = FakeSevGuest(report, failures=deque([(errno.EBUSY, 0)] * 100))
    with pytest.raises(TeeError, match="stayed busy"):
        from_ioctl(device).collect(amd.REPORT_DATA)
    assert device.calls < 20


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ((errno.ENOTTY, 0), r"ENOTTY.*restart the VM"),
        ((errno.EIO, 0x16), r"exitinfo2 0x16.*EIO"),
        ((errno.EACCES, 0), r"EACCES.*privilege"),
        ((errno.ENOENT, 0), "ENOENT"),
    ],
)
def test_a_failed_device_is_not_asked_again(failure: tuple[int, int], text: str) -> None:
    device = FakeSevGuest(report, failures=deque([failure, failure]))
    with pytest.raises(TeeError, match=text):
        from_ioctl(device).collect(amd.REPORT_DATA)
    assert device.calls == 1


def test_more_certificates_than_the_kernel_takes() -> None:
    device = FakeSevGuest(report, bytes(16385))
    with pytest.raises(TeeError, match="more than 16384 bytes of certificates"):
        from_ioctl(device).collect(amd.REPORT_DATA)
    assert device.calls == 1


def test_a_firmware_error_in_the_response() -> None:
    with pytest.raises(TeeError, match=r"status 0x16 and a report of 1184"):
        from_ioctl(FakeSevGuest(report, status=0x16)).collect(amd.REPORT_DATA)
    with pytest.raises(TeeError, match="a report of 3 bytes"):
        from_ioctl(FakeSevGuest(lambda _: b"abc")).collect(amd.REPORT_DATA)


def test_a_vlek_comes_first() -> None:
    (chain,) = parse_table(table({ASK: CERTIFICATES[ASK], VLEK: CERTIFICATES[VCEK]}))
    certificates = parse_endorsements((chain,), step="sev-snp").certificates
    assert [c.subject.rfc4514_string() for c in certificates] == ["CN=SEV-VCEK", "CN=SEV-Milan"]


GOOD = table({ASK: b"abc"})


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (GOOD[:30], "entry 0"),
        (GOOD[:20], "entry 0"),
        (GOOD[:24] + GOOD[:24], "entry 0"),
        (table({ASK: b""}), "entry 0"),
        (GOOD[:24] + GOOD[:24] + GOOD[24:], "entry 1"),
        (GOOD[:20] + b"\xff\xff\xff\xff" + GOOD[24:], "4294967"),
        (
            b"".join((index + 1).to_bytes(16, "little") + b"\0\0\0\0\1\0\0\0" for index in range(40)),
            "more than 32",
        ),
    ],
)
def test_malformed_tables(bad: bytes, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        parse_table(bad)


@pytest.mark.parametrize("empty", [b"", bytes(24), bytes(10), bytes(4096)])
def test_empty_tables(empty: bytes) -> None:
    assert parse_table(empty) == ()
