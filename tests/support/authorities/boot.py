"""A firmware of our own: it writes TCG event logs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

BANKS = {0x04: "sha1", 0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}
SHA256 = 0x0B


def header(
    algorithms: Sequence[int] = (SHA256,),
    *,
    sizes: Sequence[int] = (),
    signature: bytes = b"Spec ID Event03\0",
) -> bytes:
    """The first event, which announces ``algorithms`` with their digest sizes."""
    spec = signature + bytes(4) + bytes((0, 2, 0, 2)) + len(algorithms).to_bytes(4, "little")
    for algorithm, size in zip(algorithms, sizes or [_size(a) for a in algorithms], strict=True):
        spec += algorithm.to_bytes(2, "little") + size.to_bytes(2, "little")
    spec += b"\0"
    return bytes(4) + (3).to_bytes(4, "little") + bytes(20) + len(spec).to_bytes(4, "little") + spec


def event(register: int, kind: int, data: bytes, algorithms: Sequence[int] = (SHA256,)) -> bytes:
    """An event that extends ``register`` with the digests of ``data``."""
    digests = b"".join(a.to_bytes(2, "little") + hashlib.new(BANKS[a], data).digest() for a in algorithms)
    return _event(register, kind, len(algorithms), digests, data)


def no_action(data: bytes) -> bytes:
    """An EV_NO_ACTION event, which extends nothing."""
    return _event(0, 3, 1, SHA256.to_bytes(2, "little") + bytes(32), data)


def extended(*data: bytes, bank: str = "sha256") -> bytes:
    """What a register holds after being extended with the digests of ``data``."""
    value = bytes(hashlib.new(bank).digest_size)
    for each in data:
        value = hashlib.new(bank, value + hashlib.new(bank, each).digest()).digest()
    return value


def _event(register: int, kind: int, count: int, digests: bytes, data: bytes) -> bytes:
    head = b"".join(number.to_bytes(4, "little") for number in (register, kind, count))
    return head + digests + len(data).to_bytes(4, "little") + data


def _size(algorithm: int) -> int:
    return hashlib.new(BANKS[algorithm]).digest_size
