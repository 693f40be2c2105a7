"""The key ring: from one secret, the key pairs of one epoch after another, and no way back (D8).

::

    S(e+1)    = HKDF-Expand(S(e), "confonnx key ring v1 next epoch", 32)
    ikm(e, k) = HKDF-Expand(S(e), "confonnx key ring v1 key pair" ‖ kem_id, 32)
    key pair  = DeriveKeyPair(ikm)                                               RFC 9180 §7.1.3
    key id    = (base + epoch · number of KEMs + index of the KEM) mod 256

S(e) is uniformly random, so HKDF's extract step has nothing to do (RFC 5869 §3.3). The ring holds S of the
current epoch, and the private keys of the previous epoch (until its grace period ends), the current and the
next one. Everything older is wiped or dropped; S(e) is not computable from S(e+1). ``base`` comes from the
secret as well, so that a restarted server with a new secret rarely reuses the key identifiers that clients
still remember: they get the "unknown key" answer and attest again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from confonnx.attestation.statement import AttestedKey
from confonnx.errors import ConfigurationError, UnknownKeyError
from confonnx.ohttp.kem import Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig

SECRET_SIZE: Final = 32  # bytes
NEXT_EPOCH_LABEL: Final = b"confonnx key ring v1 next epoch"
KEY_PAIR_LABEL: Final = b"confonnx key ring v1 key pair"
KEY_ID_LABEL: Final = b"confonnx key ring v1 key id"
DEFAULT_KEMS: Final = (Kem.MLKEM768_X25519, Kem.X25519)
MAX_SKIPPED_EPOCHS: Final = 2**20  # a clock that jumps further is wrong, and would keep a core busy

_KEY_IDS = 256  # RFC 9458 §3: one octet


class KeyRing:
    """Mutable: ``advance`` moves it forward. One thread advances; any number may look keys up meanwhile.

    ``advance`` also ends the grace period of the previous epoch, so call it before opening requests, or on
    a timer.
    """

    def __init__(
        self,
        secret: bytes | bytearray,
        *,
        epoch: int,
        started_at: datetime,
        lifetime: timedelta,
        grace: timedelta,
        kems: Sequence[Kem] = DEFAULT_KEMS,
        key_id_base: int | None = None,
    ) -> None:
        """A ring whose ``secret`` is S(``epoch``), an epoch that began at ``started_at`` (aware) and lasts
        ``lifetime``.

        The previous epoch's keys still open requests for ``grace`` after its end. ``key_id_base`` is given
        when the secret was taken over from another ring in a later epoch than the one it started with; else
        it is derived from the secret. Raises ``ConfigurationError``.
        """
        _check(secret, epoch, started_at, lifetime, grace, kems)
        self._secret = bytearray(secret)
        self._epoch = epoch
        self._started_at = started_at
        self._lifetime = lifetime
        self._grace = grace
        self._kems = tuple(kems)
        self._base = (
            _expand(self._secret, KEY_ID_LABEL, 1)[0] if key_id_base is None else key_id_base % _KEY_IDS
        )
        self._previous: dict[int, PrivateKey] = {}
        self._current = self._key_pairs(self._secret, epoch)
        self._next = self._next_key_pairs()
        self._live = self._current | self._next

    @classmethod
    def generate(
        cls,
        *,
        now: datetime,
        lifetime: timedelta,
        grace: timedelta,
        kems: Sequence[Kem] = DEFAULT_KEMS,
        secret: bytes | bytearray | None = None,
    ) -> KeyRing:
        """A ring that starts its epoch 0 at ``now`` (whole seconds, rounded down) with a fresh random
        secret, or with one that other processes or replicas of this server have as well.
        """
        return cls(
            secrets.token_bytes(SECRET_SIZE) if secret is None else secret,
            epoch=0,
            started_at=now.replace(microsecond=0),
            lifetime=lifetime,
            grace=grace,
            kems=kems,
        )

    def __repr__(self) -> str:
        return f"KeyRing(epoch={self._epoch}, key_ids={sorted(self._live)})"

    @property
    def epoch(self) -> int:
        """The current epoch, as of the last ``advance``."""
        return self._epoch

    @property
    def key_id_base(self) -> int:
        """What the key identifiers count from; a ring that takes the secret over needs it too."""
        return self._base

    def age(self, now: datetime) -> timedelta:
        """How long the current epoch has lasted at ``now``; never negative."""
        return max(now - self._started_at, timedelta(0))

    def advance(self, now: datetime) -> bool:
        """Moves to the epoch of ``now`` and erases what is older; True when the epoch changed.

        Time that runs backwards changes nothing. Raises ``ConfigurationError`` when the clock jumps by more
        than ``MAX_SKIPPED_EPOCHS`` epochs; the ring stays as it was.
        """
        steps = (now - self._started_at) // self._lifetime
        if steps > MAX_SKIPPED_EPOCHS:
            raise ConfigurationError(
                f"the clock says {now.isoformat()}, {steps} key epochs after the last one, which is more "
                f"than {MAX_SKIPPED_EPOCHS}: correct the clock, or restart the server for new keys"
            )
        if steps > 0:
            self._move(steps)
        if self._previous and now >= self._started_at + self._grace:
            self._previous = {}
            self._live = self._current | self._next
        return steps > 0

    def attested_keys(self, now: datetime) -> tuple[AttestedKey, ...]:
        """What the statement at ``now`` vouches for: every KEM of the current epoch, then of the next.

        Advances first; whoever caches evidence for an epoch compares ``epoch`` afterwards.
        """
        self.advance(now)
        return tuple(
            AttestedKey(
                config=KeyConfig(key_id, key.kem, key.public_key),
                epoch=self._epoch + offset,
                not_before=self._started_at + offset * self._lifetime,
                not_after=self._started_at + (offset + 1) * self._lifetime,
            )
            for offset, keys in enumerate((self._current, self._next))
            for key_id, key in keys.items()
        )

    def private_key(self, key_id: int) -> PrivateKey:
        """The private key of a previous (within its grace period), current or next key. Raises
        ``UnknownKeyError``.
        """
        try:
            return self._live[key_id]
        except KeyError:
            raise UnknownKeyError(f"no key has the identifier {key_id}") from None

    def _move(self, steps: int) -> None:
        for _ in range(steps - 1):
            _ratchet(self._secret)
        # The last step by hand: the epoch before it may still be within its grace period.
        previous = self._key_pairs(self._secret, self._epoch + steps - 1)
        _ratchet(self._secret)
        self._epoch += steps
        self._started_at += steps * self._lifetime
        self._previous = previous
        self._current = self._key_pairs(self._secret, self._epoch)
        self._next = self._next_key_pairs()
        # One assignment of a complete table: a thread that looks a key up sees the old or the new one,
        # never half.
        self._live = self._previous | self._current | self._next

    def _key_pairs(self, secret: bytearray, epoch: int) -> dict[int, PrivateKey]:
        first = self._base + epoch * len(self._kems)
        return {
            (first + index) % _KEY_IDS: PrivateKey.derive(
                kem, _expand(secret, KEY_PAIR_LABEL + kem.to_bytes(2, "big"), SECRET_SIZE)
            )
            for index, kem in enumerate(self._kems)
        }

    def _next_key_pairs(self) -> dict[int, PrivateKey]:
        ahead = bytearray(self._secret)
        _ratchet(ahead)
        pairs = self._key_pairs(ahead, self._epoch + 1)
        _wipe(ahead)
        return pairs


def _check(
    secret: bytes | bytearray,
    epoch: int,
    started_at: datetime,
    lifetime: timedelta,
    grace: timedelta,
    kems: Sequence[Kem],
) -> None:
    if len(secret) != SECRET_SIZE:
        raise ConfigurationError(f"the key ring's secret has {len(secret)} bytes, expected {SECRET_SIZE}")
    if epoch < 0:
        raise ConfigurationError(f"the key epoch is {epoch}, expected 0 or more")
    if started_at.utcoffset() != timedelta(0) or started_at.microsecond:
        raise ConfigurationError(
            f"the key epoch starts at {started_at.isoformat()}, expected whole seconds in UTC"
        )
    if lifetime < timedelta(seconds=1) or lifetime % timedelta(seconds=1):
        raise ConfigurationError(
            f"the key lifetime is {lifetime}, expected a whole number of seconds, at least one"
        )
    if not timedelta(0) <= grace <= lifetime:
        raise ConfigurationError(
            f"the key grace period is {grace}, expected 0 to the key lifetime, {lifetime}"
        )
    if not kems or len(set(kems)) != len(kems):
        raise ConfigurationError(f"the key ring's KEMs are {list(kems)}, expected one or more, each once")


def _expand(secret: bytearray, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA256(), length, info).derive(secret)


def _ratchet(secret: bytearray) -> None:
    """S(e) becomes S(e+1), in the same memory, so that S(e) is gone."""
    fresh = bytearray(SECRET_SIZE)
    HKDFExpand(SHA256(), SECRET_SIZE, NEXT_EPOCH_LABEL).derive_into(secret, fresh)
    secret[:] = fresh
    _wipe(fresh)


def _wipe(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))
