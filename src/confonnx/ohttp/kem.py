"""The KEMs of our suites: DHKEM(X25519) of RFC 9180 §4.1 and MLKEM768-X25519, also known as X-Wing.

X-Wing (draft-connolly-cfrg-xwing-kem, registered for HPKE as 0x647a; draft-ietf-hpke-pq) stays safe as long
as one of ML-KEM-768 and X25519 does, so it is the KEM that we prefer.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import sha3_256, shake_256
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from confonnx.errors import EncapsulationError, KeyConfigError
from confonnx.ohttp.aead import OPEN_FAILED
from confonnx.ohttp.hkdf import labeled_expand, labeled_extract

SECRET_SIZE = 32
"""Nsecret and Nsk of both KEMs: bytes of a shared secret and of a serialised private key."""

_X25519_SIZE = 32  # public key, ciphertext, shared secret (RFC 7748 §6.1)
_MLKEM_PUBLIC_SIZE = 1184  # FIPS 203 §8, ML-KEM-768 encapsulation key
_MLKEM_ENC_SIZE = 1088  # FIPS 203 §8, ML-KEM-768 ciphertext
_MLKEM_SEED_SIZE = 64  # d ‖ z (FIPS 203 §7.1)
_XWING_LABEL = bytes.fromhex("5c2e2f2f5e5c")  # X-Wing §5.3, the picture \.//^\
_X25519_SUITE_ID = b"KEM\x00\x20"  # RFC 9180 §4.1
_XWING_SUITE_ID = b"KEM\x64\x7a"


class Kem(IntEnum):
    """KEM identifiers (IANA registry "HPKE KEM Identifiers")."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A

    @property
    def public_key_size(self) -> int:
        """Npk, in bytes."""
        return _X25519_SIZE if self is Kem.X25519 else _MLKEM_PUBLIC_SIZE + _X25519_SIZE

    @property
    def enc_size(self) -> int:
        """Nenc, in bytes."""
        return _X25519_SIZE if self is Kem.X25519 else _MLKEM_ENC_SIZE + _X25519_SIZE


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PrivateKey:
    """A private key, made by :meth:`generate`, :meth:`derive` or :meth:`from_bytes`.

    It cannot be read back.
    """

    kem: Kem
    public_key: bytes
    """The serialised public key, ``kem.public_key_size`` bytes."""
    _x25519: X25519PrivateKey
    _mlkem: MLKEM768PrivateKey | None

    @classmethod
    def generate(cls, kem: Kem) -> PrivateKey:
        """A new key from the operating system's randomness."""
        return cls.from_bytes(kem, secrets.token_bytes(SECRET_SIZE))

    @classmethod
    def derive(cls, kem: Kem, ikm: bytes) -> PrivateKey:
        """DeriveKeyPair: the same ``ikm`` gives the same key. Raises ``ValueError`` under 32 bytes of
        ``ikm``.

        RFC 9180 §7.1.3 for X25519; draft-ietf-hpke-pq-05, DeriveKeyPair over SHAKE256, for X-Wing.
        """
        if len(ikm) < SECRET_SIZE:
            raise ValueError(
                f"DeriveKeyPair takes at least {SECRET_SIZE} bytes of key material, not {len(ikm)}"
            )
        match kem:
            case Kem.X25519:
                prk = labeled_extract(_X25519_SUITE_ID, b"", b"dkp_prk", ikm)
                return cls.from_bytes(kem, labeled_expand(_X25519_SUITE_ID, prk, b"sk", b"", SECRET_SIZE))
            case Kem.MLKEM768_X25519:
                label = b"DeriveKeyPair"
                labeled = ikm + b"HPKE-v1" + _XWING_SUITE_ID + len(label).to_bytes(2, "big") + label
                labeled += SECRET_SIZE.to_bytes(2, "big")
                return cls.from_bytes(kem, shake_256(labeled).digest(SECRET_SIZE))
            case _:
                assert_never(kem)

    @classmethod
    def from_bytes(cls, kem: Kem, private_key: bytes) -> PrivateKey:
        """The key with the serialisation ``private_key``, 32 bytes for both KEMs, else ``ValueError``."""
        if len(private_key) != SECRET_SIZE:
            raise ValueError(f"a private key of {kem.name} has {SECRET_SIZE} bytes, not {len(private_key)}")
        match kem:
            case Kem.X25519:
                x25519 = X25519PrivateKey.from_private_bytes(private_key)
                return cls(kem, x25519.public_key().public_bytes_raw(), x25519, None)
            case Kem.MLKEM768_X25519:
                expanded = shake_256(private_key).digest(_MLKEM_SEED_SIZE + _X25519_SIZE)  # X-Wing §5.2
                mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE])
                x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:])
                public_key = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
                return cls(kem, public_key, x25519, mlkem)
            case _:
                assert_never(kem)

    def __repr__(self) -> str:
        return f"PrivateKey({self.kem.name})"


def check_public_key(kem: Kem, public_key: bytes) -> None:
    """Raise :class:`KeyConfigError` unless ``public_key`` is a public key of ``kem``.

    Length for X25519, where every string of 32 bytes is a key (RFC 7748 §5); length and the modulus check of
    FIPS 203 §7.2 for ML-KEM.
    """
    if len(public_key) != kem.public_key_size:
        raise KeyConfigError(
            f"a public key of {kem.name} has {kem.public_key_size} bytes, this one has {len(public_key)}"
        )
    if kem is Kem.MLKEM768_X25519:
        _mlkem_public_key(public_key[:_MLKEM_PUBLIC_SIZE])


def encapsulate(kem: Kem, public_key: bytes, *, randomness: bytes | None = None) -> tuple[bytes, bytes]:
    """Encap: ``(shared_secret, enc)`` for ``public_key``.

    ``randomness`` replays a test vector: it is the ephemeral X25519 private key, 32 bytes. X-Wing takes none,
    because the library does not let ML-KEM's coins be chosen. Raises :class:`KeyConfigError` for a public key
    that is malformed or of low order, ``ValueError`` for other randomness.
    """
    check_public_key(kem, public_key)
    if randomness is not None and (kem is not Kem.X25519 or len(randomness) != SECRET_SIZE):
        raise ValueError(f"chosen randomness is {SECRET_SIZE} bytes and for X25519 only, not {kem.name}")
    ephemeral = X25519PrivateKey.from_private_bytes(randomness or secrets.token_bytes(SECRET_SIZE))
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    x25519_public = public_key[-_X25519_SIZE:]
    try:
        dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(x25519_public))
    except ValueError as error:  # an all-zero result (RFC 9180 §7.1.4)
        raise KeyConfigError(
            "the X25519 public key is a point of low order: nothing sealed to it is secret"
        ) from error
    match kem:
        case Kem.X25519:
            return _dhkem_secret(dh, ephemeral_public, public_key), ephemeral_public
        case Kem.MLKEM768_X25519:
            mlkem_secret, mlkem_enc = _mlkem_public_key(public_key[:_MLKEM_PUBLIC_SIZE]).encapsulate()
            secret = _xwing_secret(mlkem_secret, dh, ephemeral_public, x25519_public)
            return secret, mlkem_enc + ephemeral_public
        case _:
            assert_never(kem)


def decapsulate(private_key: PrivateKey, enc: bytes) -> bytes:
    """Decap: the shared secret of 32 bytes.

    Raises :class:`EncapsulationError` for every ``enc`` that has none.
    """
    if len(enc) != private_key.kem.enc_size:
        raise EncapsulationError(OPEN_FAILED)
    ephemeral_public = enc[-_X25519_SIZE:]
    try:
        dh = private_key._x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))
    except ValueError:  # an all-zero result (RFC 9180 §7.1.4)
        raise EncapsulationError(OPEN_FAILED) from None
    if private_key._mlkem is None:
        return _dhkem_secret(dh, enc, private_key.public_key)
    mlkem_secret = private_key._mlkem.decapsulate(enc[:_MLKEM_ENC_SIZE])
    return _xwing_secret(mlkem_secret, dh, ephemeral_public, private_key.public_key[_MLKEM_PUBLIC_SIZE:])


def _dhkem_secret(dh: bytes, enc: bytes, public_key: bytes) -> bytes:
    """ExtractAndExpand (RFC 9180 §4.1)."""
    prk = labeled_extract(_X25519_SUITE_ID, b"", b"eae_prk", dh)
    return labeled_expand(_X25519_SUITE_ID, prk, b"shared_secret", enc + public_key, SECRET_SIZE)


def _xwing_secret(mlkem_secret: bytes, dh: bytes, ephemeral_public: bytes, x25519_public: bytes) -> bytes:
    """Combiner (X-Wing §5.3)."""
    return sha3_256(mlkem_secret + dh + ephemeral_public + x25519_public + _XWING_LABEL).digest()


@lru_cache(maxsize=8)  # expanding the matrix costs as much as the encapsulation, and a client has few servers
def _mlkem_public_key(public_key: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public_key)
    except ValueError as error:
        raise KeyConfigError(
            "the ML-KEM-768 public key has a coefficient outside the field (FIPS 203 §7.2)"
        ) from error
