"""Rings of one secret agree at every time, whatever the way there."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from confonnx.attestation.statement import AttestedKey
from confonnx.errors import UnknownKeyError
from confonnx.keys.ring import KeyRing
from confonnx.ohttp.kem import Kem
from tests.support.simulated_server import NOW

# X25519 alone: its keys take a tenth of the time, and the schedule does not depend on the KEM.
_KEMS = (Kem.X25519,)
_LIFETIME = timedelta(seconds=60)

_secrets = st.binary(min_size=32, max_size=32)
_graces = st.integers(0, 60).map(lambda seconds: timedelta(seconds=seconds))
_instants = st.lists(st.integers(0, 1200), min_size=1, max_size=12).map(
    lambda seconds: [NOW + timedelta(seconds=second) for second in sorted(seconds)]
)


def _ring(secret: bytes, grace: timedelta) -> KeyRing:
    return KeyRing(secret, epoch=0, started_at=NOW, lifetime=_LIFETIME, grace=grace, kems=_KEMS)


def _state(of: KeyRing, attested: tuple[AttestedKey, ...]) -> tuple[object, ...]:
    live = {}
    for key_id in range(256):
        try:
            live[key_id] = of.private_key(key_id).public_key
        except UnknownKeyError:
            continue
    return of.epoch, live, attested


@settings(max_examples=60, deadline=None)
@given(secret=_secrets, grace=_graces, instants=_instants)
def test_skipping_epochs_equals_stepping_through_them(
    secret: bytes, grace: timedelta, instants: list[datetime]
) -> None:
    stepped = _ring(secret, grace)
    for instant in instants:
        stepped.advance(instant)
    jumped = _ring(secret, grace)
    last = instants[-1]
    assert _state(stepped, stepped.attested_keys(last)) == _state(jumped, jumped.attested_keys(last))


@settings(max_examples=60, deadline=None)
@given(secret=_secrets, grace=_graces, instants=_instants)
def test_what_was_attested_opens_for_as_long_as_it_was_promised(
    secret: bytes, grace: timedelta, instants: list[datetime]
) -> None:
    of = _ring(secret, grace)
    promised: dict[bytes, AttestedKey] = {}
    for instant in instants:
        promised |= {key.config.public_key: key for key in of.attested_keys(instant)}
        for public_key, key in promised.items():
            if instant < key.not_after + grace:
                assert of.private_key(key.config.key_id).public_key == public_key


@settings(max_examples=30, deadline=None)
@given(secret=_secrets, other=_secrets)
def test_rings_of_two_secrets_share_no_key(secret: bytes, other: bytes) -> None:
    first, second = (_ring(of, timedelta(0)).attested_keys(NOW) for of in (secret, other))
    shared = {key.config.public_key for key in first} & {key.config.public_key for key in second}
    assert bool(shared) is (secret == other)
