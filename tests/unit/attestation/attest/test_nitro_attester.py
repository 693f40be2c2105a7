"""Nitro: the CBOR exchange through the ioctl."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from confonnx.attestation.attest import nitro
from confonnx.attestation.claims import NITRO_DOCUMENT, Tee
from confonnx.attestation.verify import nitro as verifier
from confonnx.errors import TeeError
from tests.support.authorities import aws
from tests.support.authorities.pki import NOW
from tests.support.fake_devices import FakeNsm
from tests.support.fake_kernel import FakeFiles

DEVICE = FakeFiles({"/dev/nsm": b""})


def document(asked: dict[str, Any]) -> Any:
    assert set(asked) == {"user_data", "nonce", "public_key"}
    return {"Attestation": {"document": aws.Document(changes=asked).encode()}}


def collect(module: FakeNsm) -> bytes:
    attester = nitro.find(DEVICE, module.ioctl)
    assert attester is not None
    assert (attester.tee, attester.evidence_type) == (Tee.NITRO, NITRO_DOCUMENT)
    evidence, endorsements = attester.collect(aws.REPORT_DATA)
    assert endorsements == ()
    return evidence


def test_a_document_that_verifies() -> None:
    claims = verifier.verify(collect(FakeNsm(document)), now=NOW, roots=aws.roots())
    assert claims.report_data == aws.REPORT_DATA


def test_outside_an_enclave_there_is_none() -> None:
    assert nitro.find(FakeFiles(), FakeNsm(document).ioctl) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EPERM, r"EPERM.*CAP_SYS_ADMIN"),
        (errno.EACCES, r"EACCES.*CAP_SYS_ADMIN"),
        (errno.EMSGSIZE, r"EMSGSIZE.*too large"),
        (errno.EIO, "/dev/nsm.*EIO"),
    ],
)
def test_errors_of_the_device(number: int, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        collect(FakeNsm(document, error=number))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"Error": "InvalidArgument"}, "refuses to attest: InvalidArgument"),
        ({"Attestation": {}}, "no attestation"),
        ({"Attestation": {"document": "text"}}, "no attestation"),
        ("else", "no attestation"),
        (b"\xff", "no CBOR"),
        (b"\x5b" + b"\xff" * 8, "no CBOR"),
        (b"", "no CBOR"),
    ],
)
def test_answers_without_a_document(answer: Any, text: str) -> None:
    with pytest.raises(TeeError, match=text):
        collect(FakeNsm(lambda _: answer))
