"""A TPM 2.0 alone: quotes of what was booted, over our binding. It protects no memory, so it is used only
when it is asked for.

The attestation key (AK) is made once and kept in the TPM. Its certificate comes from whoever checked that
this TPM holds it (credential activation, TPM 2.0 part 1, §24): an enrolment CA, or the cloud, which leaves it
in the TPM.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.attest.devices import Files, Wait
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.attestation.attest.tpm_quoting import check_attestation_key, quote
from confonnx.attestation.attest.tpm_transport import Connect
from confonnx.attestation.claims import CERTIFICATE_CHAIN, TPM_EVIDENCE, Tee
from confonnx.attestation.formats.evidence import VERSION, TpmEvidence, encode
from confonnx.errors import TeeError

#: In the owner's range of persistent handles (TCG registry of reserved TPM 2.0 handles), of no other use.
AK_HANDLE: Final = 0x8100C0F0
AK_CERTIFICATE_INDEX: Final = 0x01C101D0  # where Azure's vTPMs have the certificate of their own AK


@dataclass(frozen=True, slots=True)
class TpmOptions:
    """Which TPM and AK. ``certificates`` are of the AK and of the CAs above it, in any order."""

    connect: Connect
    ak_handle: int = AK_HANDLE
    certificates: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class TpmAttester:
    """Collects quotes. ``chain`` is PEM, the AK's certificate first. An ``Attester``."""

    options: TpmOptions
    chain: bytes
    files: Files
    wait: Wait
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def tee(self) -> Tee:
        """``Tee.TPM``."""
        return Tee.TPM

    @property
    def evidence_type(self) -> str:
        """The media type of the evidence."""
        return TPM_EVIDENCE

    def collect(self, report_data: bytes) -> tuple[bytes, Endorsements]:
        """A quote whose qualifying data is ``report_data`` (64 bytes), and the AK's certificates. Raises
        ``TeeError``."""
        with self._one_at_a_time, self.options.connect() as transport:
            device = Tpm(transport, wait=self.wait)
            parts = quote(device, self.options.ak_handle, report_data, files=self.files)
        evidence = TpmEvidence(VERSION, parts.message, parts.signature, parts.pcrs, parts.event_log)
        return encode(evidence), ((CERTIFICATE_CHAIN, self.chain),)


def open_attester(options: TpmOptions, files: Files, *, wait: Wait) -> TpmAttester:
    """The Attester of this TPM; makes the AK if its handle is empty. Raises ``TeeError``."""
    with options.connect() as transport:
        device = Tpm(transport, wait=wait)
        key = device.read_public(options.ak_handle)
        if key is None:
            device.make_attestation_key(options.ak_handle)
            key = device.read_public(options.ak_handle)
            if key is None:
                raise TeeError(f"the TPM did not keep the attestation key at {options.ak_handle:#x}")
        check_attestation_key(key, options.ak_handle)
        certificates = (*options.certificates, *_built_in_certificate(device))
    public = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TpmAttester(options, _chain(certificates, public, options.ak_handle), files, wait)


def _built_in_certificate(device: Tpm) -> tuple[x509.Certificate, ...]:
    """The NV index may be larger than the certificate in it."""
    content = device.read_nv(AK_CERTIFICATE_INDEX)
    if content is None:
        return ()
    size = 4 + int.from_bytes(content[2:4], "big")  # a DER SEQUENCE of 256 to 65535 bytes
    try:
        return (x509.load_der_x509_certificate(content[:size]),)
    except ValueError as error:
        raise TeeError(
            f"NV index {AK_CERTIFICATE_INDEX:#x} of the TPM holds no certificate: {error}"
        ) from error


def _chain(certificates: Sequence[x509.Certificate], public: bytes, handle: int) -> bytes:
    """PEM, the AK's certificate first."""
    own = [certificate for certificate in certificates if _public(certificate) == public]
    if not own:
        raise TeeError(
            f"no certificate is for the attestation key at {handle:#x} of the TPM ({len(certificates)} were "
            "looked at), so no client could trust it; have the key certified and give the certificate as "
            "--tpm-ak-certificate, see docs/how-to/run-in-a-tee.md, section TPM"
        )
    others = [certificate for certificate in certificates if certificate not in own]
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (own[0], *others))


def _public(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
