"""The AEADs of our suites, sealing many parts into one buffer and opening where the ciphertext lies.

``encrypt_into`` and ``decrypt_into`` of ``cryptography`` work when input and output start at the same byte.
Its documentation does not promise that, so tests/unit/ohttp/test_aead.py checks it for the version in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers import AEADEncryptionContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from confonnx.errors import EncapsulationError, TooLargeError
from confonnx.ohttp.reader import Buffer

NONCE_SIZE = 12
"""Nn of every AEAD here (RFC 9180 §7.3)."""

TAG_SIZE = 16
"""Nt of every AEAD here (RFC 9180 §7.3)."""

MAX_PLAINTEXT = (1 << 31) - 1 - TAG_SIZE
"""Bytes that one message can hold; OpenSSL counts in a C ``int``."""

OPEN_FAILED = "the sealed message does not open"
"""The text of every failure to open, whatever the reason."""

_ZEROS = bytes(1 << 16)
_SMALL = 4096
"""Bytes up to which a message is put together by copying."""
_LARGE = 1 << 16
"""Bytes from which on a copy costs more than to seal in pieces."""


class Aead(IntEnum):
    """AEAD identifiers (RFC 9180 §7.3), each with Nk, its ``key_size`` in bytes."""

    key_size: int

    AES_128_GCM = 1, 16
    AES_256_GCM = 2, 32
    CHACHA20_POLY1305 = 3, 32

    def __new__(cls, identifier: int, key_size: int = 0) -> Self:
        """A member."""
        member = int.__new__(cls, identifier)
        member._value_ = identifier
        member.key_size = key_size
        return member

    @property
    def nonce_size(self) -> int:
        """Nn, in bytes."""
        return NONCE_SIZE

    def cipher(self, key: bytes) -> Cipher:
        """The AEAD with ``key``. Raises ``ValueError`` unless the key has ``key_size`` bytes."""
        if len(key) != self.key_size:
            raise ValueError(f"{self.name} takes a key of {self.key_size} bytes, not {len(key)}")
        return Cipher(self, key)


class Cipher:
    """An AEAD with its key, made by :meth:`Aead.cipher`."""

    __slots__ = ("_key", "aead", "one_shot")

    def __init__(self, aead: Aead, key: bytes) -> None:
        """``key`` has the AEAD's size."""
        self.aead = aead
        self.one_shot = ChaCha20Poly1305(key) if aead is Aead.CHACHA20_POLY1305 else AESGCM(key)
        """Seals or opens a whole message at a time."""
        self._key = key

    def in_pieces(self, nonce: bytes, aad: bytes) -> AEADEncryptionContext | None:
        """Seals one message piece by piece, which spares a copy of them; ``None`` where only AES can."""
        if self.aead is Aead.CHACHA20_POLY1305:
            return None
        encryptor = ciphers.Cipher(AES(self._key), GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(aad)
        return encryptor

    def __repr__(self) -> str:
        return f"Cipher({self.aead.name})"  # never the key


def seal_parts(
    cipher: Cipher,
    nonce: bytes,
    aad: bytes,
    parts: Sequence[Buffer],
    *,
    prefix: bytes = b"",
    pad_to: int | None,
    into: bytearray | None = None,
) -> bytearray:
    """``prefix`` in the clear, then the sealed concatenation of ``parts``, then the tag, in one buffer.

    The parts are copied once, into the place where they are encrypted, or encrypted into their place.
    ``pad_to`` is the size of the plaintext after padding with zero bytes (``None``: no padding). ``into`` is
    a buffer that nobody needs any more: it becomes the message where that is not small, not larger than the
    buffer, and no view of it is left. Raises :class:`TooLargeError` over ``MAX_PLAINTEXT``, ``ValueError``
    where ``pad_to`` is below the size of the parts, and that or ``TypeError`` where a part is not a view of
    single bytes.
    """
    size = sum(map(len, parts))
    padded = size if pad_to is None else pad_to
    if padded < size:
        raise ValueError(f"cannot pad {size} bytes to {padded}")
    if padded > MAX_PLAINTEXT:
        raise TooLargeError(
            f"one sealed message holds at most {MAX_PLAINTEXT} bytes, this one would hold {padded}"
        )
    if padded <= _SMALL:  # a copy more costs less than placing the parts
        plaintext = b"".join(parts).ljust(padded, b"\0")
        if len(plaintext) != padded:
            raise ValueError(f"the parts have {len(plaintext)} bytes in {size} items: give single bytes")
        return bytearray(prefix + cipher.one_shot.encrypt(nonce, plaintext, aad))
    message = _room(len(prefix) + padded + TAG_SIZE, into)
    with memoryview(message) as view:
        view[: len(prefix)] = prefix
        sealed = view[len(prefix) :]
        encryptor = cipher.in_pieces(nonce, aad) if padded >= _LARGE else None
        if encryptor is not None:
            _seal_pieces(encryptor, [*parts, *_zeros(padded - size)], sealed)
        else:
            _place([*parts, *_zeros(padded - size)], sealed)
            cipher.one_shot.encrypt_into(nonce, sealed[:padded], aad, sealed)
    return message


def _place(parts: Sequence[Buffer], into: memoryview) -> None:
    position = 0
    for part in parts:
        into[position : position + len(part)] = part
        position += len(part)


def _seal_pieces(encryptor: AEADEncryptionContext, parts: Sequence[Buffer], into: memoryview) -> None:
    """Each part goes through the cipher on its way to its place; the tag's room is behind the last one."""
    position = 0
    for part in parts:
        position += encryptor.update_into(part, into[position:])
    encryptor.finalize()
    into[position:] = encryptor.tag


def _zeros(size: int) -> list[bytes]:
    """Padding."""
    blocks, rest = divmod(size, len(_ZEROS))
    return [_ZEROS] * blocks + [_ZEROS[:rest]] * (rest > 0)


def _room(size: int, old: bytearray | None) -> bytearray:
    """``size`` bytes: the first ones of ``old``, or new zeros. Memory in use costs no page faults again."""
    if old is not None and len(old) > size:
        try:
            del old[size:]
        except BufferError:  # a view of it is left, so its content is still wanted
            return bytearray(size)
        return old
    return bytearray(size)


def open_sealed(cipher: Cipher, nonce: bytes, aad: bytes, ciphertext: Buffer) -> memoryview:
    """The plaintext of ``ciphertext``, which ends with its tag.

    A writable buffer is opened in place: the result is a view of it, and a wrong tag leaves only zeros in it,
    because ``decrypt_into`` writes the unauthenticated plaintext before it checks. Read-only bytes are left
    as they are. Raises :class:`EncapsulationError` with the text ``OPEN_FAILED``, and no cause, for every
    failure.
    """
    view = memoryview(ciphertext)
    size = len(view) - TAG_SIZE
    if not 0 <= size <= MAX_PLAINTEXT:
        raise EncapsulationError(OPEN_FAILED)
    try:
        if view.readonly:
            return memoryview(cipher.one_shot.decrypt(nonce, view, aad))
        plaintext = view[:size]
        cipher.one_shot.decrypt_into(nonce, view, aad, plaintext)
    except InvalidTag:
        wipe(view)
        raise EncapsulationError(OPEN_FAILED) from None  # the cause would tell reasons apart
    return plaintext


def wipe(view: memoryview) -> None:
    """Overwrite a writable ``view`` with zeros, a block at a time; read-only memory is left alone."""
    if view.readonly:
        return
    for start in range(0, len(view), len(_ZEROS)):
        end = min(start + len(_ZEROS), len(view))
        view[start:end] = _ZEROS[: end - start]
