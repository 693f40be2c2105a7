"""A quote with the PCR values that it is over: what a TPM and an Azure VM's vTPM have in common."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from confonnx.attestation.attest.devices import Files
from confonnx.attestation.attest.tpm_commands import DECRYPT, FIXED_TPM, RESTRICTED, SIGN, Tpm, TpmKey
from confonnx.attestation.claims import Pcr
from confonnx.attestation.formats import event_log, tpm
from confonnx.errors import EvidenceFormatError, TeeError

BANK: Final = "sha256"
# The measured boot (0-9) and what the system extends for itself (11-15). Not 10: the kernel's integrity
# measurement extends it as long as the system runs. Not 16 and 23: anyone can reset them.
PCRS: Final = (*range(10), *range(11, 16))
# Kernel documentation, ABI/testing: the firmware's log, for root.
EVENT_LOG_FILE: Final = "/sys/kernel/security/tpm0/binary_bios_measurements"

_ATTEMPTS: Final = 5
_MAX_EVENT_LOG_BYTES: Final = 512 * 1024  # base64 in the evidence, of which a bundle holds 1 MiB


@dataclass(frozen=True, slots=True)
class QuoteParts:
    """The members of an evidence envelope: ``message`` is TPMS_ATTEST, ``signature`` TPMT_SIGNATURE, ``pcrs``
    maps bank and index to hexadecimal."""

    message: bytes
    signature: bytes
    pcrs: dict[str, dict[str, str]]
    event_log: bytes | None


def quote(device: Tpm, handle: int, qualifying_data: bytes, *, files: Files) -> QuoteParts:
    """A quote of :data:`PCRS` by the key at ``handle``, and the event log if it leads to them.

    Reads the values before the quote and asks again if one was extended in between. Raises ``TeeError``.
    """
    for _ in range(_ATTEMPTS):
        values = device.read_pcrs(BANK, PCRS)
        message, signature = device.quote(handle, qualifying_data, bank=BANK, indices=PCRS)
        if _agree(message, signature, values):
            pcrs = {BANK: {str(index): value.hex() for index, value in sorted(values.items())}}
            return QuoteParts(message, signature, pcrs, _event_log(files, values))
    raise TeeError(f"the PCRs changed during each of {_ATTEMPTS} quotes; what keeps extending {PCRS}?")


def check_attestation_key(key: TpmKey, handle: int) -> None:
    """A restricted key signs only what the TPM made. Raises ``TeeError`` for another one."""
    wanted = FIXED_TPM | RESTRICTED | SIGN
    if key.attributes & (wanted | DECRYPT) != wanted:
        raise TeeError(
            f"the key at {handle:#x} is no attestation key: its attributes are {key.attributes:#x}, expected "
            "fixedTPM, restricted and sign, and not decrypt; name another handle, or remove the key "
            f"(tpm2_evictcontrol -c {handle:#x})"
        )


def _agree(message: bytes, signature: bytes, values: dict[int, bytes]) -> bool:
    """Whether the quote is over these values."""
    try:
        digest = tpm.parse_signature(signature).digest
        quoted = tpm.parse_quote(message).pcr_digest
    except EvidenceFormatError as error:
        raise TeeError(f"TPM2_Quote gave what no verifier takes: {error}") from error
    pcrs = [Pcr(BANK, index, value) for index, value in sorted(values.items())]
    return hmac.compare_digest(quoted, tpm.pcr_digest(pcrs, digest))


def _event_log(files: Files, values: dict[int, bytes]) -> bytes | None:
    """The log, for policies and people. A verifier refuses one that does not lead to the quoted PCRs, as
    after an extension that the firmware did not see, so such a log stays here."""
    try:
        data = files.read(EVENT_LOG_FILE)
        log = event_log.parse(data)
        spoken = {event.register for event in log.events} & set(values)
        replayed = event_log.replay(log, BANK, spoken)
    except (OSError, EvidenceFormatError):
        return None  # no log, or none to be read: the registers stand for themselves
    fits = len(data) <= _MAX_EVENT_LOG_BYTES and all(values[i] == replayed[i] for i in spoken)
    return data if fits else None
