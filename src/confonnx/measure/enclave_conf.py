"""``enclave.conf``: the size and the identity of an SGX enclave, one ``Key=number`` a line.

::

    Debug=0                 1 lets the host read the enclave's memory
    NumTCS=32               threads at once: Python's, onnxruntime's and the event loop's
    NumHeapPages=507904     4 KiB each
    NumStackPages=512       4 KiB each, for every thread
    ProductID=1             ISVPRODID, 0 to 65535
    SecurityVersion=1       ISVSVN, 0 to 65535; raise it when an older build should no longer be trusted

All six are measured or signed, so none has a default. Standard library only: ``preflight`` uses it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from confonnx.errors import ConfigurationError

PAGE_BYTES: Final = 4096
#: Key, smallest, largest. The idle server has 6 threads; Python recurses deeper than 256 KiB of stack allow.
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "Debug": (0, 1),
    "NumTCS": (8, 1024),
    "NumHeapPages": (1, 2**26),
    "NumStackPages": (64, 16384),
    "ProductID": (0, 65535),
    "SecurityVersion": (0, 65535),
}


@dataclass(frozen=True, slots=True)
class EnclaveConf:
    """The parsed ``enclave.conf``. Pages are of 4 KiB; ``stack_pages`` are for each of ``threads``."""

    debug: bool
    threads: int
    heap_pages: int
    stack_pages: int
    product_id: int
    security_version: int

    @property
    def heap_bytes(self) -> int:
        """What programs in the enclave can allocate."""
        return self.heap_pages * PAGE_BYTES

    @property
    def stack_bytes(self) -> int:
        """The stack of one thread."""
        return self.stack_pages * PAGE_BYTES

    @property
    def enclave_bytes(self) -> int:
        """Heap and all stacks, rounded up to a power of two (Intel SDM vol. 3D, SECS.SIZE)."""
        return 1 << (self.heap_bytes + self.threads * self.stack_bytes - 1).bit_length()


def parse_enclave_conf(text: str, *, source: str = "enclave.conf") -> EnclaveConf:
    """The values of ``text``. ``#`` begins a comment. ``source`` names the file in errors.

    Raises ConfigurationError naming the line, the key, the expected range and what was found.
    """
    values: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        key, equals, value = (part.strip() for part in content.partition("="))
        where = f"{source}, line {number}"
        if not equals:
            raise ConfigurationError(f"{where}: expected Key=number, found {content[:80]!r}")
        if key not in RANGES:
            raise ConfigurationError(f"{where}: unknown key {key!r}; {_hint(key)}")
        if key in values:
            raise ConfigurationError(f"{where}: {key} is given twice")
        values[key] = _number(key, value, where)
    if missing := [key for key in RANGES if key not in values]:
        raise ConfigurationError(f"{source}: {', '.join(missing)} missing; every key must be given")
    return EnclaveConf(
        debug=bool(values["Debug"]),
        threads=values["NumTCS"],
        heap_pages=values["NumHeapPages"],
        stack_pages=values["NumStackPages"],
        product_id=values["ProductID"],
        security_version=values["SecurityVersion"],
    )


def _number(key: str, text: str, where: str) -> int:
    low, high = RANGES[key]
    value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else -1
    if not low <= value <= high:
        raise ConfigurationError(
            f"{where}: {key} must be a whole number from {low} to {high}, found {text[:40]!r}"
        )
    return value


def _hint(key: str) -> str:
    near = difflib.get_close_matches(key.lower(), [name.lower() for name in RANGES], n=1)
    named = [name for name in RANGES if name.lower() in near]
    return f"did you mean {named[0]}?" if named else f"known are {', '.join(RANGES)}"
