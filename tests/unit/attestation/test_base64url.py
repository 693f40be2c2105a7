"""base64url: one text for a value."""

from __future__ import annotations

import pytest

from confonnx.attestation import base64url
from confonnx.errors import BundleError


@pytest.mark.parametrize("size", range(8))
def test_every_length_returns(size: int) -> None:
    data = bytes(range(250, 250 + min(size, 6))) + b"x" * (size - min(size, 6))
    text = base64url.encode(data)
    assert "=" not in text
    assert base64url.decode(text, what="x") == data


@pytest.mark.parametrize("text", ["YQ==", "Y Q", "Y+", "Y/", "YQ\n", "YÄ", "Y", "YWJjZ"])
def test_other_alphabets_padding_and_lengths_are_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"the nonce .*base64url"):
        base64url.decode(text, what="the nonce")


def test_spare_bits_are_refused() -> None:
    assert base64url.decode("YQ", what="x") == b"a"
    with pytest.raises(BundleError, match="bits set that encode nothing"):
        base64url.decode("YR", what="x")
