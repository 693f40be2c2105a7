"""The key ring: epochs on time, identifiers, grace, and nothing left of what is over."""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from confonnx.errors import ConfigurationError, UnknownKeyError
from confonnx.keys.ring import DEFAULT_KEMS, MAX_SKIPPED_EPOCHS, KeyRing
from confonnx.ohttp.kem import Kem, PrivateKey
from tests.support.simulated_server import GRACE, LIFETIME, NOW, SECRET, ring

_SECOND = timedelta(seconds=1)


def _live(of: KeyRing) -> dict[int, bytes]:
    found = {}
    for key_id in range(256):
        try:
            found[key_id] = of.private_key(key_id).public_key
        except UnknownKeyError:
            continue
    return found


def _epoch_ids(of: KeyRing, epoch: int) -> list[int]:
    return [(of.key_id_base + 2 * epoch + index) % 256 for index in range(2)]


def test_keys_come_from_the_secret_as_written() -> None:
    def expand(secret: bytes, info: bytes, size: int = 32) -> bytes:
        return HKDFExpand(SHA256(), size, info).derive(secret)

    base = expand(SECRET, b"confonnx key ring v1 key id", 1)[0]
    following = expand(SECRET, b"confonnx key ring v1 next epoch")
    keys = ring().attested_keys(NOW)
    for index, (secret, epoch, kem) in enumerate(
        (secret, epoch, kem) for secret, epoch in ((SECRET, 7), (following, 8)) for kem in DEFAULT_KEMS
    ):
        ikm = expand(secret, b"confonnx key ring v1 key pair" + kem.to_bytes(2, "big"))
        assert keys[index].config.public_key == PrivateKey.derive(kem, ikm).public_key
        assert keys[index].config.key_id == (base + 2 * epoch + index % 2) % 256
        assert keys[index].config.kem is kem
        assert keys[index].epoch == epoch


def test_current_and_next_epoch_are_attested_back_to_back() -> None:
    keys = ring().attested_keys(NOW + timedelta(hours=3))
    assert [(key.epoch, key.not_before, key.not_after) for key in keys] == [
        (7, NOW, NOW + LIFETIME),
        (7, NOW, NOW + LIFETIME),
        (8, NOW + LIFETIME, NOW + 2 * LIFETIME),
        (8, NOW + LIFETIME, NOW + 2 * LIFETIME),
    ]


def test_attested_keys_open_at_once_and_until_their_grace_ends() -> None:
    of = ring()
    attested = {key.config.key_id: key.config.public_key for key in of.attested_keys(NOW)}
    assert _live(of) == attested
    ended = _epoch_ids(of, 7)

    assert not of.advance(NOW + LIFETIME - _SECOND)
    assert of.epoch == 7
    assert of.advance(NOW + LIFETIME)
    assert of.epoch == 8
    assert set(_live(of)) == {*ended, *_epoch_ids(of, 8), *_epoch_ids(of, 9)}
    assert {key_id: _live(of)[key_id] for key_id in attested} == attested

    assert not of.advance(NOW + LIFETIME + GRACE - _SECOND)
    assert set(ended) < set(_live(of))
    assert not of.advance(NOW + LIFETIME + GRACE)
    assert set(_live(of)) == {*_epoch_ids(of, 8), *_epoch_ids(of, 9)}


def test_without_grace_the_previous_epoch_ends_at_once() -> None:
    of = KeyRing(SECRET, epoch=7, started_at=NOW, lifetime=LIFETIME, grace=timedelta(0))
    of.advance(NOW + LIFETIME)
    assert set(_live(of)) == {*_epoch_ids(of, 8), *_epoch_ids(of, 9)}


def test_after_a_sleep_the_previous_epoch_still_has_its_grace() -> None:
    slept, stepped = ring(), ring()
    for epoch in range(1, 6):
        stepped.advance(NOW + epoch * LIFETIME)
    assert slept.advance(NOW + 5 * LIFETIME)
    assert _live(slept) == _live(stepped)
    assert set(_epoch_ids(slept, 11)) < set(_live(slept))


def test_no_secret_of_the_past_is_left_in_the_ring() -> None:
    of = ring()
    of.advance(NOW + LIFETIME + GRACE)
    held = [value for value in _reachable(of) if isinstance(value, bytes | bytearray)]
    assert held
    assert not [value for value in held if SECRET in bytes(value)]
    public = ring().attested_keys(NOW)[0].config.public_key
    assert not [value for value in held if bytes(value) == public]


def test_the_secret_is_overwritten_where_it_lies() -> None:
    of = ring()
    (place,) = [
        value for value in gc.get_referents(of) + list(vars(of).values()) if isinstance(value, bytearray)
    ][:1]
    assert bytes(place) == SECRET
    of.advance(NOW + LIFETIME)
    assert bytes(place) == HKDFExpand(SHA256(), 32, b"confonnx key ring v1 next epoch").derive(SECRET)


def _reachable(root: object) -> list[object]:
    """Every object that the ring holds on to, classes and modules aside."""
    seen: dict[int, object] = {}
    todo = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen or isinstance(value, type) or type(value).__name__ in ("module", "function"):
            continue
        seen[id(value)] = value
        todo += gc.get_referents(value)
    return list(seen.values())


def test_a_ring_taken_over_later_agrees_given_the_base() -> None:
    first = ring()
    first.advance(NOW + 3 * LIFETIME)
    secret = SECRET
    for _ in range(3):
        secret = HKDFExpand(SHA256(), 32, b"confonnx key ring v1 next epoch").derive(secret)
    second = KeyRing(
        secret,
        epoch=10,
        started_at=NOW + 3 * LIFETIME,
        lifetime=LIFETIME,
        grace=GRACE,
        key_id_base=first.key_id_base,
    )
    at = NOW + 3 * LIFETIME + GRACE
    assert first.attested_keys(at) == second.attested_keys(at)


def test_time_that_runs_backwards_changes_nothing() -> None:
    of = ring()
    of.advance(NOW + LIFETIME + GRACE)
    before = _live(of)
    assert not of.advance(NOW)
    assert not of.advance(NOW - timedelta(days=1000))
    assert (of.epoch, _live(of)) == (8, before)
    assert of.age(NOW) == timedelta(0)
    assert of.age(NOW + LIFETIME + timedelta(hours=2)) == timedelta(hours=2)


def test_a_clock_that_jumps_too_far_is_refused_and_the_ring_stays() -> None:
    of = KeyRing(SECRET, epoch=0, started_at=NOW, lifetime=_SECOND, grace=timedelta(0))
    before = _live(of)
    with pytest.raises(ConfigurationError, match="correct the clock"):
        of.advance(NOW + (MAX_SKIPPED_EPOCHS + 1) * _SECOND)
    assert _live(of) == before


def test_generated_rings_differ_and_start_now() -> None:
    now = NOW + timedelta(microseconds=999_999)
    rings = [KeyRing.generate(now=now, lifetime=LIFETIME, grace=GRACE) for _ in range(2)]
    first, second = (of.attested_keys(now) for of in rings)
    assert first[0].not_before == NOW
    assert first[0].epoch == 0
    assert {key.config.public_key for key in first}.isdisjoint(key.config.public_key for key in second)
    assert {"KeyRing(epoch=0"} == {repr(of).split(",")[0] for of in rings}


def test_a_ring_of_one_kem() -> None:
    of = KeyRing(SECRET, epoch=0, started_at=NOW, lifetime=LIFETIME, grace=GRACE, kems=(Kem.X25519,))
    keys = of.attested_keys(NOW)
    assert [key.config.kem for key in keys] == [Kem.X25519] * 2
    assert keys[1].config.key_id == (keys[0].config.key_id + 1) % 256


def test_an_unknown_key_is_named() -> None:
    of = ring()
    unknown = next(key_id for key_id in range(256) if key_id not in _live(of))
    with pytest.raises(UnknownKeyError, match=f"identifier {unknown}"):
        of.private_key(unknown)


def test_nothing_secret_is_shown() -> None:
    assert SECRET.hex() not in repr(ring()) + str(vars(ring())["_current"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"secret": b"short"}, "secret has 5 bytes, expected 32"),
        ({"epoch": -1}, "epoch is -1"),
        ({"started_at": datetime(2026, 1, 1)}, "whole seconds in UTC"),  # noqa: DTZ001
        ({"started_at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "whole seconds in UTC"),
        ({"started_at": datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)}, "whole seconds in UTC"),
        ({"lifetime": timedelta(0)}, "lifetime is 0:00:00"),
        ({"lifetime": timedelta(seconds=1.5)}, "whole number of seconds"),
        ({"grace": timedelta(seconds=-1)}, "grace period"),
        ({"grace": LIFETIME + _SECOND}, "grace period"),
        ({"kems": ()}, "KEMs"),
        ({"kems": (Kem.X25519, Kem.X25519)}, "KEMs"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], reason: str) -> None:
    good: dict[str, Any] = {
        "secret": SECRET,
        "epoch": 0,
        "started_at": NOW,
        "lifetime": LIFETIME,
        "grace": GRACE,
    } | change
    with pytest.raises(ConfigurationError, match=reason):
        KeyRing(good.pop("secret"), **good)
