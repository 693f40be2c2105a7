"""SGX under Gramine, on a fake ``/dev/attestation``."""

from __future__ import annotations

import errno
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from confonnx.attestation.attest import sgx
from confonnx.attestation.claims import SGX_QUOTE, Tee
from confonnx.errors import TeeError
from tests.support.authorities.intel import REPORT_DATA, SGX, sgx_body
from tests.support.fake_kernel import FakeFiles, FakeGramine


class SlowGramine(FakeGramine):
    """Takes its time before it looks at REPORT_DATA, so that whoever writes meanwhile wins."""

    def read(self, path: str) -> bytes:
        time.sleep(0.001)
        return super().read(path)


def quote(report_data: bytes) -> bytes:
    return SGX.but(body=sgx_body(report_data=report_data)).encode()


def test_a_quote_over_the_report_data() -> None:
    attester = sgx.find(FakeGramine(quote))
    assert attester is not None
    assert (attester.tee, attester.evidence_type) == (Tee.SGX, SGX_QUOTE)
    evidence, endorsements = attester.collect(REPORT_DATA)
    assert REPORT_DATA in evidence
    assert endorsements == ()


def test_outside_an_enclave_there_is_none() -> None:
    assert sgx.find(FakeFiles({"/dev/attestation/keys": b""})) is None


@pytest.mark.parametrize("kind", [b"none", b"epid", b""])
def test_an_enclave_without_attestation_is_an_error(kind: bytes) -> None:
    with pytest.raises(TeeError, match=r"attestation_type.*remote_attestation"):
        sgx.find(FakeGramine(quote, kind))


def test_an_unreadable_type_is_an_error() -> None:
    with pytest.raises(TeeError, match="EACCES"):
        sgx.find(FakeFiles({"/dev/attestation/attestation_type": errno.EACCES}))


def test_a_quote_that_cannot_be_had() -> None:
    files = FakeGramine(quote)
    files.error = errno.EACCES
    with pytest.raises(TeeError, match=r"EACCES.*aesmd"):
        sgx.SgxAttester(files).collect(REPORT_DATA)


def test_threads_do_not_get_each_others_quotes() -> None:
    """Two attesters, one process: Gramine has one REPORT_DATA for both."""
    files = SlowGramine(lambda report_data: report_data)
    attesters = [sgx.SgxAttester(files), sgx.SgxAttester(files)]

    def collect(number: int) -> bool:
        report_data = bytes([number]) * 64
        evidence, _ = attesters[number % 2].collect(report_data)
        return evidence == report_data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(collect, range(24)))
