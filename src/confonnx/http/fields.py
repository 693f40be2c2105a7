"""The fields of a message. Pure."""

from __future__ import annotations

from typing import TypeAlias

#: Names in lower case, and values, in the order of the message.
Fields: TypeAlias = tuple[tuple[str, str], ...]


def field_value(fields: Fields, name: str) -> str | None:
    """The value of field ``name`` (lower case) in ``fields``, repeats joined with a comma (RFC 9110 §5.3)."""
    values = [value for key, value in fields if key == name]
    return ", ".join(values) if values else None
