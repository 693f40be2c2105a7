"""A gateway with one private key, for the tests of encapsulation."""

from __future__ import annotations

from dataclasses import dataclass

from confonnx.errors import UnknownKeyError
from confonnx.ohttp.hpke import Kem, PrivateKey
from confonnx.ohttp.key_config import ALL_ALGORITHMS, Algorithms, KeyConfig


@dataclass(frozen=True)
class SingleKey:
    """A :class:`confonnx.ohttp.encapsulation.KeyLookup` of one key."""

    key_id: int
    key: PrivateKey

    @classmethod
    def derived(cls, kem: Kem, key_id: int = 7) -> SingleKey:
        return cls(key_id, PrivateKey.derive(kem, bytes(range(32))))

    def private_key(self, key_id: int) -> PrivateKey:
        if key_id != self.key_id:
            raise UnknownKeyError(f"no key {key_id}")
        return self.key

    def config(self, algorithms: Algorithms = ALL_ALGORITHMS) -> KeyConfig:
        return KeyConfig(self.key_id, self.key.kem, self.key.public_key, algorithms)
