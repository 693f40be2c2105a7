"""The JSON envelopes of evidence that comes in several parts: of a TPM, and of an Azure confidential VM.

Binary members are base64 (RFC 4648 §4); ``pcrs`` maps bank and decimal index to hexadecimal:
``{"sha256": {"0": "…", "7": "…"}}``. Unknown members are refused.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeVar

import msgspec

from confonnx.attestation.claims import Pcr
from confonnx.attestation.formats.event_log import BANKS, MAX_LOG_BYTES, PCR_COUNT
from confonnx.errors import EvidenceFormatError

MAX_EVIDENCE_BYTES: Final = 2 * MAX_LOG_BYTES
VERSION: Final = 1


class TpmEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A TPM's quote. ``message`` is a TPMS_ATTEST, ``signature`` a TPMT_SIGNATURE, ``event_log`` a TCG log of
    the boot."""

    version: int
    message: bytes
    signature: bytes
    pcrs: dict[str, dict[str, str]]
    event_log: bytes | None = None


class AzureEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A quote of an Azure VM's vTPM, the HCL report that vouches for the vTPM, and for TDX the TD quote below
    that."""

    version: int
    message: bytes
    signature: bytes
    pcrs: dict[str, dict[str, str]]
    hcl_report: bytes
    td_quote: bytes | None = None
    event_log: bytes | None = None


def encode(evidence: TpmEvidence | AzureEvidence) -> bytes:
    """The JSON bytes."""
    return msgspec.json.encode(evidence)


def parse_tpm(data: bytes) -> TpmEvidence:
    """Parse a TPM's evidence. Raises :class:`EvidenceFormatError`."""
    return _parse(data, TpmEvidence, "TPM evidence")


def parse_azure(data: bytes) -> AzureEvidence:
    """Parse an Azure VM's evidence. Raises :class:`EvidenceFormatError`."""
    return _parse(data, AzureEvidence, "Azure evidence")


def parse_pcrs(pcrs: dict[str, dict[str, str]]) -> dict[tuple[str, int], Pcr]:
    """The PCR values by bank and index. Raises :class:`EvidenceFormatError`."""
    parsed: dict[tuple[str, int], Pcr] = {}
    for bank, registers in pcrs.items():
        if bank not in BANKS.values():
            raise EvidenceFormatError(
                f"evidence: PCR bank {bank!r}, expected one of {', '.join(BANKS.values())}"
            )
        for name, text in registers.items():
            index = _INDICES.get(name)
            if index is None:
                raise EvidenceFormatError(f"evidence: PCR {name!r}, expected 0 to {PCR_COUNT - 1}")
            parsed[bank, index] = Pcr(bank, index, _value(bank, name, text))
    return parsed


_INDICES: Final = {str(index): index for index in range(PCR_COUNT)}  # one spelling each: "07" is none


def _value(bank: str, name: str, text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise EvidenceFormatError(f"evidence: {bank} PCR {name} is not hexadecimal") from error
    if len(value) != hashlib.new(bank).digest_size:
        raise EvidenceFormatError(f"evidence: {bank} PCR {name} has {len(value)} bytes")
    return value


_Evidence = TypeVar("_Evidence", TpmEvidence, AzureEvidence)


def _parse(data: bytes, kind: type[_Evidence], what: str) -> _Evidence:
    if len(data) > MAX_EVIDENCE_BYTES:
        raise EvidenceFormatError(f"{what}: {len(data)} bytes, at most {MAX_EVIDENCE_BYTES} are allowed")
    try:
        evidence = msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"{what} cannot be read: {error}") from error
    if evidence.version != VERSION:
        raise EvidenceFormatError(f"{what}: version {evidence.version}, expected {VERSION}")
    return evidence
