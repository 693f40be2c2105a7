"""Chunked Oblivious HTTP (draft-ietf-ohai-chunked-ohttp-08): sealed messages that are read as they come.

::

    request  = key_id (1) ‖ kem_id (2) ‖ kdf_id (2) ‖ aead_id (2) ‖ enc (Nenc) ‖ chunks
    response = response_nonce (max(Nn, Nk)) ‖ chunks
    chunks   = (length of the sealed chunk (varint, not 0) ‖ sealed chunk)* ‖ 0 (varint) ‖ sealed final chunk

The sealers give bytes to send, in order; the openers take bytes as they arrive, cut anywhere. Only the final
chunk is sealed with the AAD ``final``, so a stream that was cut has no end that opens: whoever uses an opener
must call ``finish`` when the bytes end, and may not act on a request as a whole before.

All of them are one-shot: use after the end, or after an error, raises ``RuntimeError``.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence

from confonnx.errors import EncapsulationError, TooLargeError
from confonnx.ohttp.aead import OPEN_FAILED, TAG_SIZE, Aead, Cipher, open_sealed, seal_parts
from confonnx.ohttp.encapsulation import (
    HEADER_SIZE,
    KeyLookup,
    read_prefix,
    response_nonce_size,
    setup_receiving,
    setup_sending,
    suite_of,
)
from confonnx.ohttp.hkdf import key_and_nonce
from confonnx.ohttp.hpke import ReceiverContext, SenderContext
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.reader import Buffer, encode_varint

CHUNKED_REQUEST_MEDIA_TYPE = "message/ohttp-chunked-req"
CHUNKED_RESPONSE_MEDIA_TYPE = "message/ohttp-chunked-res"

SMALLEST_MAX_CHUNK = 16384
"""Octets of a chunk that every receiver takes."""

DEFAULT_MAX_CHUNK = 1 << 20
"""Bytes of plaintext that an opener takes in one chunk unless told otherwise."""

_REQUEST_LABEL = b"message/bhttp chunked request"
_RESPONSE_LABEL = b"message/bhttp chunked response"
_FINAL = b"final"


class _Sealer(ABC):
    """Seals chunks, in order, until the final one. Mutable state: what comes before the next chunk."""

    __slots__ = ("_ended", "_prefix")

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._ended = False

    def seal(self, parts: Sequence[Buffer]) -> bytearray:
        """The bytes to send for a chunk of the concatenation of ``parts``, copied once.

        Raises ``ValueError`` for an empty chunk, which the protocol forbids before the end, and
        :class:`confonnx.errors.TooLargeError`.
        """
        size = sum(map(len, parts))
        if not size:
            raise ValueError("an empty chunk can only be the final one")
        self._check()
        message = self._seal(self._prefix + encode_varint(size + TAG_SIZE), parts, b"")
        self._prefix = b""
        return message

    def finish(self, parts: Sequence[Buffer] = ()) -> bytearray:
        """The last bytes to send, with the concatenation of ``parts``, if any, as the final chunk."""
        self._check()
        self._ended = True
        return self._seal(self._prefix + encode_varint(0), parts, _FINAL)

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError(f"this {type(self).__name__} has sealed its final chunk")

    @abstractmethod
    def _seal(self, prefix: bytes, parts: Sequence[Buffer], aad: bytes) -> bytearray: ...


class ChunkedRequestSealer(_Sealer):
    """The client's side of a request."""

    __slots__ = ("_aead", "_context", "_enc")

    def __init__(
        self, config: KeyConfig, *, aead: Aead | None = None, randomness: bytes | None = None
    ) -> None:
        """Arguments and errors as in :func:`confonnx.ohttp.encapsulation.encapsulate_request`."""
        sending = setup_sending(config, label=_REQUEST_LABEL, aead=aead, randomness=randomness)
        super().__init__(sending.header + sending.enc)
        self._aead = sending.aead
        self._context: SenderContext = sending.context
        self._enc = sending.enc

    def response_opener(self, *, max_chunk: int = DEFAULT_MAX_CHUNK) -> ChunkedResponseOpener:
        """What opens the response, which may begin before the request has ended."""
        secret = self._context.export(_RESPONSE_LABEL, response_nonce_size(self._aead))
        return ChunkedResponseOpener(self._aead, secret, self._enc, max_chunk=max_chunk)

    def _seal(self, prefix: bytes, parts: Sequence[Buffer], aad: bytes) -> bytearray:
        return self._context.seal_parts(parts, prefix=prefix, aad=aad)[1]


class ChunkedResponseSealer(_Sealer):
    """The gateway's side of a response."""

    __slots__ = ("_keys",)

    def __init__(self, aead: Aead, secret: bytes, enc: bytes, *, randomness: bytes | None = None) -> None:
        """``secret`` is the export of the request's context; ``randomness`` is the response nonce of a test
        vector, else ``ValueError`` for its length."""
        size = response_nonce_size(aead)
        response_nonce = secrets.token_bytes(size) if randomness is None else randomness
        if len(response_nonce) != size:
            raise ValueError(f"the response nonce has {size} bytes, not {len(response_nonce)}")
        super().__init__(response_nonce)
        self._keys = _ResponseKeys(aead, secret, enc + response_nonce)

    def _seal(self, prefix: bytes, parts: Sequence[Buffer], aad: bytes) -> bytearray:
        nonce = self._keys.next_nonce()
        return seal_parts(self._keys.cipher, nonce, aad, parts, prefix=prefix, pad_to=None)


class _Opener(ABC):
    """Opens chunks, in order, until the final one. Mutable state: what is no whole chunk yet, at most
    ``max_chunk`` and some more, and how far the message has come.

    A sealed chunk is put together once, in a buffer of its announced size, and opened there.
    """

    __slots__ = ("_begun", "_closed", "_filled", "_held", "_last", "_limit", "_sealed")

    def __init__(self, *, max_chunk: int = DEFAULT_MAX_CHUNK) -> None:
        """``max_chunk``: bytes of plaintext in a chunk; ``ValueError`` below what the protocol demands."""
        if max_chunk < SMALLEST_MAX_CHUNK:
            raise ValueError(
                f"chunks of {SMALLEST_MAX_CHUNK} bytes must be taken, not of {max_chunk} at most"
            )
        self._limit = max_chunk + TAG_SIZE
        self._held = bytearray()  # what is before the chunks, the length of one, or the final one
        self._sealed: bytearray | None = None
        self._filled = 0
        self._begun = False
        self._last = False
        self._closed = False

    def feed(self, data: Buffer) -> list[memoryview]:
        """Take ``data``; the plaintexts of the chunks that it completes, the final one excepted.

        Raises :class:`EncapsulationError` for a chunk that does not open,
        :class:`confonnx.errors.TooLargeError` for one that is announced or grows over the limit, and for a
        request what its key lookup raises.
        """
        self._close()
        chunks = []
        rest = memoryview(data)
        if not self._begun:
            rest = self._take_beginning(rest)
        while rest and not self._last:
            if self._sealed is None:
                rest = self._take_length(rest)
            else:
                end = min(self._filled + len(rest), len(self._sealed))
                piece = rest[: end - self._filled]
                self._sealed[self._filled : end] = piece
                self._filled = end
                rest = rest[len(piece) :]
                if end == len(self._sealed):
                    sealed, self._sealed = self._sealed, None
                    chunks.append(self._open_chunk(sealed))
        if self._last:
            self._held += rest
            if len(self._held) > self._limit:
                raise self._too_large(f"more than {self._limit}")
        self._closed = False
        return chunks

    def finish(self) -> memoryview:
        """The plaintext of the final chunk, often empty, now that no more bytes come.

        Raises :class:`EncapsulationError` where the message was cut, wherever that was.
        """
        self._close()
        if not self._last:
            raise EncapsulationError(OPEN_FAILED)
        return self._open(self._held, _FINAL)

    def _close(self) -> None:
        """From here on an exception leaves this object closed: what follows a bad chunk is not to be read."""
        if self._closed:
            raise RuntimeError(f"this {type(self).__name__} has ended, or failed before")
        self._closed = True

    def _take_beginning(self, data: memoryview) -> memoryview:
        """What follows the bytes before the chunks; nothing while those are not all there."""
        self._held += data
        size = self._begin(self._held)
        if not size:
            return data[len(data) :]
        self._begun = True
        left = len(self._held) - size
        self._held.clear()
        return data[len(data) - left :]

    def _take_length(self, data: memoryview) -> memoryview:
        """What follows the length of the next chunk; notes where the final one begins."""
        width = 1 << ((self._held or data)[0] >> 6)  # RFC 9000 §16
        missing = width - len(self._held)
        self._held += data[:missing]
        if len(self._held) == width:
            size = int.from_bytes(self._held, "big") & ((1 << (8 * width - 2)) - 1)
            self._held.clear()
            if size > self._limit:
                raise self._too_large(str(size))
            if size:
                self._sealed, self._filled = bytearray(size), 0
            else:
                self._last = True
        return data[missing:]

    def _open_chunk(self, sealed: bytearray) -> memoryview:
        plaintext = self._open(sealed, b"")
        if not plaintext:  # it would let a sender keep us busy with nothing
            raise EncapsulationError(OPEN_FAILED)
        return plaintext

    def _too_large(self, found: str) -> TooLargeError:
        return TooLargeError(f"a sealed chunk may have {self._limit} bytes, this one has {found}")

    @abstractmethod
    def _begin(self, buffer: bytearray) -> int:
        """Read what is before the chunks and give its size; 0 while it is not all there."""

    @abstractmethod
    def _open(self, sealed: bytearray, aad: bytes) -> memoryview: ...


class ChunkedRequestOpener(_Opener):
    """The gateway's side of a request."""

    __slots__ = ("_aead", "_context", "_enc", "_keys")

    def __init__(self, keys: KeyLookup, *, max_chunk: int = DEFAULT_MAX_CHUNK) -> None:
        """``keys`` is asked once the header is there."""
        super().__init__(max_chunk=max_chunk)
        self._keys = keys
        self._context: ReceiverContext | None = None

    @property
    def enc(self) -> bytes | None:
        """The encapsulated key, which identifies a replay; ``None`` until it is there."""
        return self._enc if self._context is not None else None

    def response_sealer(self, *, randomness: bytes | None = None) -> ChunkedResponseSealer:
        """What seals the response; to be asked for once, since a response has one nonce.

        ``RuntimeError`` before ``enc`` is there. An answer that begins before the request was opened to its
        end answers something that may have been cut.
        """
        if self._context is None:
            raise RuntimeError("the request has not come far enough to be answered")
        secret = self._context.export(_RESPONSE_LABEL, response_nonce_size(self._aead))
        return ChunkedResponseSealer(self._aead, secret, self._enc, randomness=randomness)

    def _begin(self, buffer: bytearray) -> int:
        if len(buffer) < HEADER_SIZE:
            return 0
        self._keys.private_key(buffer[0])  # an unknown key is told at once, whatever follows
        size = HEADER_SIZE + suite_of(bytes(buffer[1:HEADER_SIZE])).kem.enc_size
        if len(buffer) < size:
            return 0
        private_key, prefix = read_prefix(self._keys, memoryview(bytes(buffer[:size])))
        self._enc, self._aead = prefix.enc, prefix.suite.aead
        self._context = setup_receiving(private_key, prefix, label=_REQUEST_LABEL)
        return size

    def _open(self, sealed: bytearray, aad: bytes) -> memoryview:
        assert self._context is not None  # chunks come after the prefix
        return self._context.open(sealed, aad)


class ChunkedResponseOpener(_Opener):
    """The client's side of a response."""

    __slots__ = ("_aead", "_enc", "_keys", "_secret")

    def __init__(self, aead: Aead, secret: bytes, enc: bytes, *, max_chunk: int = DEFAULT_MAX_CHUNK) -> None:
        """See :meth:`ChunkedRequestSealer.response_opener`."""
        super().__init__(max_chunk=max_chunk)
        self._aead = aead
        self._secret = secret
        self._enc = enc
        self._keys: _ResponseKeys | None = None

    def _begin(self, buffer: bytearray) -> int:
        size = response_nonce_size(self._aead)
        if len(buffer) < size:
            return 0
        self._keys = _ResponseKeys(self._aead, self._secret, self._enc + buffer[:size])
        return size

    def _open(self, sealed: bytearray, aad: bytes) -> memoryview:
        assert self._keys is not None  # chunks come after the nonce
        return open_sealed(self._keys.cipher, self._keys.next_nonce(), aad, sealed)


class _ResponseKeys:
    """AEAD and nonces of one response: ``chunk_nonce = aead_nonce XOR counter``. Mutable: the counter."""

    __slots__ = ("_base", "_counter", "_size", "cipher")

    def __init__(self, aead: Aead, secret: bytes, salt: bytes) -> None:
        key, nonce = key_and_nonce(salt, secret, aead.key_size)
        self.cipher: Cipher = aead.cipher(key)
        self._size = aead.nonce_size
        self._base = int.from_bytes(nonce, "big")
        self._counter = 0

    def next_nonce(self) -> bytes:
        """The nonce of the next chunk; 2^96 of them are never reached, so no end is checked."""
        nonce = (self._base ^ self._counter).to_bytes(self._size, "big")
        self._counter += 1
        return nonce
