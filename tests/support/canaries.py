"""Distinctive values, and a search for them in whatever came out, in every form that bytes are given."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Canary:
    """Something that nobody but the client may see, and how it may look."""

    name: str
    forms: Mapping[str, bytes]


def text_canary(name: str, text: str) -> Canary:
    """A text, of at least eight characters."""
    raw = text.encode()
    forms = dict(_bytes_forms(raw))
    forms |= {"utf-16": text.encode("utf-16-le"), "JSON": json.dumps(text)[1:-1].encode()}
    forms["URL"] = quote(text, safe="").encode()
    return Canary(name, forms)


def float_canary(name: str, values: Iterable[float]) -> Canary:
    """Neighbours in a tensor of 32-bit floats; each value must have a distinctive decimal form."""
    numbers = [struct.unpack("<f", struct.pack("<f", value))[0] for value in values]
    forms = dict(_bytes_forms(struct.pack(f"<{len(numbers)}f", *numbers)))
    forms["big-endian"] = struct.pack(f">{len(numbers)}f", *numbers)
    forms["doubles"] = struct.pack(f"<{len(numbers)}d", *numbers)
    for index, number in enumerate(numbers):
        forms[f"decimal {index}"] = repr(number).encode()
    return Canary(name, forms)


def found(canaries: Iterable[Canary], data: bytes) -> list[str]:
    """Which canaries are in ``data``, and in which form."""
    return [
        f"{canary.name} ({form})"
        for canary in canaries
        for form, pattern in canary.forms.items()
        if pattern in data
    ]


def _bytes_forms(raw: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", raw
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "hex dump", raw.hex(" ").encode()
    yield "escapes", "".join(f"\\x{byte:02x}" for byte in raw).encode()
    yield "decimal bytes", ", ".join(map(str, raw)).encode()
    for offset in range(3):  # where in a group of three bytes it begins
        encoded = base64.b64encode(bytes(offset) + raw)
        # Characters that hold bits of what stands before or after differ from place to place.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        yield f"base64 +{offset}", encoded[first:last]
        yield f"base64url +{offset}", encoded[first:last].translate(bytes.maketrans(b"+/", b"-_"))
