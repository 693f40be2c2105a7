"""The certificates that an SEV-SNP host hands to its guest beside a report.

GHCB specification (AMD 56421), "SNP Extended Guest Request": entries of GUID 16 (in EFI byte order) ‖ offset
4 ‖ length 4, little-endian, up to one of zeros; offsets count from the table's begin. The host writes it, so
all of it is hostile, and clients verify what comes of it like everything.
"""

from __future__ import annotations

import ssl
from typing import Final
from uuid import UUID

from confonnx.attestation.attest.attester import Endorsements
from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
from confonnx.errors import TeeError

_ENTRY_SIZE: Final = 24
_MAX_ENTRIES: Final = 32
_END: Final = UUID(int=0)
# The VEK comes first, then what vouches for it.
_CERTIFICATES: Final = (
    UUID("63da758d-e664-4564-adc5-f4b93be8accd"),  # VCEK
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"),  # VLEK
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"),  # ASK or ASVK
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"),  # ARK
)
_CRL: Final = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")


def parse_table(table: bytes) -> Endorsements:
    """What is in ``table``, as endorsements of a bundle; none if it is empty, and without what is of no use
    here. Raises ``TeeError``."""
    found = _entries(table)
    chain = b"".join(
        ssl.DER_cert_to_PEM_cert(found[kind]).encode() for kind in _CERTIFICATES if kind in found
    )
    endorsements = ((CERTIFICATE_CHAIN, chain),) if chain else ()
    return (*endorsements, (CERTIFICATE_LIST, found[_CRL])) if _CRL in found else endorsements


def _entries(table: bytes) -> dict[UUID, bytes]:
    found: dict[UUID, bytes] = {}
    for index in range(_MAX_ENTRIES):
        entry = table[index * _ENTRY_SIZE : (index + 1) * _ENTRY_SIZE]
        if len(entry) < _ENTRY_SIZE:
            if not any(entry):
                return found  # the host gave nothing, or ended the table where its buffer ends
            raise TeeError(f"certificate table of the SNP host: entry {index} is cut off")
        kind = UUID(bytes_le=entry[:16])
        if kind == _END:
            return found
        begin = int.from_bytes(entry[16:20], "little")
        end = begin + int.from_bytes(entry[20:24], "little")
        if end > len(table) or begin == end or kind in found:
            raise TeeError(
                f"certificate table of the SNP host: entry {index} ({kind}) is twice there, empty, or ends "
                f"at {end} of {len(table)} bytes"
            )
        found[kind] = table[begin:end]
    raise TeeError(f"certificate table of the SNP host: more than {_MAX_ENTRIES} entries")
