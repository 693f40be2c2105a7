from __future__ import annotations

import pytest

from confonnx.errors import BhttpError, KeyConfigError
from confonnx.ohttp.reader import MAX_VARINT, Reader, encode_varint


@pytest.mark.parametrize(
    ("encoded", "value"),
    [  # RFC 9000 §A.1
        ("c2197c5eff14e88c", 151288809941952652),
        ("9d7f3e7d", 494878333),
        ("7bbd", 15293),
        ("25", 37),
        ("4025", 37),  # longer than needed is allowed
    ],
)
def test_varint_examples_of_the_rfc(encoded: str, value: int) -> None:
    reader = Reader(bytes.fromhex(encoded), BhttpError)
    assert reader.varint("number") == value
    assert reader.remaining == 0


@pytest.mark.parametrize("value", [0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, MAX_VARINT])
def test_varint_at_the_edges_of_its_sizes(value: int) -> None:
    encoded = encode_varint(value)
    assert Reader(encoded, BhttpError).varint("number") == value
    assert len(encoded) == min(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))


@pytest.mark.parametrize("value", [-1, MAX_VARINT + 1])
def test_varint_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match="variable-length integer"):
        encode_varint(value)


@pytest.mark.parametrize("encoded", ["", "40", "800000", "c0000000000000"])
def test_varint_that_is_cut_off(encoded: str) -> None:
    with pytest.raises(BhttpError, match=r"number is (missing|truncated)"):
        Reader(bytes.fromhex(encoded), BhttpError).varint("number")


def test_reads_in_order_and_stops_at_the_end() -> None:
    reader = Reader(b"\x01\x02\x03\x02hirest", KeyConfigError)
    assert reader.u8("a") == 1
    assert reader.u16("b") == 0x0203
    assert reader.text("c", 2) == "hi"
    with pytest.raises(KeyConfigError, match="d is truncated: needs 5 bytes, 4 are left"):
        reader.take(5, "d")
    assert bytes(reader.take(4, "d")) == b"rest"
    assert reader.remaining == 0


@pytest.mark.parametrize("zeros", [0, 1, 1 << 16, (1 << 17) + 1])
def test_only_zeros(zeros: int) -> None:
    reader = Reader(b"x" + bytes(zeros), BhttpError)
    assert not reader.only_zeros()
    reader.take(1, "x")
    assert reader.only_zeros()
    assert not Reader(bytes(zeros) + b"\x01", BhttpError).only_zeros()


def test_views_are_read_only() -> None:
    assert Reader(bytearray(b"abc"), BhttpError).take(2, "x").readonly


def test_text_limits() -> None:
    with pytest.raises(BhttpError, match="name has 3 bytes, the limit is 2"):
        Reader(b"\x03abc", BhttpError).text("name", 2)
    with pytest.raises(BhttpError, match="name is truncated: needs 3 bytes, 2 are left"):
        Reader(b"\x03ab", BhttpError).text("name", 3)
