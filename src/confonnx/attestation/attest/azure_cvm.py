"""Azure confidential VMs, on SEV-SNP or TDX: a quote of the vTPM over our binding, the paravisor's report
that vouches for the vTPM, and the hardware's evidence for that.

The paravisor takes REPORT_DATA for itself and puts the hash of its runtime claims there, in which the vTPM's
attestation key (AK) stands: so what binds our statement is the quote's qualifying data. The report is at NV
index 0x01400001. What vouches for the hardware comes from IMDS: AMD's certificates, or a TD quote for the
TDREPORT in the report. IMDS answers a few requests a second, so what it said is kept for an hour.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa

from confonnx.attestation.attest import imds
from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.devices import Files, Wait, device_errors
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_quoting import QuoteParts, check_attestation_key, quote
from confonnx.attestation.attest.tpm_transport import Connect
from confonnx.attestation.claims import AZURE_SNP_EVIDENCE, AZURE_TDX_EVIDENCE, CERTIFICATE_CHAIN, Tee
from confonnx.attestation.formats import azure_hcl
from confonnx.attestation.formats.azure_hcl import HardwareReport, HclReport
from confonnx.attestation.formats.evidence import VERSION, AzureEvidence, encode
from confonnx.errors import EvidenceFormatError, TeeError

AK_HANDLE: Final = 0x81000003
HCL_REPORT_INDEX: Final = 0x01400001
# Microsoft's chassis asset tag of every Azure VM ("MSFT AZURE VM" in its own way).
ASSET_TAG_FILE: Final = "/sys/class/dmi/id/chassis_asset_tag"
ASSET_TAG: Final = b"7783-7084-3265-9085-8269-3286-77"

_TDREPORT_BYTES: Final = 1024
_KEPT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class AzureOptions:
    """Where the vTPM and IMDS are; ``clock`` is monotonic and in seconds."""

    connect: Connect
    imds_url: str = imds.BASE_URL
    clock: Callable[[], float] = time.monotonic


class AzureAttester:
    """Collects quotes of the vTPM with what vouches for it. An ``Attester``. Mutable: keeps IMDS' answer."""

    def __init__(self, tee: Tee, options: AzureOptions, files: Files, *, wait: Wait) -> None:
        """``tee`` is ``AZURE_SNP`` or ``AZURE_TDX``."""
        self._tee = tee
        self._options = options
        self._files = files
        self._wait = wait
        self._one_at_a_time = threading.Lock()
        self._kept: tuple[bytes, float, bytes] | None = None  # hardware report, when, IMDS' answer

    @property
    def tee(self) -> Tee:
        """``Tee.AZURE_SNP`` or ``Tee.AZURE_TDX``."""
        return self._tee

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return AZURE_SNP_EVIDENCE if self._tee is Tee.AZURE_SNP else AZURE_TDX_EVIDENCE

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A quote whose qualifying data is ``report_data`` (64 bytes) with the paravisor's report; for SNP
        also AMD's certificates. Raises ``TeeError``."""
        with self._one_at_a_time:
            with self._options.connect() as transport:
                device = Tpm(transport, wait=self._wait)
                report, hcl = _read_report(device)
                _check_key(device, hcl)
                parts = quote(device, AK_HANDLE, report_data, files=self._files)
            _check_hardware(hcl, self._tee)
            vouching = self._vouching(hcl.hardware)
        if self._tee is Tee.AZURE_SNP:
            return _encode(parts, report), ((CERTIFICATE_CHAIN, vouching),)
        return _encode(parts, report, td_quote=vouching), ()

    def _vouching(self, hardware: bytes) -> bytes:
        """AMD's certificates in PEM, or the TD quote, for the ``hardware`` report."""
        now = self._options.clock()
        if self._kept is not None and self._kept[0] == hardware and now - self._kept[1] < _KEPT_SECONDS:
            return self._kept[2]
        if self._tee is Tee.AZURE_SNP:
            answer = imds.get_amd_certificates(self._options.imds_url)
        else:
            answer = imds.get_td_quote(self._options.imds_url, hardware[:_TDREPORT_BYTES])
        self._kept = (hardware, now, answer)
        return answer


def find(options: AzureOptions, files: Files, *, wait: Wait) -> AzureAttester | None:
    """The Attester of this VM; None on other machines, and on an Azure VM that is not confidential.

    Only on Azure is the TPM looked at. Raises ``TeeError`` when it cannot be.
    """
    if not files.exists(ASSET_TAG_FILE):
        return None
    with device_errors(ASSET_TAG_FILE):
        if files.read(ASSET_TAG_FILE).strip() != ASSET_TAG:
            return None
    with options.connect() as transport:
        device = Tpm(transport, wait=wait)
        if device.read_nv(HCL_REPORT_INDEX) is None:
            return None
        _, hcl = _read_report(device)
    tee = Tee.AZURE_SNP if hcl.kind is HardwareReport.SNP else Tee.AZURE_TDX
    return AzureAttester(tee, options, files, wait=wait)


def open_attester(tee: Tee, options: AzureOptions, files: Files, *, wait: Wait) -> AzureAttester:
    """The Attester for ``tee``, which was asked for. Raises ``TeeError`` on a machine of another kind."""
    with options.connect() as transport:
        _, hcl = _read_report(Tpm(transport, wait=wait))
    _check_hardware(hcl, tee)
    return AzureAttester(tee, options, files, wait=wait)


def _read_report(device: Tpm) -> tuple[bytes, HclReport]:
    """The paravisor's report, as it is and parsed."""
    raw = device.read_nv(HCL_REPORT_INDEX)
    if raw is None:
        raise TeeError(
            f"the TPM has no NV index {HCL_REPORT_INDEX:#x}, where the paravisor of an Azure confidential VM "
            "keeps its report: this is none"
        )
    try:
        return raw, azure_hcl.parse(raw)
    except EvidenceFormatError as error:
        raise TeeError(f"NV index {HCL_REPORT_INDEX:#x} of the TPM holds no HCL report: {error}") from error


def _check_hardware(hcl: HclReport, tee: Tee) -> None:
    found = Tee.AZURE_SNP if hcl.kind is HardwareReport.SNP else Tee.AZURE_TDX
    if found is not tee:
        raise TeeError(f"the paravisor's report is of {found}, expected {tee}")


def _check_key(device: Tpm, hcl: HclReport) -> None:
    """The key that will sign is the one in the runtime claims."""
    key = device.read_public(AK_HANDLE)
    if key is None:
        raise TeeError(f"the vTPM has no attestation key at {AK_HANDLE:#x}; was it cleared?")
    check_attestation_key(key, AK_HANDLE)
    numbers = key.public_key.public_numbers()
    if not isinstance(numbers, rsa.RSAPublicNumbers) or (numbers.n, numbers.e) != (
        hcl.ak_modulus,
        hcl.ak_exponent,
    ):
        raise TeeError(
            f"the key at {AK_HANDLE:#x} of the vTPM is not the one that the paravisor vouches for "
            "(HCLAkPub); restart the VM"
        )


def _encode(parts: QuoteParts, report: bytes, *, td_quote: bytes | None = None) -> bytes:
    return encode(
        AzureEvidence(VERSION, parts.message, parts.signature, parts.pcrs, report, td_quote, parts.event_log)
    )
