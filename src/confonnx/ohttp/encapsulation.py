"""Encapsulated requests and responses of Oblivious HTTP (RFC 9458 §4).

::

    request  = key_id (1) ‖ kem_id (2) ‖ kdf_id (2) ‖ aead_id (2) ‖ enc (Nenc) ‖ sealed message
    response = response_nonce (max(Nn, Nk)) ‖ sealed message

The objects for the response are one-shot: a second use raises ``RuntimeError``, because it is a mistake of
the program.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Protocol

from confonnx.errors import EncapsulationError, KeyConfigError
from confonnx.ohttp.aead import NONCE_SIZE, OPEN_FAILED, Aead, Cipher, open_sealed, seal_parts
from confonnx.ohttp.hkdf import key_and_nonce
from confonnx.ohttp.hpke import (
    Kdf,
    PrivateKey,
    ReceiverContext,
    SenderContext,
    Suite,
    setup_receiver,
    setup_sender,
)
from confonnx.ohttp.kem import Kem
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.padding import padme
from confonnx.ohttp.reader import Buffer

REQUEST_MEDIA_TYPE = "message/ohttp-req"
RESPONSE_MEDIA_TYPE = "message/ohttp-res"

HEADER_SIZE = 7
"""Bytes of ``hdr``: the key identifier and the three algorithm identifiers (RFC 9458 §4.1)."""

IDENTITY_SIZE = 16
"""Bytes of a digest that identifies an ``enc``; two of 2^48 are taken for one with a chance below 2^-32."""

_REQUEST_LABEL = b"message/bhttp request"  # RFC 9458 §4.3
_RESPONSE_LABEL = b"message/bhttp response"  # RFC 9458 §4.4


class KeyLookup(Protocol):
    """Where the private keys of a gateway are."""

    def private_key(self, key_id: int) -> PrivateKey:
        """The key with that identifier; :class:`confonnx.errors.UnknownKeyError` where there is none."""
        ...


def encapsulate_request(
    config: KeyConfig,
    parts: Sequence[Buffer],
    *,
    aead: Aead | None = None,
    pad: bool = True,
    randomness: bytes | None = None,
) -> tuple[bytearray, ResponseOpener]:
    """Seal the concatenation of ``parts``, a Binary HTTP request, to ``config`` (RFC 9458 §4.3).

    ``aead`` defaults to the first that the configuration offers. ``pad`` adds zero bytes up to the Padmé
    bucket, which Binary HTTP permits at its end. ``randomness`` is the ephemeral X25519 private key of a test
    vector. Raises :class:`KeyConfigError` for an AEAD that is not offered or a public key of low order, and
    :class:`confonnx.errors.TooLargeError`.
    """
    sending = setup_sending(config, label=_REQUEST_LABEL, aead=aead, randomness=randomness)
    _, message = sending.context.seal_parts(
        parts, prefix=sending.header + sending.enc, pad_to=padded_size(parts) if pad else None
    )
    secret = sending.context.export(_RESPONSE_LABEL, response_nonce_size(sending.aead))
    return message, ResponseOpener(sending.aead, secret, sending.enc, key_id=config.key_id)


@dataclass(frozen=True, slots=True)
class OpenedRequest:
    """A request that was opened, and what seals its response."""

    plaintext: memoryview = field(repr=False)
    """The Binary HTTP request with its padding; a view of the message where that was writable."""
    enc: bytes = field(repr=False)
    """The encapsulated key: no two requests of honest clients share it, so it identifies a replay."""
    key_id: int
    sealer: ResponseSealer

    @property
    def identity(self) -> bytes:
        """The beginning of ``SHA-256(enc)``: the same for a replay, and for nothing else."""
        return sha256(self.enc).digest()[:IDENTITY_SIZE]


def open_request(keys: KeyLookup, message: Buffer) -> OpenedRequest:
    """Open an encapsulated request (RFC 9458 §4.3), in place where ``message`` is writable.

    Raises what ``keys`` raises for its identifier, and for everything else :class:`EncapsulationError` with
    one text. A writable message whose tag is wrong is left wiped.
    """
    view = memoryview(message)
    private_key, prefix = read_prefix(keys, view)
    context = setup_receiving(private_key, prefix, label=_REQUEST_LABEL)
    plaintext = context.open(view[prefix.size :])
    aead, enc, key_id = prefix.suite.aead, prefix.enc, prefix.key_id
    secret = context.export(_RESPONSE_LABEL, response_nonce_size(aead))
    return OpenedRequest(plaintext, enc, key_id, ResponseSealer(aead, secret, enc, key_id=key_id))


@dataclass(frozen=True, slots=True)
class Sending:
    """A context to seal requests with, and the clear bytes that let the other side make its own."""

    header: bytes
    enc: bytes
    aead: Aead
    context: SenderContext


def setup_sending(
    config: KeyConfig, *, label: bytes, aead: Aead | None = None, randomness: bytes | None = None
) -> Sending:
    """A context for requests of the kind that ``label`` names, with the ``info`` of RFC 9458 §4.3 step 2.

    Arguments and errors as in :func:`encapsulate_request`.
    """
    suite = Suite(config.kem, *_algorithms(config, aead))
    header = config.key_id.to_bytes(1, "big") + suite.ids
    info = label + b"\0" + header
    enc, context = setup_sender(suite, config.public_key, info=info, randomness=randomness)
    return Sending(header, enc, suite.aead, context)


@dataclass(frozen=True, slots=True)
class Prefix:
    """``hdr ‖ enc``, with which every kind of sealed request begins."""

    suite: Suite
    name: bytes
    """Its bytes, which no two contexts of honest clients share."""

    @property
    def header(self) -> bytes:
        """``hdr``."""
        return self.name[:HEADER_SIZE]

    @property
    def enc(self) -> bytes:
        """The encapsulated key."""
        return self.name[HEADER_SIZE:]

    @property
    def key_id(self) -> int:
        """The key identifier."""
        return self.name[0]

    @property
    def size(self) -> int:
        """Bytes of both together."""
        return len(self.name)


def read_prefix(keys: KeyLookup, message: memoryview) -> tuple[PrivateKey, Prefix]:
    """The prefix of ``message`` and the private key that it names.

    Raises what ``keys`` raises, and :class:`EncapsulationError` for unknown algorithms and for a prefix that
    is cut.
    """
    header = bytes(message[:HEADER_SIZE])
    if len(header) < HEADER_SIZE:
        raise EncapsulationError(OPEN_FAILED)
    private_key = keys.private_key(header[0])
    suite = suite_of(header[1:])
    size = HEADER_SIZE + suite.kem.enc_size
    name = bytes(message[:size])
    if len(name) < size:
        raise EncapsulationError(OPEN_FAILED)
    return private_key, Prefix(suite, name)


def setup_receiving(private_key: PrivateKey, prefix: Prefix, *, label: bytes) -> ReceiverContext:
    """The receiver's side of :func:`setup_sending`. Raises :class:`EncapsulationError`."""
    return setup_receiver(prefix.suite, private_key, prefix.enc, info=label + b"\0" + prefix.header)


def padded_size(parts: Sequence[Buffer]) -> int:
    """The Padmé bucket of the concatenation of ``parts``."""
    return padme(sum(map(len, parts)))


def response_nonce_size(aead: Aead) -> int:
    """max(Nn, Nk): bytes of the response nonce and of the exported secret (RFC 9458 §4.4)."""
    return max(NONCE_SIZE, aead.key_size)


class _OneShot:
    """A secret that can be taken once."""

    __slots__ = ("_aead", "_salt", "_secret", "key_id")

    def __init__(self, aead: Aead, secret: bytes, salt: bytes, *, key_id: int) -> None:
        """``secret`` is an export of the request; ``salt`` (``enc``) goes before the response nonce."""
        self._aead = aead
        self._secret: list[bytes] = [secret]
        self._salt = salt
        self.key_id = key_id

    def _key(self, response_nonce: bytes) -> tuple[Cipher, bytes]:
        """RFC 9458 §4.4 steps 3 to 6: the AEAD and its nonce."""
        aead = self._aead
        key, nonce = key_and_nonce(self._salt + response_nonce, self._take_secret(), aead.key_size)
        return aead.cipher(key), nonce

    def _take_secret(self) -> bytes:
        try:
            return self._secret.pop()  # one step, so that two threads cannot both have it
        except IndexError:
            raise RuntimeError(f"this {type(self).__name__} was used already; it works once") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key_id={self.key_id})"


class ResponseSealer(_OneShot):
    """Seals the one response to a request. Mutable state: whether it did, and whether it is prepared."""

    __slots__ = ("_prepared",)

    def __init__(self, aead: Aead, secret: bytes, salt: bytes, *, key_id: int) -> None:
        """``secret`` is an export of the request; ``salt`` (``enc``) goes before the response nonce."""
        super().__init__(aead, secret, salt, key_id=key_id)
        self._prepared: list[tuple[bytes, Cipher, bytes]] | None = None

    def prepare(self) -> None:
        """Choose the response nonce and derive the key before there is a response (RFC 9458 §4.4 steps 1 to
        5), so that sealing it takes less time.

        Raises ``RuntimeError`` the second time, and after :meth:`seal`.
        """
        self._prepared = [self._derive(None)]

    def seal(
        self,
        parts: Sequence[Buffer],
        *,
        pad: bool = True,
        randomness: bytes | None = None,
        into: bytearray | None = None,
    ) -> bytearray:
        """Seal the concatenation of ``parts``, a Binary HTTP response (RFC 9458 §4.4).

        ``into`` as in :func:`confonnx.ohttp.aead.seal_parts`. ``randomness`` is the response nonce of a test
        vector, for one that is not prepared, else ``ValueError`` for its length. Raises
        :class:`confonnx.errors.TooLargeError`, and ``RuntimeError`` the second time.
        """
        if self._prepared and randomness is None:
            response_nonce, cipher, nonce = self._prepared.pop()  # one step: no two can have it
        else:
            response_nonce, cipher, nonce = self._derive(randomness)
        return seal_parts(
            cipher,
            nonce,
            b"",
            parts,
            prefix=response_nonce,
            pad_to=padded_size(parts) if pad else None,
            into=into,
        )

    def _derive(self, randomness: bytes | None) -> tuple[bytes, Cipher, bytes]:
        """The response nonce, and the AEAD with its nonce."""
        size = response_nonce_size(self._aead)
        response_nonce = secrets.token_bytes(size) if randomness is None else randomness
        if len(response_nonce) != size:
            raise ValueError(f"the response nonce has {size} bytes, not {len(response_nonce)}")
        return response_nonce, *self._key(response_nonce)


class ResponseOpener(_OneShot):
    """Opens the one response to a request. Mutable state: whether it tried."""

    __slots__ = ()

    def open(self, message: Buffer) -> memoryview:
        """The Binary HTTP response in ``message``, with its padding; in place where ``message`` is writable.

        Raises :class:`EncapsulationError` where it does not open, and ``RuntimeError`` the second time,
        whether or not the first succeeded.
        """
        view = memoryview(message)
        size = response_nonce_size(self._aead)
        cipher, nonce = self._key(bytes(view[:size]))
        return open_sealed(cipher, nonce, b"", view[size:])


def _algorithms(config: KeyConfig, aead: Aead | None) -> tuple[Kdf, Aead]:
    for pair in config.algorithms:
        if aead is None or pair[1] is aead:
            return pair
    offered = ", ".join(pair[1].name for pair in config.algorithms)
    raise KeyConfigError(
        f"key configuration {config.key_id} offers {offered}, not {aead.name if aead else 'any'}"
    )


@lru_cache(maxsize=16)  # there are six; what is not known raises, and is not cached
def suite_of(ids: bytes) -> Suite:
    """The suite of the three identifiers in ``hdr``. Raises :class:`EncapsulationError` for unknown ones."""
    kem_id, kdf_id, aead_id = struct.unpack(">HHH", ids)
    try:
        return Suite(Kem(kem_id), Kdf(kdf_id), Aead(aead_id))
    except ValueError:
        raise EncapsulationError(OPEN_FAILED) from None
