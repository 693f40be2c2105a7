"""What a TPM 2.0 signs when it quotes PCRs, and how it writes signatures (TCG TPM 2.0 Library, part 2,
structures). No crypto."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from confonnx.attestation.claims import Pcr
from confonnx.attestation.formats.event_log import BANKS, PCR_COUNT
from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError

MAX_ATTEST_BYTES: Final = 4096
MAX_SIGNATURE_BYTES: Final = 1024

_GENERATED: Final = (
    0xFF544347  # TPM_GENERATED_VALUE: a restricted key signs nothing else that begins so (part 1, §31)
)
_ATTEST_QUOTE: Final = 0x8018  # TPM_ST_ATTEST_QUOTE
_RSASSA: Final = 0x0014  # TPM_ALG_RSASSA
_ECDSA: Final = 0x0018  # TPM_ALG_ECDSA
_SIGNATURE_HASHES: Final = frozenset({0x0B, 0x0C, 0x0D})  # SHA-256, SHA-384, SHA-512; not SHA-1
_RAW_RSA_SIZES: Final = frozenset({256, 384, 512})


@dataclass(frozen=True, slots=True)
class TpmQuote:
    """A parsed TPMS_ATTEST of a quote. ``selection`` is of pairs of bank and PCR index, in the order of
    ``pcr_digest``."""

    extra_data: bytes  # the caller's qualifyingData
    qualified_signer: bytes
    clock: int  # milliseconds
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selection: tuple[tuple[str, int], ...]
    pcr_digest: bytes
    signed: bytes


@dataclass(frozen=True, slots=True)
class RsaSignature:
    """RSASSA-PKCS1-v1_5; ``digest`` is a bank name such as ``sha256``."""

    digest: str
    value: bytes


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """ECDSA; ``digest`` is a bank name such as ``sha256``."""

    digest: str
    r: int
    s: int


def parse_quote(data: bytes) -> TpmQuote:
    """Parse exactly one TPMS_ATTEST (part 2, §10.12.12). Raises :class:`EvidenceFormatError`."""
    if len(data) > MAX_ATTEST_BYTES:
        raise EvidenceFormatError(f"TPM quote: {len(data)} bytes, at most {MAX_ATTEST_BYTES} are allowed")
    r = Reader(data, "TPM quote", "big")
    r.expect(r.u32("magic"), frozenset({_GENERATED}), "magic")
    r.expect(r.u16("type"), frozenset({_ATTEST_QUOTE}), "type")
    qualified_signer, extra_data = r.sized(2, "qualifiedSigner"), r.sized(2, "extraData")
    clock, reset_count, restart_count = r.u64("clock"), r.u32("resetCount"), r.u32("restartCount")
    safe = r.expect(r.u8("safe"), frozenset({0, 1}), "safe")
    firmware_version = r.u64("firmwareVersion")
    selection = _selection(r)
    pcr_digest = r.sized(2, "pcrDigest")
    r.end()
    return TpmQuote(
        extra_data=extra_data,
        qualified_signer=qualified_signer,
        clock=clock,
        reset_count=reset_count,
        restart_count=restart_count,
        safe=bool(safe),
        firmware_version=firmware_version,
        selection=selection,
        pcr_digest=pcr_digest,
        signed=data,
    )


def parse_signature(data: bytes) -> RsaSignature | EcdsaSignature:
    """Parse a TPMT_SIGNATURE (part 2, §11.3.4), or the bare RSA signature that Azure's tools hand out, which
    is over SHA-256.

    Raises :class:`EvidenceFormatError`.
    """
    if len(data) > MAX_SIGNATURE_BYTES:
        raise EvidenceFormatError(
            f"TPM signature: {len(data)} bytes, at most {MAX_SIGNATURE_BYTES} are allowed"
        )
    if len(data) in _RAW_RSA_SIZES:  # no TPMT_SIGNATURE has these sizes: 6 bytes come before an RSA signature
        return RsaSignature("sha256", data)
    r = Reader(data, "TPM signature", "big")
    algorithm = r.expect(r.u16("algorithm"), frozenset({_RSASSA, _ECDSA}), "algorithm")
    digest = BANKS[r.expect(r.u16("hash"), _SIGNATURE_HASHES, "hash")]
    if algorithm == _RSASSA:
        value = r.sized(2, "signature")
        r.end()
        return RsaSignature(digest, value)
    first, second = r.sized(2, "r"), r.sized(2, "s")
    r.end()
    return EcdsaSignature(digest, int.from_bytes(first, "big"), int.from_bytes(second, "big"))


def pcr_digest(pcrs: Iterable[Pcr], digest: str) -> bytes:
    """``pcrDigest`` over ``pcrs`` in the order of the selection, with the hash of the signature (part 3,
    TPM2_Quote)."""
    return hashlib.new(digest, b"".join(pcr.value for pcr in pcrs)).digest()


def _selection(r: Reader) -> tuple[tuple[str, int], ...]:
    """TPML_PCR_SELECTION: a bank, and a bit map of its registers, lowest first."""
    count = r.u32("number of PCR banks")
    if count > len(BANKS):
        raise EvidenceFormatError(f"TPM quote: {count} PCR banks, at most {len(BANKS)} are known")
    selection: list[tuple[str, int]] = []
    for _ in range(count):
        bank = BANKS[r.expect(r.u16("PCR bank"), frozenset(BANKS), "PCR bank")]
        bits = int.from_bytes(r.take(r.u8("size of the PCR selection"), "PCR selection"), "little")
        if bits >> PCR_COUNT:
            raise EvidenceFormatError(f"TPM quote: PCR selection {bits:#x} names a PCR above {PCR_COUNT - 1}")
        selection += [(bank, index) for index in range(PCR_COUNT) if bits >> index & 1]
    if len(set(selection)) != len(selection):
        raise EvidenceFormatError("TPM quote: a PCR is selected twice")
    return tuple(selection)
