"""Sessions: many requests to one HPKE context (docs/spec/sessions.md).

::

    request  = key_id (1) ‖ kem_id (2) ‖ kdf_id (2) ‖ aead_id (2) ‖ enc (Nenc) ‖ seq (8) ‖ sealed message
    response = response_nonce (max(Nn, Nk)) ‖ sealed message

An encapsulation is most of the cost of a small request, and here one serves them all. ``seq`` makes the nonce
of the request (RFC 9180 §5.2) and goes into the salt of its response, so no key and nonce meet twice and a
response opens for its own request alone. Requests may arrive in any order, on any connection, at any replica
that has the private key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from confonnx.errors import EncapsulationError
from confonnx.ohttp.aead import OPEN_FAILED, Aead
from confonnx.ohttp.encapsulation import (
    IDENTITY_SIZE,
    Prefix,
    ResponseOpener,
    ResponseSealer,
    padded_size,
    response_nonce_size,
    setup_receiving,
    setup_sending,
)
from confonnx.ohttp.hpke import PrivateKey, ReceiverContext, SenderContext
from confonnx.ohttp.key_config import KeyConfig
from confonnx.ohttp.reader import Buffer

SESSION_REQUEST_MEDIA_TYPE = "application/vnd.confonnx.session-req"
SESSION_RESPONSE_MEDIA_TYPE = "application/vnd.confonnx.session-res"

MAX_REQUESTS = 1 << 20
"""Requests of one session: ``seq`` is below it."""

SEQ_SIZE = 8
"""Bytes of ``seq``, big endian."""

WINDOW = 1024
"""How many numbers below the highest one a :class:`ReplayWindow` tells apart."""

_REQUEST_LABEL = b"confonnx session request"
_RESPONSE_LABEL = b"confonnx session response"


class SenderSession:
    """The client's side. Mutable state: the number of the next request, which is taken in one step, so that
    threads and tasks may share a session.
    """

    __slots__ = ("_aead", "_context", "_enc", "_prefix", "_secret", "key_id")

    def __init__(
        self, config: KeyConfig, *, aead: Aead | None = None, randomness: bytes | None = None
    ) -> None:
        """Arguments and errors as in :func:`confonnx.ohttp.encapsulation.encapsulate_request`."""
        sending = setup_sending(config, label=_REQUEST_LABEL, aead=aead, randomness=randomness)
        self.key_id = config.key_id
        self._aead = sending.aead
        self._context = sending.context
        self._enc = sending.enc
        self._prefix = sending.header + sending.enc
        self._secret = _export_secret(sending.context, sending.aead)

    def seal(self, parts: Sequence[Buffer], *, pad: bool = True) -> tuple[bytearray, ResponseOpener] | None:
        """Seal the concatenation of ``parts``, a Binary HTTP request; gives what opens its response too.

        ``None``: the session has carried ``MAX_REQUESTS`` and carries no more. ``pad`` and errors as in
        :func:`confonnx.ohttp.encapsulation.encapsulate_request`; a number is spent on an error as well.
        """
        seq, message = self._context.seal_parts(
            parts, prefix=self._prefix + bytes(SEQ_SIZE), pad_to=padded_size(parts) if pad else None
        )
        if seq >= MAX_REQUESTS:
            return None
        number = seq.to_bytes(SEQ_SIZE, "big")
        start = len(self._prefix)
        message[start : start + SEQ_SIZE] = number
        return message, ResponseOpener(self._aead, self._secret, self._enc + number, key_id=self.key_id)

    def __repr__(self) -> str:
        return f"SenderSession(key_id={self.key_id})"


class SessionRequest(msgspec.Struct, frozen=True):
    """A request that was opened, and what seals its response."""

    plaintext: memoryview
    """The Binary HTTP request with its padding; a view of the message where that was writable."""
    seq: int
    identity: bytes
    """The beginning of ``SHA-256(hdr ‖ enc)``, and ``seq``: the same for a replay, and for nothing else."""
    sealer: ResponseSealer

    def __repr__(self) -> str:
        return f"SessionRequest(seq={self.seq}, sealer={self.sealer})"


class ReceiverSession:
    """The gateway's side of one session. Mutable: its ``window``, which its owner marks, and what was
    prepared.

    ``name`` is ``hdr ‖ enc``; ``public_key`` tells which key it was made with. It opens requests without the
    private key, so whoever erases that must drop the sessions too.
    """

    __slots__ = (
        *("_aead", "_context", "_digest", "_enc", "_next", "_prepared", "_secret", "_start"),
        *("name", "public_key", "window"),
    )

    def __init__(self, private_key: PrivateKey, prefix: Prefix) -> None:
        """Raises :class:`EncapsulationError` where ``enc`` has no shared secret."""
        self._context = setup_receiving(private_key, prefix, label=_REQUEST_LABEL)
        self._aead = prefix.suite.aead
        self._enc = prefix.enc
        self._secret = _export_secret(self._context, self._aead)
        self._start = prefix.size + SEQ_SIZE  # of the sealed message
        self.name = prefix.name
        self.public_key = private_key.public_key
        self._digest = hashlib.sha256(self.name).digest()[:IDENTITY_SIZE]
        self.window = ReplayWindow()
        self._next = 0  # the number that follows the last request's
        self._prepared: dict[int, ResponseSealer] = {}  # at most one

    @property
    def key_id(self) -> int:
        """The identifier of the private key."""
        return self.name[0]

    def open(self, message: Buffer) -> SessionRequest:
        """Open a request of this session, in place where ``message`` is writable.

        Whether it was opened before is for the window and the owner's replay cache to say. Raises
        :class:`EncapsulationError` with one text; a writable message whose tag is wrong is left wiped.
        """
        view = memoryview(message)
        start = self._start
        number = bytes(view[start - SEQ_SIZE : start])  # a cut one is followed by nothing, which never opens
        seq = int.from_bytes(number, "big")
        if seq >= MAX_REQUESTS:
            raise EncapsulationError(OPEN_FAILED)
        plaintext = self._context.open_at(seq, view[start:])
        self._next = seq + 1
        sealer = self._prepared.pop(seq, None) or self._sealer(number)  # taken out: no two requests have it
        return SessionRequest(plaintext, seq, self._digest + number, sealer)

    def prepare(self) -> None:
        """Make ready to seal the answer to the request that will likely come next, while there is time."""
        following = self._next
        if following < MAX_REQUESTS and following not in self._prepared:
            sealer = self._sealer(following.to_bytes(SEQ_SIZE, "big"))
            sealer.prepare()
            self._prepared = {following: sealer}

    def _sealer(self, number: bytes) -> ResponseSealer:
        return ResponseSealer(self._aead, self._secret, self._enc + number, key_id=self.key_id)

    def __repr__(self) -> str:
        return f"ReceiverSession(key_id={self.key_id})"


class ReplayWindow:
    """Which of the last ``WINDOW`` numbers were seen: one bit each, in one integer. Mutable; for one thread.

    As in RFC 4303 §3.4.3, but for numbers below the window: there it does not know, so it says nothing, and
    the owner's replay cache, which every admission passes, decides alone. A large request that was overtaken
    by thousands of small ones is then no replay.
    """

    __slots__ = ("_bits", "_highest")

    def __init__(self) -> None:
        self._highest = -1
        self._bits = 0  # bit n: the number n below the highest

    def mark(self, seq: int) -> bool:
        """Note ``seq``; ``False`` where it is known to have been noted before."""
        ahead = seq - self._highest
        if ahead > 0:
            # Shifted by no more than the window: a number far ahead must not make an integer as large.
            self._bits = (self._bits << ahead | 1) & _MASK if ahead < WINDOW else 1
            self._highest = seq
            return True
        if -ahead >= WINDOW:
            return True
        bit = 1 << -ahead
        fresh = not self._bits & bit
        self._bits |= bit
        return fresh


_MASK = (1 << WINDOW) - 1


def _export_secret(context: SenderContext | ReceiverContext, aead: Aead) -> bytes:
    return context.export(_RESPONSE_LABEL, response_nonce_size(aead))
