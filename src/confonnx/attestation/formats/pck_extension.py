"""What Intel writes about a CPU into its PCK certificate (SGX PCK Certificate and CRL Profile, table "SGX
Extensions")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError

OID: Final = "1.2.840.113741.1.13.1"

# DER of 1.2.840.113741.1.13.1, to which the last arcs are appended.
_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")
_TCB, _PCE_ID, _FMSPC = b"\x02", b"\x03", b"\x04"
_PCE_SVN, _CPU_SVN = 17, 18  # under TCB; 1 to 16 are the component SVNs

_INTEGER, _OCTETS, _OID, _SEQUENCE = 0x02, 0x04, 0x06, 0x30


@dataclass(frozen=True, slots=True)
class PckExtension:
    """The CPU's identity and its TCB: 16 component SVNs and the PCE's."""

    fmspc: bytes  # 6 bytes
    pce_id: bytes  # 2 bytes
    components: tuple[int, ...]
    pce_svn: int
    cpu_svn: bytes  # 16 bytes


def parse(der: bytes) -> PckExtension:
    """Parse the extension's value. Raises :class:`EvidenceFormatError`."""
    fields = _fields(_only(der, _SEQUENCE, "SGX extensions"), "SGX extensions")
    tcb = _fields(_content(fields, _TCB, _SEQUENCE, "TCB"), "TCB")
    return PckExtension(
        fmspc=_octets(fields, _FMSPC, 6, "FMSPC"),
        pce_id=_octets(fields, _PCE_ID, 2, "PCEID"),
        components=tuple(
            _number(tcb, _TCB + bytes((i,)), 0xFF, f"SGX TCB component {i}") for i in range(1, 17)
        ),
        pce_svn=_number(tcb, _TCB + bytes((_PCE_SVN,)), 0xFFFF, "PCESVN"),
        cpu_svn=_octets(tcb, _TCB + bytes((_CPU_SVN,)), 16, "CPUSVN"),
    )


def _fields(content: bytes, what: str) -> dict[bytes, tuple[int, bytes]]:
    """``SEQUENCE OF SEQUENCE { OID, value }`` as a dictionary from the OID's last arcs to tag and content."""
    fields: dict[bytes, tuple[int, bytes]] = {}
    r = Reader(content, f"PCK certificate: {what}", "big")
    while r.remaining:
        tag, entry = _element(r)
        r.expect(tag, frozenset({_SEQUENCE}), "entry")
        e = Reader(entry, f"PCK certificate: {what}", "big")
        tag, oid = _element(e)
        e.expect(tag, frozenset({_OID}), "entry name")
        value = _element(e)
        e.end()
        if not oid.startswith(_PREFIX) or oid[len(_PREFIX) :] in fields:
            raise EvidenceFormatError(f"PCK certificate: {what} has an unknown or double entry {oid.hex()}")
        fields[oid[len(_PREFIX) :]] = value
    return fields


def _content(fields: dict[bytes, tuple[int, bytes]], arcs: bytes, tag: int, what: str) -> bytes:
    found = fields.get(arcs)
    if found is None or found[0] != tag:
        raise EvidenceFormatError(f"PCK certificate: {what} is missing or of another type")
    return found[1]


def _octets(fields: dict[bytes, tuple[int, bytes]], arcs: bytes, size: int, what: str) -> bytes:
    value = _content(fields, arcs, _OCTETS, what)
    if len(value) != size:
        raise EvidenceFormatError(f"PCK certificate: {what} has {len(value)} bytes, expected {size}")
    return value


def _number(fields: dict[bytes, tuple[int, bytes]], arcs: bytes, maximum: int, what: str) -> int:
    value = int.from_bytes(_content(fields, arcs, _INTEGER, what), "big", signed=True)
    if not 0 <= value <= maximum:
        raise EvidenceFormatError(f"PCK certificate: {what} is {value}, expected 0 to {maximum}")
    return value


def _only(der: bytes, tag: int, what: str) -> bytes:
    r = Reader(der, f"PCK certificate: {what}", "big")
    found, content = _element(r)
    r.expect(found, frozenset({tag}), "type")
    r.end()
    return content


def _element(r: Reader) -> tuple[int, bytes]:
    """One DER element: a one-byte tag, a definite length, the content (X.690 §8.1)."""
    tag, length = r.u8("tag"), r.u8("length")
    if length >= 0x80:
        length = r.integer(r.expect(length, frozenset({0x81, 0x82}), "length form") - 0x80, "long length")
    return tag, r.take(length, "content")
