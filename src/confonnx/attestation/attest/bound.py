"""What unverified evidence says of itself, for the server's own use: that a device bound what it was given,
and which measurement to log.

A device that answers with an older report, or another program's, would make every client refuse the server
with an error about a server that lies. It is found here instead, where its operator can see it.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import assert_never

from confonnx.attestation.attest.attester import REPORT_DATA_SIZE, Attester, Endorsements
from confonnx.attestation.claims import Tee, azure_measurement, pcr_measurement, tdx_measurement
from confonnx.attestation.formats import azure_hcl, dcap_quote, nitro_document, snp_report, tpm
from confonnx.attestation.formats.azure_hcl import HardwareReport
from confonnx.attestation.formats.dcap_quote import SgxBody
from confonnx.attestation.formats.evidence import parse_azure, parse_pcrs, parse_tpm
from confonnx.attestation.verify import simulated
from confonnx.errors import EvidenceFormatError, TeeError


@dataclass(frozen=True, slots=True)
class Identity:
    """What evidence binds, and the measurement as ``claims.Claims`` defines it. Nothing of it is verified."""

    report_data: bytes
    measurement: bytes


@dataclass(frozen=True, slots=True)
class BoundAttester:
    """The ``inner`` Attester, each of whose evidence is looked at before it is used. An ``Attester``."""

    inner: Attester

    @property
    def tee(self) -> Tee:
        """That of ``inner``."""
        return self.inner.tee

    @property
    def evidence_type(self) -> str:
        """That of ``inner``."""
        return self.inner.evidence_type

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """As of ``inner``. Raises ``TeeError`` also for evidence that is malformed or binds other bytes."""
        evidence, endorsements = self.inner.collect(report_data)
        bound = _identity_or_tee_error(self.tee, evidence).report_data
        if not hmac.compare_digest(bound, report_data):
            raise TeeError(
                f"the {self.tee} device gave evidence that binds {bound.hex() or 'nothing'}, expected "
                f"{report_data.hex()}: does another program use it at the same time?"
            )
        return evidence, endorsements

    def measure(self) -> bytes:
        """The measurement that evidence of this server shows now. Raises ``TeeError`` for a device that
        fails, so that a server finds out before it listens."""
        evidence, _ = self.collect(secrets.token_bytes(REPORT_DATA_SIZE))
        return _identity_or_tee_error(self.tee, evidence).measurement


def identity(tee: Tee, evidence: bytes) -> Identity:
    """What ``evidence`` of ``tee`` says of itself. Raises ``EvidenceFormatError``."""
    match tee:
        case Tee.SGX | Tee.TDX:
            body = dcap_quote.parse(evidence).body
            measurement = (
                body.mrenclave if isinstance(body, SgxBody) else tdx_measurement(body.mrtd, body.rtmrs)
            )
            return Identity(body.report_data, measurement)
        case Tee.SEV_SNP:
            report = snp_report.parse(evidence)
            return Identity(report.report_data, report.measurement)
        case Tee.AZURE_SNP | Tee.AZURE_TDX:
            return _azure(evidence)
        case Tee.NITRO:
            document = nitro_document.parse(evidence)
            return Identity(document.user_data or b"", dict(document.pcrs).get(0, b""))
        case Tee.TPM:
            parsed = parse_tpm(evidence)
            pcrs = parse_pcrs(parsed.pcrs).values()
            return Identity(tpm.parse_quote(parsed.message).extra_data, pcr_measurement(pcrs))
        case Tee.SIMULATED:
            claims = simulated.verify(evidence)
            return Identity(claims.report_data, claims.measurement)
        case _:
            assert_never(tee)


def _azure(evidence: bytes) -> Identity:
    parsed = parse_azure(evidence)
    hcl = azure_hcl.parse(parsed.hcl_report)
    if hcl.kind is HardwareReport.SNP:
        launch = snp_report.parse(hcl.hardware[: snp_report.REPORT_SIZE]).measurement
    else:
        body = dcap_quote.parse(parsed.td_quote or b"").body
        if isinstance(body, SgxBody):
            raise EvidenceFormatError("the TD quote is of an SGX enclave")
        launch = body.mrtd
    pcrs = parse_pcrs(parsed.pcrs).values()
    return Identity(tpm.parse_quote(parsed.message).extra_data, azure_measurement(launch, pcrs))


def _identity_or_tee_error(tee: Tee, evidence: bytes) -> Identity:
    try:
        return identity(tee, evidence)
    except EvidenceFormatError as error:
        raise TeeError(f"the {tee} device gave evidence that cannot be read: {error}") from error
