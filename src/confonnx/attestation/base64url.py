"""base64url without padding, RFC 4648 §5, with exactly one text for a value."""

from __future__ import annotations

import base64
import binascii
import re

from confonnx.errors import BundleError

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


def encode(data: bytes) -> str:
    """``data`` as base64url text without ``=``."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str, *, what: str) -> bytes:
    """The bytes of ``text``; ``what`` names it in the ``BundleError`` raised for a wrong alphabet, padding,
    or spare bits.

    RFC 4648 §3.5 lets a decoder ignore the spare bits at the end; refusing them keeps one text for a value.
    """
    if not _ALPHABET.fullmatch(text):
        raise BundleError(f"{what} has characters outside base64url (RFC 4648 §5, no padding)")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise BundleError(
            f"{what} is not base64url: {len(text)} characters encode no whole number of bytes"
        ) from error
    if encode(data) != text:
        raise BundleError(f"{what} is not base64url: its last character has bits set that encode nothing")
    return data
