"""Evidence is looked at before it is sent: what it binds, and which measurement it shows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.bound import BoundAttester, identity
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.claims import Pcr, Tee, azure_measurement, pcr_measurement, tdx_measurement
from confonnx.errors import EvidenceFormatError, TeeError
from tests.support.authorities import amd, aws, intel
from tests.support.authorities.intel import SGX, TDX4, sgx_body, td_body
from tests.support.authorities.tcg import Quote, hcl_report, runtime_claims

REPORT_DATA = bytes(range(64, 128))
QUOTE = Quote(extra_data=REPORT_DATA)
PCRS = [Pcr(bank, index, value) for (bank, index), value in QUOTE.pcrs.items()]
CLAIMS = runtime_claims()
SNP_HCL = hcl_report(amd.report(), CLAIMS)
TD_HCL = hcl_report(bytes(1024), CLAIMS, kind=4)
RTMRS = (bytes(48), bytes(48), bytes(48), bytes(48))
EVIDENCE: dict[Tee, tuple[bytes, bytes]] = {
    Tee.SGX: (SGX.but(body=sgx_body(report_data=REPORT_DATA)).encode(), intel.MRENCLAVE),
    Tee.TDX: (
        TDX4.but(body=td_body(report_data=REPORT_DATA)).encode(),
        tdx_measurement(intel.MRTD, RTMRS),
    ),
    Tee.SEV_SNP: (amd.report({0x50: REPORT_DATA}), amd.MEASUREMENT),
    Tee.AZURE_SNP: (QUOTE.azure(SNP_HCL), azure_measurement(amd.MEASUREMENT, PCRS)),
    Tee.AZURE_TDX: (QUOTE.azure(TD_HCL, TDX4.encode()), azure_measurement(intel.MRTD, PCRS)),
    Tee.NITRO: (aws.Document({"user_data": REPORT_DATA}).encode(), aws.PCR0),
    Tee.TPM: (QUOTE.encode(), pcr_measurement(PCRS)),
    Tee.SIMULATED: (SimulatedAttester(b"\7" * 32).collect(REPORT_DATA)[0], b"\7" * 32),
}


@dataclass(frozen=True)
class Device:
    """An Attester that gives ``evidence``, whatever it is asked."""

    tee: Tee
    evidence: bytes
    evidence_type: str = "application/x"

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        assert len(report_data) == 64
        return self.evidence, (("application/x", b"from the device"),)


def test_every_tee_has_a_case() -> None:
    assert set(EVIDENCE) == set(Tee)


@pytest.mark.parametrize("tee", Tee)
def test_what_evidence_says_of_itself(tee: Tee) -> None:
    evidence, measurement = EVIDENCE[tee]
    found = identity(tee, evidence)
    assert (found.report_data, found.measurement) == (REPORT_DATA, measurement)


@pytest.mark.parametrize("tee", Tee)
def test_evidence_passes_unchanged(tee: Tee) -> None:
    device = Device(tee, EVIDENCE[tee][0])
    attester = BoundAttester(device)
    assert (attester.tee, attester.evidence_type) == (tee, "application/x")
    assert attester.collect(REPORT_DATA) == (device.evidence, (("application/x", b"from the device"),))


@pytest.mark.parametrize("tee", Tee)
def test_evidence_for_something_else_is_a_failed_device(tee: Tee) -> None:
    attester = BoundAttester(Device(tee, EVIDENCE[tee][0]))
    with pytest.raises(TeeError, match=rf"the {tee} device gave evidence that binds {REPORT_DATA.hex()}"):
        attester.collect(bytes(64))
    with pytest.raises(TeeError, match="another program"):
        attester.measure()


@pytest.mark.parametrize("tee", Tee)
def test_malformed_evidence_is_a_failed_device(tee: Tee) -> None:
    with pytest.raises(TeeError, match=rf"the {tee} device gave evidence that cannot be read"):
        BoundAttester(Device(tee, b"no evidence")).collect(REPORT_DATA)


def test_a_document_that_binds_nothing() -> None:
    empty = aws.Document({"user_data": None, "pcrs": {4: bytes(48)}}).encode()
    assert identity(Tee.NITRO, empty).report_data == b""
    with pytest.raises(TeeError, match="binds nothing"):
        BoundAttester(Device(Tee.NITRO, empty)).collect(REPORT_DATA)


@pytest.mark.parametrize("td_quote", [None, SGX.encode()])
def test_azure_evidence_without_a_td_quote(td_quote: bytes | None) -> None:
    with pytest.raises(EvidenceFormatError):
        identity(Tee.AZURE_TDX, QUOTE.azure(TD_HCL, td_quote))


def test_the_measurement_of_this_server() -> None:
    assert BoundAttester(SimulatedAttester(b"\5" * 32)).measure() == b"\5" * 32
