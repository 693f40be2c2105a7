"""Logs of what was extended into PCRs and RTMRs, and their replay.

Layouts: the crypto-agile log of the TCG PC Client Platform Firmware Profile (§10, ``TCG_PCR_EVENT2``), which
TDX firmware also writes as its CCEL (UEFI 2.10 §38.4, where register 0 is MRTD and 1 to 4 are RTMR0 to 3);
and the JSON list of ``imr``, ``event_type``, ``digest``, ``event``, ``event_payload`` that TDX guest agents
print. A log is untrusted until its replay gives attested registers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from confonnx.attestation.claims import LoggedEvent
from confonnx.attestation.formats.reader import Reader
from confonnx.errors import EvidenceFormatError

MAX_LOG_BYTES: Final = 2 * 1024 * 1024
MAX_EVENTS: Final = 20_000

# TPM_ALG_ID (TPM 2.0 part 2, §6.3) of the banks that are replayed.
BANKS: Final[Mapping[int, str]] = MappingProxyType(
    {0x04: "sha1", 0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}
)

RTMR_BANK: Final = "sha384"
RTMR_COUNT: Final = 4
PCR_COUNT: Final = 24

_EV_NO_ACTION: Final = 3
_STARTUP_LOCALITY: Final = b"StartupLocality\0"
_SPEC_ID: Final = b"Spec ID Event03\0"


@dataclass(frozen=True, slots=True)
class Event:
    """One entry: what register ``register`` was extended with, in each bank."""

    register: int
    kind: int
    digests: tuple[tuple[str, bytes], ...]
    data: bytes

    def digest(self, bank: str) -> bytes:
        """The digest in ``bank``. Raises :class:`EvidenceFormatError` if the log has none."""
        for name, value in self.digests:
            if name == bank:
                return value
        raise EvidenceFormatError(f"event log: an event of register {self.register} has no {bank} digest")


@dataclass(frozen=True, slots=True)
class EventLog:
    """A parsed log. ``locality`` is that of the start-up, which PCR 0 begins with."""

    events: tuple[Event, ...]
    locality: int = 0


def parse(data: bytes) -> EventLog:
    """Parse a TCG crypto-agile log, up to a fill of zeros or ones. Raises :class:`EvidenceFormatError`."""
    _check_size(data)
    r = Reader(data, "event log")
    sizes = _header(r)
    events: list[Event] = []
    locality = 0
    while r.remaining and not _is_fill(data, r.position):
        event = _event(r, sizes)
        if event.kind == _EV_NO_ACTION:
            if event.data.startswith(_STARTUP_LOCALITY):
                locality = _locality(event, events)
            continue
        events.append(event)
        if len(events) > MAX_EVENTS:
            raise EvidenceFormatError(f"event log: more than {MAX_EVENTS} events")
    return EventLog(tuple(events), locality)


def parse_ccel(data: bytes) -> EventLog:
    """Parse a CCEL; registers of the result are RTMR indices. Raises :class:`EvidenceFormatError`."""
    log = parse(data)
    for event in log.events:
        if not 1 <= event.register <= RTMR_COUNT:
            raise EvidenceFormatError(f"CCEL: register {event.register}, expected 1 to 4 (RTMR0 to RTMR3)")
    return EventLog(tuple(Event(e.register - 1, e.kind, e.digests, e.data) for e in log.events))


class _JsonEvent(msgspec.Struct, frozen=True):
    imr: int
    event_type: int
    digest: str
    event: str
    event_payload: str


def parse_json(data: bytes) -> EventLog:
    """Parse a JSON list of RTMR events. Raises :class:`EvidenceFormatError`."""
    _check_size(data)
    try:
        entries = msgspec.json.decode(data, type=list[_JsonEvent])
        events = tuple(
            Event(
                e.imr, e.event_type, ((RTMR_BANK, bytes.fromhex(e.digest)),), bytes.fromhex(e.event_payload)
            )
            for e in entries
        )
    except (ValueError, RecursionError) as error:
        raise EvidenceFormatError(f"JSON event log cannot be read: {error}") from error
    if len(events) > MAX_EVENTS:
        raise EvidenceFormatError(f"JSON event log: more than {MAX_EVENTS} events")
    for event in events:
        if not 0 <= event.register < RTMR_COUNT or len(event.digest(RTMR_BANK)) != 48:
            raise EvidenceFormatError("JSON event log: expected imr 0 to 3 and digests of 48 bytes")
    return EventLog(events)


def replay(log: EventLog, bank: str, registers: Iterable[int]) -> dict[int, bytes]:
    """What each of ``registers`` holds after the log: ``R = H(R ‖ digest)`` for each event, from zero."""
    size = hashlib.new(bank).digest_size
    values = {register: bytes(size) for register in registers}
    if 0 in values:
        values[0] = log.locality.to_bytes(
            size, "big"
        )  # PC Client Firmware Profile §3.3.2, table "PCR initial values"
    for event in log.events:
        if event.register in values:
            values[event.register] = hashlib.new(bank, values[event.register] + event.digest(bank)).digest()
    return values


def attested(log: EventLog, bank: str, registers: Iterable[int]) -> tuple[LoggedEvent, ...]:
    """The events of ``registers``, for claims. Call it only when :func:`replay` gave the attested values of
    all of them."""
    wanted = frozenset(registers)
    return tuple(
        LoggedEvent(event.register, event.kind, event.digest(bank), event.data)
        for event in log.events
        if event.register in wanted
    )


def _header(r: Reader) -> dict[int, int]:
    """The first event, of the old SHA-1 layout, which names the digest sizes; returns them by algorithm."""
    r.take(4, "register of the first event")
    r.expect(r.u32("type of the first event"), frozenset({_EV_NO_ACTION}), "type of the first event")
    r.zeros(20, "digest of the first event")
    s = Reader(r.sized(4, "specification event"), "event log specification")
    signature = s.take(16, "signature")
    if signature != _SPEC_ID:
        raise EvidenceFormatError(f"event log: begins with {signature!r}, expected {_SPEC_ID!r}")
    s.take(8, "platform class and version")
    count = s.u32("number of algorithms")
    if not 1 <= count <= 16:
        raise EvidenceFormatError(f"event log: {count} algorithms, expected 1 to 16")
    sizes: dict[int, int] = {}
    for _ in range(count):
        algorithm, size = s.u16("algorithm"), s.u16("digest size")
        known = BANKS.get(algorithm)
        if algorithm in sizes or (known is not None and size != hashlib.new(known).digest_size) or size > 64:
            raise EvidenceFormatError(f"event log: algorithm {algorithm:#x} with digests of {size} bytes")
        sizes[algorithm] = size
    s.sized(1, "vendor information")
    s.end()
    return sizes


def _event(r: Reader, sizes: Mapping[int, int]) -> Event:
    register, kind, count = r.u32("register"), r.u32("event type"), r.u32("number of digests")
    if not 1 <= count <= len(sizes):
        raise EvidenceFormatError(
            f"event log: {count} digests at offset {r.position}, expected 1 to {len(sizes)}"
        )
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = r.u16("digest algorithm")
        if algorithm not in sizes or algorithm in digests:
            raise EvidenceFormatError(f"event log: unexpected digest algorithm {algorithm:#x}")
        digests[algorithm] = r.take(sizes[algorithm], "digest")
    data = r.sized(4, "event")
    if register >= PCR_COUNT and kind != _EV_NO_ACTION:
        raise EvidenceFormatError(f"event log: register {register}, expected 0 to {PCR_COUNT - 1}")
    named = tuple((BANKS[a], digest) for a, digest in digests.items() if a in BANKS)
    return Event(register, kind, named, data)


def _locality(event: Event, events: list[Event]) -> int:
    """PC Client Firmware Profile §10.4.5.3: before any extension of PCR 0, and one of 0, 3, 4."""
    if len(event.data) != len(_STARTUP_LOCALITY) + 1 or any(e.register == 0 for e in events):
        raise EvidenceFormatError("event log: StartupLocality is malformed or comes too late")
    if event.data[-1] not in (0, 3, 4):
        raise EvidenceFormatError(f"event log: StartupLocality is {event.data[-1]}, expected 0, 3 or 4")
    return event.data[-1]


def _is_fill(data: bytes, position: int) -> bool:
    """Whether the rest is what the firmware left of its buffer. An event type 0 of register 0 without digests
    is no event."""
    head = data[position : position + 12]
    return (
        head in (bytes(len(head)), b"\xff" * len(head))
        and data.count(head[:1], position) == len(data) - position
    )


def _check_size(data: bytes) -> None:
    if len(data) > MAX_LOG_BYTES:
        raise EvidenceFormatError(f"event log: {len(data)} bytes, at most {MAX_LOG_BYTES} are allowed")
