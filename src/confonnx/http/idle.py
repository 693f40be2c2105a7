"""Connections between two exchanges, whichever way they are driven."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from confonnx.http.url import Origin

# Below the idle limits of usual ingresses (60 s and more), so that a kept connection is rarely found closed.
_KEEP_ALIVE_SECONDS: Final = 30.0
_MAX_IDLE: Final = 64  # of one origin


class Kept(Protocol):
    """A connection that can be kept."""

    idle_since: float

    def is_quiet(self) -> bool:
        """Whether it is still open, and nothing came that nobody asked for."""
        ...

    def close(self) -> None:
        """Closes it."""
        ...


ConnectionT = TypeVar("ConnectionT", bound=Kept)


class Idle(Generic[ConnectionT]):
    """The idle connections. Mutable; many threads may use it."""

    def __init__(self) -> None:
        self._kept: dict[Origin, list[ConnectionT]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def take(self, origin: Origin) -> ConnectionT | None:
        """A connection to ``origin`` that is open as far as one can see; the one used last, so others can
        expire."""
        latest = monotonic() - _KEEP_ALIVE_SECONDS
        while True:
            with self._lock:
                kept = self._kept.get(origin)
                if not kept:
                    return None
                connection = kept.pop()
            if connection.idle_since > latest and connection.is_quiet():
                return connection
            connection.close()

    def put(self, origin: Origin, connection: ConnectionT) -> None:
        """Keeps ``connection`` for the next exchange, or closes it where there are enough."""
        now = connection.idle_since = monotonic()
        with self._lock:
            kept = self._kept.setdefault(origin, [])
            if self._closed or len(kept) >= _MAX_IDLE:
                over = [connection]
            else:
                kept.append(connection)
                over = [old for old in kept if old.idle_since <= now - _KEEP_ALIVE_SECONDS]
                del kept[: len(over)]  # those that waited longest are first
        for old in over:
            old.close()

    def close(self) -> None:
        """Closes them all, and those that are put back later."""
        with self._lock:
            self._closed = True
            found = [connection for kept in self._kept.values() for connection in kept]
            self._kept.clear()
        for connection in found:
            connection.close()
