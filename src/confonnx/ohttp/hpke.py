"""Hybrid Public Key Encryption, base mode (RFC 9180), with export and many messages to one context.

``cryptography`` has HPKE, but in one shot only: no export and no second message, both of which Oblivious HTTP
and our sessions need. So the key schedule is here, over that library's primitives, and is tested against the
vectors of the RFC, against the library's one-shot form and against ``pyhpke``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import count

from confonnx.errors import EncapsulationError
from confonnx.ohttp import aead as _aead
from confonnx.ohttp.aead import NONCE_SIZE, OPEN_FAILED, TAG_SIZE, Aead, Cipher
from confonnx.ohttp.hkdf import HASH_SIZE, labeled_expand, labeled_extract
from confonnx.ohttp.kem import Kem, PrivateKey, decapsulate, encapsulate
from confonnx.ohttp.reader import Buffer

__all__ = [
    "NONCE_SIZE",
    "TAG_SIZE",
    "Aead",
    "Buffer",
    "Kdf",
    "Kem",
    "PrivateKey",
    "ReceiverContext",
    "SenderContext",
    "Suite",
    "setup_receiver",
    "setup_sender",
]

_MODE_BASE = b"\x00"  # RFC 9180 §5.1
_MAX_SEQ = (1 << 8 * NONCE_SIZE) - 1  # exclusive: RFC 9180 §5.2, MessageLimitReachedError


class Kdf(IntEnum):
    """KDF identifiers (RFC 9180 §7.2)."""

    HKDF_SHA256 = 1


@dataclass(frozen=True, slots=True)
class Suite:
    """One combination of algorithms."""

    kem: Kem
    kdf: Kdf
    aead: Aead

    @property
    def ids(self) -> bytes:
        """``kem_id ‖ kdf_id ‖ aead_id``, two bytes each."""
        return self.kem.to_bytes(2, "big") + self.kdf.to_bytes(2, "big") + self.aead.to_bytes(2, "big")


def setup_sender(
    suite: Suite, public_key: bytes, *, info: bytes, randomness: bytes | None = None
) -> tuple[bytes, SenderContext]:
    """SetupBaseS (RFC 9180 §5.1.1): ``(enc, context)``.

    ``randomness`` as in :func:`confonnx.ohttp.kem.encapsulate`. Raises
    :class:`confonnx.errors.KeyConfigError` for a bad public key.
    """
    shared_secret, enc = encapsulate(suite.kem, public_key, randomness=randomness)
    return enc, SenderContext(*_key_schedule(suite, shared_secret, info))


def setup_receiver(suite: Suite, private_key: PrivateKey, enc: Buffer, *, info: bytes) -> ReceiverContext:
    """SetupBaseR (RFC 9180 §5.1.1).

    Raises :class:`EncapsulationError`, with the text of a message that does not open, where ``enc`` has no
    shared secret, and where the key is for another KEM than the suite.
    """
    if private_key.kem is not suite.kem:
        raise EncapsulationError(OPEN_FAILED)
    shared_secret = decapsulate(private_key, bytes(enc))
    return ReceiverContext(*_key_schedule(suite, shared_secret, info))


class _Context:
    __slots__ = ("_base_nonce", "_cipher", "_exporter_secret", "_suite_id")

    def __init__(self, suite_id: bytes, cipher: Cipher, base_nonce: bytes, exporter_secret: bytes) -> None:
        self._suite_id = suite_id
        self._cipher = cipher
        self._base_nonce = int.from_bytes(base_nonce, "big")
        self._exporter_secret = exporter_secret

    def export(self, exporter_context: bytes, length: int) -> bytes:
        """``length`` secret bytes bound to ``exporter_context`` (RFC 9180 §5.3).

        ``ValueError`` over 255·32.
        """
        return labeled_expand(self._suite_id, self._exporter_secret, b"sec", exporter_context, length)

    def _nonce(self, seq: int) -> bytes:
        """ComputeNonce (RFC 9180 §5.2)."""
        if not 0 <= seq < _MAX_SEQ:
            raise ValueError(f"an HPKE context numbers its messages 0..{_MAX_SEQ - 1}, not {seq}")
        return (self._base_nonce ^ seq).to_bytes(NONCE_SIZE, "big")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SenderContext(_Context):
    """Seals messages 0, 1, 2, … to one receiver (RFC 9180 §5.2).

    Mutable state: the number of the next message. It is taken with one ``next()``, which the GIL makes
    atomic, so threads that share a context never share a nonce.
    """

    __slots__ = ("_numbers",)

    def __init__(self, suite_id: bytes, cipher: Cipher, base_nonce: bytes, exporter_secret: bytes) -> None:
        super().__init__(suite_id, cipher, base_nonce, exporter_secret)
        self._numbers = count()

    def seal(self, plaintext: Buffer, aad: bytes = b"") -> bytes:
        """Context.Seal: the ciphertext with its tag."""
        return self._cipher.one_shot.encrypt(self._nonce(next(self._numbers)), plaintext, aad)

    def seal_parts(
        self, parts: Sequence[Buffer], *, prefix: bytes = b"", pad_to: int | None = None, aad: bytes = b""
    ) -> tuple[int, bytearray]:
        """``(seq, prefix ‖ ciphertext)``: seal the concatenation of ``parts`` with one copy of them.

        ``seq`` is the number of the message; a protocol that sends it writes it into the room that its prefix
        left. ``pad_to`` and errors as in :func:`confonnx.ohttp.aead.seal_parts`.
        """
        seq = next(self._numbers)
        return seq, _aead.seal_parts(self._cipher, self._nonce(seq), aad, parts, prefix=prefix, pad_to=pad_to)


class ReceiverContext(_Context):
    """Opens the messages of one sender. Mutable state: the number of the next message of :meth:`open`."""

    __slots__ = ("_seq",)

    def __init__(self, suite_id: bytes, cipher: Cipher, base_nonce: bytes, exporter_secret: bytes) -> None:
        super().__init__(suite_id, cipher, base_nonce, exporter_secret)
        self._seq = 0

    def open(self, ciphertext: Buffer, aad: bytes = b"") -> memoryview:
        """Context.Open: the plaintext of the next message in order; a failure does not advance the order.

        A writable ``ciphertext`` is opened in place, and wiped when it does not open; see
        :func:`confonnx.ohttp.aead.open_sealed`. Raises :class:`EncapsulationError`.
        """
        plaintext = self.open_at(self._seq, ciphertext, aad)
        self._seq += 1
        return plaintext

    def open_at(self, seq: int, ciphertext: Buffer, aad: bytes = b"") -> memoryview:
        """The plaintext of message number ``seq``, in any order; refusing a repeated ``seq`` is the caller's
        part.

        Raises :class:`EncapsulationError`, and ``ValueError`` for a number that no context can reach.
        """
        return _aead.open_sealed(self._cipher, self._nonce(seq), aad, ciphertext)


def _key_schedule(suite: Suite, shared_secret: bytes, info: bytes) -> tuple[bytes, Cipher, bytes, bytes]:
    """KeySchedule of base mode (RFC 9180 §5.1): suite id, AEAD, base nonce, exporter secret."""
    suite_id = b"HPKE" + suite.ids
    context = _schedule_context(suite_id, info)
    secret = labeled_extract(suite_id, shared_secret, b"secret", b"")  # base mode: the PSK is empty
    key = labeled_expand(suite_id, secret, b"key", context, suite.aead.key_size)
    base_nonce = labeled_expand(suite_id, secret, b"base_nonce", context, NONCE_SIZE)
    exporter_secret = labeled_expand(suite_id, secret, b"exp", context, HASH_SIZE)
    return suite_id, suite.aead.cipher(key), base_nonce, exporter_secret


@lru_cache(maxsize=256)  # public, and one value for a key and a suite: two hashes less on every request
def _schedule_context(suite_id: bytes, info: bytes) -> bytes:
    psk_id_hash = labeled_extract(suite_id, b"", b"psk_id_hash", b"")
    info_hash = labeled_extract(suite_id, b"", b"info_hash", info)
    return _MODE_BASE + psk_id_hash + info_hash
