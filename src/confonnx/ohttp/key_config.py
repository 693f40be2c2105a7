"""Key configurations (RFC 9458 §3): the public key that a gateway opens with, and the algorithms it takes.

::

    key_id (1) ‖ kem_id (2) ‖ public key (Npk) ‖ length of what follows (2) ‖ { kdf_id (2) ‖ aead_id (2) } …
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from confonnx.errors import KeyConfigError
from confonnx.ohttp.aead import Aead
from confonnx.ohttp.hpke import Kdf
from confonnx.ohttp.kem import Kem, check_public_key
from confonnx.ohttp.reader import Buffer, Reader

KEYS_MEDIA_TYPE = "application/ohttp-keys"
"""Media type of a list of key configurations (RFC 9458 §3.2)."""

Algorithms: TypeAlias = tuple[tuple[Kdf, Aead], ...]

ALL_ALGORITHMS: Algorithms = tuple((Kdf.HKDF_SHA256, aead) for aead in Aead)
"""Every symmetric suite of this library, the cheapest first."""

_ALGORITHM_SIZE = 4
_KNOWN = {(int(kdf), int(aead)): (kdf, aead) for kdf, aead in ALL_ALGORITHMS}


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One key configuration. Building one with wrong values raises :class:`KeyConfigError`."""

    key_id: int
    """0 to 255."""
    kem: Kem
    public_key: bytes
    """``kem.public_key_size`` bytes."""
    algorithms: Algorithms = ALL_ALGORITHMS
    """At least one pair, none twice, the preferred first."""

    def __post_init__(self) -> None:
        if not 0 <= self.key_id <= 255:
            raise KeyConfigError(f"a key identifier is one byte, 0..255, not {self.key_id}")
        check_public_key(self.kem, self.public_key)
        if not self.algorithms:
            raise KeyConfigError(f"key configuration {self.key_id} has no symmetric algorithms that we know")
        if len(set(self.algorithms)) != len(self.algorithms):
            raise KeyConfigError(f"key configuration {self.key_id} names a pair of algorithms twice")

    def encode(self) -> bytes:
        """The configuration as bytes."""
        pairs = b"".join(kdf.to_bytes(2, "big") + aead.to_bytes(2, "big") for kdf, aead in self.algorithms)
        head = self.key_id.to_bytes(1, "big") + self.kem.to_bytes(2, "big")
        return head + self.public_key + len(pairs).to_bytes(2, "big") + pairs


def parse_key_config(data: Buffer) -> KeyConfig:
    """The one configuration in ``data``.

    Pairs of algorithms that we do not know are left out, so that a server can offer newer ones; the result
    may therefore encode to fewer bytes. Raises :class:`KeyConfigError` for an unknown KEM or unknown
    algorithms only, for bytes that are missing or left over, and as :class:`KeyConfig` does.
    """
    config = _parse_supported(data)
    if config is None:
        kems = " or ".join(kem.name for kem in Kem)
        aeads = ", ".join(aead.name for aead in Aead)
        raise KeyConfigError(f"the key configuration is not for {kems} with HKDF_SHA256 and one of {aeads}")
    return config


def encode_key_configs(configs: Iterable[KeyConfig]) -> bytes:
    """``application/ohttp-keys`` (RFC 9458 §3.2). :class:`KeyConfigError` for an identifier used twice."""
    encoded = [config.encode() for config in _distinct(tuple(configs))]
    return b"".join(len(config).to_bytes(2, "big") + config for config in encoded)


def parse_key_configs(data: Buffer) -> tuple[KeyConfig, ...]:
    """The configurations in ``application/ohttp-keys`` that we can use, in the server's order.

    Those for unknown KEMs, or with unknown algorithms only, are skipped (RFC 9458 §3). Raises
    :class:`KeyConfigError` where one that we should know is malformed, where an identifier is used twice, and
    where none is left.
    """
    reader = Reader(data, KeyConfigError)
    configs = []
    while reader.remaining:
        size = reader.u16("length of a key configuration")
        config = _parse_supported(reader.take(size, "key configuration"))
        if config is not None:
            configs.append(config)
    if not configs:
        raise KeyConfigError("the list has no key configuration that we can use")
    return _distinct(tuple(configs))


def _parse_supported(data: Buffer) -> KeyConfig | None:
    """The configuration in ``data``; ``None`` where its KEM, or every pair of its algorithms, is unknown."""
    reader = Reader(data, KeyConfigError)
    key_id = reader.u8("key identifier")
    try:
        kem = Kem(reader.u16("KEM identifier"))
    except ValueError:  # its key has a length that we do not know, so nothing after it can be read
        return None
    public_key = bytes(reader.take(kem.public_key_size, "public key"))
    size = reader.u16("length of the symmetric algorithms")
    if size == 0 or size % _ALGORITHM_SIZE:
        raise KeyConfigError(
            f"the symmetric algorithms take {size} bytes, which is not a positive multiple of 4"
        )
    pairs = [
        (reader.u16("KDF identifier"), reader.u16("AEAD identifier")) for _ in range(size // _ALGORITHM_SIZE)
    ]
    if reader.remaining:
        raise KeyConfigError(f"{reader.remaining} bytes follow key configuration {key_id}")
    known = tuple(_KNOWN[pair] for pair in pairs if pair in _KNOWN)
    return KeyConfig(key_id, kem, public_key, known) if known else None


def _distinct(configs: tuple[KeyConfig, ...]) -> tuple[KeyConfig, ...]:
    """``configs``, unless an identifier stands for two keys: a request could not say which it means."""
    identifiers = [config.key_id for config in configs]
    if len(set(identifiers)) != len(identifiers):
        raise KeyConfigError(f"the key identifiers {identifiers} are not distinct")
    return configs
