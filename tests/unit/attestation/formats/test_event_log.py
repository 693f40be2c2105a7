"""Event logs: parsing, replay, and what is no log."""

from __future__ import annotations

import hashlib
import json

import pytest

from confonnx.attestation.formats import event_log
from confonnx.attestation.formats.event_log import Event, EventLog
from confonnx.errors import EvidenceFormatError
from tests.support.authorities.boot import event, header, no_action

SHA256, SHA384 = 0x0B, 0x0C


def digest(bank: str, text: bytes) -> bytes:
    return hashlib.new(bank, text).digest()


def test_replay_by_hand() -> None:
    log = event_log.parse(header() + event(4, 1, b"kernel") + no_action(b"anything") + event(4, 2, b"initrd"))
    first = hashlib.sha256(bytes(32) + digest("sha256", b"kernel")).digest()
    second = hashlib.sha256(first + digest("sha256", b"initrd")).digest()
    assert event_log.replay(log, "sha256", [4, 7]) == {4: second, 7: bytes(32)}
    events = event_log.attested(log, "sha256", [4])
    assert [(e.register, e.kind, e.data) for e in events] == [(4, 1, b"kernel"), (4, 2, b"initrd")]
    assert events[0].digest == digest("sha256", b"kernel")
    assert event_log.attested(log, "sha256", [5]) == ()


def test_startup_locality() -> None:
    log = event_log.parse(header() + no_action(b"StartupLocality\0\3") + event(0, 8, b"crtm"))
    expected = hashlib.sha256(bytes(31) + b"\3" + digest("sha256", b"crtm")).digest()
    assert event_log.replay(log, "sha256", [0]) == {0: expected}


@pytest.mark.parametrize("fill", [b"", bytes(1), bytes(5), bytes(4096), b"\xff" * 7, b"\xff" * 4096])
def test_fill(fill: bytes) -> None:
    assert len(event_log.parse(header() + event(0, 8, b"x") + fill).events) == 1


def test_ccel_registers_are_rtmrs() -> None:
    log = event_log.parse_ccel(
        header((SHA384,)) + event(1, 1, b"a", (SHA384,)) + event(4, 1, b"b", (SHA384,))
    )
    assert [e.register for e in log.events] == [0, 3]
    for register in (0, 5):
        with pytest.raises(EvidenceFormatError, match="RTMR0 to RTMR3"):
            event_log.parse_ccel(header((SHA384,)) + event(register, 1, b"a", (SHA384,)))


def test_a_bank_that_the_log_does_not_have() -> None:
    with pytest.raises(EvidenceFormatError, match="no sha384 digest"):
        event_log.replay(event_log.parse(header() + event(4, 1, b"x")), "sha384", [4])


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (b"", "register of the first event"),
        (b"\0" * 4 + b"\4" + bytes(27), "type of the first event"),
        (b"\0" * 4 + b"\3\0\0\0" + b"\1" + bytes(23), "digest of the first event"),
        (header(signature=b"Spec ID Event02\0"), "Spec ID Event03"),
        (header(()), "0 algorithms"),
        (header((SHA256, SHA256)), "algorithm 0xb"),
        (header((SHA256,), sizes=(20,)), "digests of 20 bytes"),
        (header((0x99,), sizes=(65,)), "digests of 65 bytes"),
        (header() + event(4, 1, b"x", (SHA256, SHA384)), "2 digests"),
        (header((SHA256, SHA384)) + event(4, 1, b"x", (SHA256, SHA256)), "unexpected digest algorithm"),
        (header() + event(4, 1, b"x", (SHA384,)), "unexpected digest algorithm"),
        (header() + event(24, 1, b"x"), "register 24"),
        (header() + event(4, 1, b"x")[:-1], "event needs 1 bytes"),
        (header() + bytes(100) + b"\1", "0 digests"),
        (header() + event(0, 1, b"x") + no_action(b"StartupLocality\0\3"), "too late"),
        (header() + no_action(b"StartupLocality\0"), "malformed"),
        (header() + no_action(b"StartupLocality\0\1"), "StartupLocality is 1"),
        (bytes(2 * 1024 * 1024 + 1), "at most 2097152"),
    ],
)
def test_refused(log: bytes, message: str) -> None:
    with pytest.raises(EvidenceFormatError, match=message):
        event_log.parse(log)


def test_too_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_EVENTS", 3)
    with pytest.raises(EvidenceFormatError, match="more than 3"):
        event_log.parse(header() + event(4, 1, b"x") * 4)
    entry = json_event()
    with pytest.raises(EvidenceFormatError, match="more than 3"):
        event_log.parse_json(json.dumps([entry] * 4).encode())


def test_bytes_after_the_specification() -> None:
    log = header()
    size = int.from_bytes(log[28:32], "little")
    with pytest.raises(EvidenceFormatError, match="1 unexpected bytes"):
        event_log.parse(log[:28] + (size + 1).to_bytes(4, "little") + log[32:] + b"\0")


def test_a_json_log_that_is_too_large() -> None:
    with pytest.raises(EvidenceFormatError, match="at most 2097152"):
        event_log.parse_json(b"[]".ljust(2 * 1024 * 1024 + 1))


def json_event(**changes: object) -> dict[str, object]:
    return {"imr": 3, "event_type": 1, "digest": "ab" * 48, "event": "e", "event_payload": "ff"} | changes


def test_json() -> None:
    log = event_log.parse_json(json.dumps([json_event()]).encode())
    assert log == EventLog((Event(3, 1, (("sha384", b"\xab" * 48),), b"\xff"),))


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[" * 100_000,
        b"\xff",
        json.dumps([json_event(imr=4)]).encode(),
        json.dumps([json_event(imr=-1)]).encode(),
        json.dumps([json_event(digest="ab" * 47)]).encode(),
        json.dumps([json_event(digest="xy")]).encode(),
        json.dumps([json_event(event_payload="f")]).encode(),
    ],
)
def test_refused_json(text: bytes) -> None:
    with pytest.raises(EvidenceFormatError, match="JSON event log"):
        event_log.parse_json(text)
