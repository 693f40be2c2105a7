"""Contexts of sessions that were opened lately, so that a session's later requests need no decapsulation.

The cache decides about speed alone. A request whose context is not in it is decapsulated again, at this or at
any replica with the keys, and whether it is a replay is for ``replay.ReplayCache`` to say, which remembers
``(session, seq)`` for as long as a date is accepted, whatever is evicted here (docs/spec/sessions.md §5). The
window of a context is a second line: it needs no clock, and the clock belongs to the host.

A context opens requests without the private key, so contexts go when their key goes; otherwise they would
outlive the erasure of the key ring.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from confonnx.errors import UnknownKeyError
from confonnx.ohttp.encapsulation import HEADER_SIZE, KeyLookup, read_prefix
from confonnx.ohttp.reader import Buffer
from confonnx.ohttp.session import ReceiverSession, SessionRequest
from confonnx.server.recall import Recall
from confonnx.server.replay import SeenBeforeError

MAX_SESSIONS = 4096
"""Contexts kept by default. One has 14 KiB with what its requests say, 27 with four shapes of them
(measured, KEM 0x647a)."""


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session, and what is remembered of its requests."""

    receiver: ReceiverSession
    recall: Recall = field(default_factory=Recall, repr=False)


class SessionCache:
    """The least recently used of ``capacity`` contexts goes first. Mutable; for use by one thread, but for
    :meth:`ReceiverSession.open <confonnx.ohttp.session.ReceiverSession.open>` of what :meth:`find` gave.
    """

    def __init__(self, keys: KeyLookup, *, capacity: int = MAX_SESSIONS) -> None:
        """``keys`` is asked on every request: a key that it no longer knows opens nothing. ``ValueError`` for
        a capacity below one."""
        if capacity < 1:
            raise ValueError(f"the capacity must be 1 or more, not {capacity}")
        self._keys = keys
        self._capacity = capacity
        self._sessions: OrderedDict[bytes, LiveSession] = OrderedDict()
        self._name_sizes: dict[bytes, int] = {}  # by the header, with which a name begins
        self._public_keys: dict[int, bytes] = {}  # identifiers come round again, for other keys

    def __len__(self) -> int:
        """How many contexts are kept."""
        return len(self._sessions)

    def find(self, message: Buffer) -> LiveSession:
        """The session to open ``message`` with: a kept one, or a new one that :meth:`admit` will keep.

        Raises UnknownKeyError and EncapsulationError.
        """
        view = memoryview(message)
        header = bytes(view[:HEADER_SIZE])
        known = self._sessions.get(bytes(view[: self._name_sizes.get(header, 0)]))
        if known is not None and known.receiver.public_key == self._keys.private_key(header[0]).public_key:
            return known
        private_key, prefix = read_prefix(self._keys, view)
        if self._public_keys.get(prefix.key_id, private_key.public_key) != private_key.public_key:
            self._drop(prefix.key_id)
        return LiveSession(ReceiverSession(private_key, prefix))

    def admit(self, session: LiveSession, request: SessionRequest) -> None:
        """Keep ``session``, which has just opened ``request``. Raises SeenBeforeError for a replay.

        Only what opened a request is kept, so garbage evicts nothing. Of two requests that made the same
        session at the same time, the first one's is kept, and its window counts for both.
        """
        name = session.receiver.name
        kept = self._sessions.get(name)
        if kept is not session:
            kept = self._keep(session)
            if kept is None:
                return  # its key went while the request was being opened; the replay cache sees to the rest
        self._sessions.move_to_end(name)
        if not kept.receiver.window.mark(request.seq):
            raise SeenBeforeError("the request was seen before")

    def _keep(self, session: LiveSession) -> LiveSession | None:
        """``session``, or the one that has its name; ``None`` where its key went."""
        receiver = session.receiver
        if self._public_keys.setdefault(receiver.key_id, receiver.public_key) != receiver.public_key:
            return None
        kept = self._sessions.setdefault(receiver.name, session)
        self._name_sizes[receiver.name[:HEADER_SIZE]] = len(receiver.name)
        if len(self._sessions) > self._capacity:
            self._sessions.popitem(last=False)
        return kept

    def forget_ended(self) -> None:
        """Drop the contexts of keys that the key lookup has no more. Cheap where there are none."""
        for key_id, public_key in list(self._public_keys.items()):
            try:
                alive = self._keys.private_key(key_id).public_key == public_key
            except UnknownKeyError:
                alive = False
            if not alive:
                self._drop(key_id)

    def _drop(self, key_id: int) -> None:
        del self._public_keys[key_id]
        for name in [name for name in self._sessions if name[0] == key_id]:
            del self._sessions[name]
        for header in [header for header in self._name_sizes if header[0] == key_id]:
            del self._name_sizes[header]
