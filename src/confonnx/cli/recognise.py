"""What a file of evidence or endorsements is, told by its content.

A guess only chooses the parser; the parser then accepts the file or refuses it. Nothing here is a check.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation import claims as media_types
from confonnx.attestation.formats import azure_hcl, dcap_quote, snp_report
from confonnx.attestation.formats.azure_hcl import HardwareReport
from confonnx.attestation.formats.evidence import parse_azure
from confonnx.attestation.verify import simulated
from confonnx.errors import ConfigurationError


class Kind(StrEnum):
    """What ``--type`` can say. The TEEs' names mean their evidence."""

    BUNDLE = "bundle"
    SGX = "sgx"
    TDX = "tdx"
    SEV_SNP = "sev-snp"
    AZURE_SNP = "azure-snp"
    AZURE_TDX = "azure-tdx"
    NITRO = "nitro"
    TPM = "tpm"
    SIMULATED = "simulated"
    HCL_REPORT = "hcl-report"
    TPM_QUOTE = "tpm-quote"
    COLLATERAL = "collateral"
    CERTIFICATES = "certificates"
    CRL = "crl"
    EVENT_LOG = "event-log"
    JSON_EVENT_LOG = "json-event-log"


#: The kinds that a verifier takes as evidence: without a statement, but whole.
EVIDENCE_TYPES: Final = {
    Kind.SGX: media_types.SGX_QUOTE,
    Kind.TDX: media_types.TDX_QUOTE,
    Kind.SEV_SNP: media_types.SEV_SNP_REPORT,
    Kind.AZURE_SNP: media_types.AZURE_SNP_EVIDENCE,
    Kind.AZURE_TDX: media_types.AZURE_TDX_EVIDENCE,
    Kind.NITRO: media_types.NITRO_DOCUMENT,
    Kind.TPM: media_types.TPM_EVIDENCE,
    Kind.SIMULATED: simulated.SIMULATED_EVIDENCE,
}
ENDORSEMENT_TYPES: Final = {
    Kind.COLLATERAL: media_types.DCAP_COLLATERAL,
    Kind.CERTIFICATES: media_types.CERTIFICATE_CHAIN,
    Kind.CRL: media_types.CERTIFICATE_LIST,
    Kind.EVENT_LOG: media_types.EVENT_LOG,
    Kind.JSON_EVENT_LOG: media_types.JSON_EVENT_LOG,
}
_KINDS: Final = {media_type: kind for kind, media_type in (EVIDENCE_TYPES | ENDORSEMENT_TYPES).items()}

_QE_VENDOR: Final = slice(12, 28)  # of a quote's header
_SPEC_ID: Final = b"Spec ID Event03\0"  # TCG PC Client Platform Firmware Profile, first event
_ARRAY_OF_FOUR: Final = (b"\x84", b"\xd2\x84")  # COSE_Sign1 without and with its CBOR tag
_TPM_GENERATED: Final = b"\xffTCG"
_PEM: Final = b"-----BEGIN "
_DER_SEQUENCE: Final = b"\x30"


def kind_of(media_type: str) -> Kind | None:
    """The kind of a bundle's record; None for a media type that is unknown here."""
    return _KINDS.get(media_type)


def recognise(data: bytes, what: str) -> Kind:
    """What ``data`` is. ``what`` names it in the error.

    Raises :class:`ConfigurationError`, and :class:`EvidenceFormatError` for Azure's evidence without a
    readable report, which alone tells SNP from TDX.
    """
    kind = _binary(data) or _text(data)
    if kind is None:
        raise ConfigurationError(
            f"{what}: {len(data)} bytes that are neither evidence nor endorsements of a kind known here; if "
            f"you know what it is, say so with --type ({', '.join(Kind)})"
        )
    return kind


def as_endorsement(data: bytes, what: str, kind: Kind | None = None) -> tuple[str, bytes]:
    """Media type and bytes as a bundle would hold them: certificates as PEM, a CRL as DER.

    ``kind`` is what it is, if that is known. Raises :class:`ConfigurationError` for what is no endorsement.
    """
    kind = kind or recognise(data, what)
    if kind not in ENDORSEMENT_TYPES:
        raise ConfigurationError(f"{what} is {kind}, expected endorsements: {', '.join(ENDORSEMENT_TYPES)}")
    try:
        if kind is Kind.CERTIFICATES and not data.lstrip().startswith(_PEM):
            data = x509.load_der_x509_certificate(data).public_bytes(Encoding.PEM)
        if kind is Kind.CRL and data.lstrip().startswith(_PEM):
            data = x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise ConfigurationError(f"{what} cannot be read: {error}") from error
    return ENDORSEMENT_TYPES[kind], data


def _binary(data: bytes) -> Kind | None:
    if data[_QE_VENDOR] == dcap_quote.INTEL_QE_VENDOR:
        return Kind.TDX if data[4:8] == b"\x81\0\0\0" else Kind.SGX
    if data.startswith(b"HCLA"):
        return Kind.HCL_REPORT
    if data.startswith(_TPM_GENERATED):
        return Kind.TPM_QUOTE
    if data.startswith(_ARRAY_OF_FOUR):
        return Kind.NITRO
    if _SPEC_ID in data[:64]:
        return Kind.EVENT_LOG
    if data.startswith(_DER_SEQUENCE):
        return _der(data)
    # Last: a report has no magic number, only a size and a version that is small.
    if len(data) == snp_report.REPORT_SIZE and data[1:4] == bytes(3):
        return Kind.SEV_SNP
    return None


def _der(data: bytes) -> Kind:
    try:
        x509.load_der_x509_crl(data)
    except ValueError:
        return Kind.CERTIFICATES
    return Kind.CRL


def _text(data: bytes) -> Kind | None:
    if data.lstrip().startswith(_PEM):
        return Kind.CRL if b"-----BEGIN X509 CRL-----" in data else Kind.CERTIFICATES
    try:
        document = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(document, list):
        return Kind.JSON_EVENT_LOG
    if not isinstance(document, dict):
        return None
    members = set(document)
    if "__cmwc_t" in members:
        return Kind.BUNDLE
    if {"tcb_info", "qe_identity"} <= members:
        return Kind.COLLATERAL
    if {"body", "root", "signature"} <= members:
        return Kind.SIMULATED
    if "hcl_report" in members:
        return _azure(data)
    return Kind.TPM if {"message", "signature", "pcrs"} <= members else None


def _azure(data: bytes) -> Kind:
    hcl = azure_hcl.parse(parse_azure(data).hcl_report)
    return Kind.AZURE_SNP if hcl.kind is HardwareReport.SNP else Kind.AZURE_TDX
