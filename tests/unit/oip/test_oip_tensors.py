from __future__ import annotations

import numpy as np
import onnx.numpy_helper
import pytest

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import Array, Datatype
from confonnx.oip.tensors import byte_size, round_to, tensor_from_bytes, tensor_to_bytes
from tests.support.oip import same, sample

FIXED = [datatype for datatype in Datatype if datatype is not Datatype.BYTES]
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (4,), (2, 3), (0,), (2, 0, 3), (5, 1)]


@pytest.mark.parametrize("datatype", FIXED, ids=lambda datatype: datatype.value)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_wire_form_is_onnx_s_raw_data(datatype: Datatype, shape: tuple[int, ...]) -> None:
    array = sample(datatype, shape)
    proto = onnx.numpy_helper.from_array(array)
    assert proto.data_type == datatype.onnx_type
    assert bytes(tensor_to_bytes(array, datatype)) == proto.raw_data
    assert byte_size(datatype, array.size) == len(proto.raw_data)
    back = tensor_from_bytes(proto.raw_data, datatype, shape)
    assert same(back, array)
    assert not back.flags.writeable


@pytest.mark.parametrize("datatype", FIXED, ids=lambda datatype: datatype.value)
def test_every_bit_pattern_of_a_byte_survives(datatype: Datatype) -> None:
    data = bytes(range(2)) * 128 if datatype is Datatype.BOOL else bytes(range(256))
    count = 256 * 8 // (datatype.bits or 0)
    array = tensor_from_bytes(data, datatype, (count,))
    assert bytes(tensor_to_bytes(array, datatype)) == data


def test_low_nibble_and_low_crumb_come_first() -> None:
    assert tensor_from_bytes(b"\x21\x0f", Datatype.INT4, (3,)).tolist() == [1, 2, -1]
    assert tensor_from_bytes(b"\x21\x0f", Datatype.UINT4, (3,)).tolist() == [1, 2, 15]
    assert tensor_from_bytes(b"\xe4\x03", Datatype.INT2, (5,)).tolist() == [0, 1, -2, -1, -1]
    assert tensor_from_bytes(b"\x72", Datatype.FP4_E2M1, (2,)).tolist() == [1.0, 6.0]


def test_high_bits_of_a_numpy_byte_do_not_leak_into_the_neighbour() -> None:
    dirty = np.array([0xF1, 0x32, 0xFF], np.uint8).view(Datatype.UINT4.numpy_dtype)
    assert bytes(tensor_to_bytes(dirty, Datatype.UINT4)) == b"\x21\x0f"


@pytest.mark.parametrize(
    ("datatype", "count", "data"),
    [("INT4", 1, b"\x10"), ("UINT4", 3, b"\x11\x11"), ("UINT2", 1, b"\x04"), ("FP4_E2M1", 1, b"\x80")],
)
def test_unused_bits_must_be_zero(datatype: str, count: int, data: bytes) -> None:
    with pytest.raises(OipError, match="unused bits"):
        tensor_from_bytes(data, Datatype(datatype), (count,))


def test_a_bool_is_0_or_1() -> None:
    with pytest.raises(OipError, match="BOOL is one byte, 0 or 1"):
        tensor_from_bytes(b"\x00\x02", Datatype.BOOL, (2,))


@pytest.mark.parametrize("size", [0, 7, 9, 16])
def test_size_must_be_exact(size: int) -> None:
    with pytest.raises(OipError, match=rf"x: FP32 of shape \[2\] takes 8 bytes, found {size}"):
        tensor_from_bytes(bytes(size), Datatype.FP32, (2,), "x")


@pytest.mark.parametrize("datatype", [one for one in Datatype if one.bits is not None and one.bits >= 8])
@pytest.mark.parametrize("start", [0, 1, 8, 15, 16])
def test_large_data_is_viewed_where_it_lies_as_numpy_has_it(datatype: Datatype, start: int) -> None:
    """At a multiple of 16: elsewhere onnxruntime adds up in another order."""
    size = 1 << 16
    room = np.zeros(size + 32, np.uint8)
    start += -room.ctypes.data % 16
    assert datatype.bits is not None
    count = size * 8 // datatype.bits
    array = tensor_from_bytes(room.data[start : start + size], datatype, (count,))
    assert np.shares_memory(array, room) == ((room.ctypes.data + start) % 16 == 0)
    assert array.ctypes.data % 16 == 0


def test_small_data_is_copied() -> None:
    room = np.zeros(64, np.uint8)
    array = tensor_from_bytes(room.data[16:32], Datatype.FP32, (4,))
    assert not np.shares_memory(array, room)
    assert array.ctypes.data % 16 == 0


@pytest.mark.parametrize("datatype", ["FP32", "BF16", "BOOL", "COMPLEX128"])
def test_contiguous_arrays_are_not_copied(datatype: str) -> None:
    array = sample(Datatype(datatype), (2, 3))
    part = tensor_to_bytes(array, Datatype(datatype))
    assert np.shares_memory(np.frombuffer(part, np.uint8), array.view(np.uint8))
    assert bytes(tensor_to_bytes(array.T, Datatype(datatype))) == np.ascontiguousarray(array.T).tobytes()


@pytest.mark.parametrize("dtype", [np.float64, ">f4", np.int32])
def test_another_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match="x: expected an array of float32 for FP32, found"):
        tensor_to_bytes(np.zeros(2, dtype), Datatype.FP32, "x")


def _strings(*strings: object) -> Array:
    array = np.empty(len(strings), object)
    array[:] = strings
    return array


def test_strings() -> None:
    data = b"\x01\x00\x00\x00a\x00\x00\x00\x00\x03\x00\x00\x00\xe2\x82\xac"
    array = tensor_from_bytes(data, Datatype.BYTES, (3, 1))
    assert array.tolist() == [["a"], [""], ["€"]]
    assert tensor_to_bytes(array, Datatype.BYTES) == data
    assert byte_size(Datatype.BYTES, 3) is None
    assert tensor_from_bytes(b"", Datatype.BYTES, (0, 2)).shape == (0, 2)
    assert tensor_from_bytes(b"\x01\x00\x00\x00a", Datatype.BYTES, ()).item() == "a"


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"\x02\x00\x00\x00\xff\xfe", 1, "element 0 is not valid UTF-8"),
        (b"\x00\x00\x00\x00\x03\x00\x00\x00\xed\xa0\x80", 2, "element 1 is not valid UTF-8"),
        (b"\xff\xff\xff\xff" + b"a" * 4, 1, "element 0 is longer than the rest"),
        (b"\x04\x00\x00\x00abcd", 2, "data ends before element 1"),
        (b"\x02\x00\x00\x00abcd", 2, "data ends before element 1"),
        (b"\x00\x00\x00\x00" * 2, 1, "4 bytes follow the last of 1"),
        (b"\x00\x00\x00\x00", 2**40, "elements need at least"),  # refused before 8 TiB are allocated
        (b"", 1, "need at least 4 bytes, found 0"),
    ],
)
def test_bad_strings(data: bytes, count: int, message: str) -> None:
    with pytest.raises(OipError, match=f"x: .*{message}"):
        tensor_from_bytes(data, Datatype.BYTES, (count,), "x")


def test_strings_that_cannot_be_written() -> None:
    with pytest.raises(InvalidInputError, match="x: element 1 is a bytes, expected a str"):
        tensor_to_bytes(_strings("a", b"b"), Datatype.BYTES, "x")
    with pytest.raises(InvalidInputError, match="x: element 0 has a lone surrogate"):
        tensor_to_bytes(_strings("\ud800"), Datatype.BYTES, "x")


def test_errors_do_not_show_elements() -> None:
    secret = b"\x05\x00\x00\x00s3cr\xff"
    with pytest.raises(OipError) as caught:
        tensor_from_bytes(secret, Datatype.BYTES, (1,), "x")
    assert "s3cr" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("datatype", "number"),
    [
        ("FP32", 1e39), ("FP16", 70000.0), ("BF16", 3e39), ("FP8_E4M3FN", 500.0),
        ("FP8_E4M3FN", np.inf),
        ("FP8_E4M3FNUZ", np.inf), ("FP8_E5M2", 1e5), ("FP8_E8M0", 0.0), ("FP8_E8M0", -1.0), ("FP4_E2M1", 6.5),
        ("FP4_E2M1", np.nan), ("FP4_E2M1", -np.inf), ("COMPLEX64", 1e39),
        ("COMPLEX64", complex(np.inf, 1e39)),
    ],
)  # fmt: skip
def test_numbers_that_do_not_survive(datatype: str, number: complex) -> None:
    with pytest.raises(InvalidInputError, match=f"x: a number has no counterpart in {datatype}"):
        round_to(np.array([1.0, number]), Datatype(datatype), "x")


@pytest.mark.parametrize(
    ("datatype", "number", "rounded"),
    [
        ("FP32", 0.1, float(np.float32(0.1))), ("FP16", np.inf, np.inf), ("FP32", -np.inf, -np.inf),
        ("FP8_E5M2", np.inf, np.inf), ("FP4_E2M1", 5.5, 6.0), ("FP8_E8M0", 3.0, 4.0),
        ("FP8_E4M3FN", 448.0, 448.0),
        ("FP32", 1e-60, 0.0), ("COMPLEX64", complex(np.inf, 1), complex(np.inf, 1)),
    ],
)  # fmt: skip
def test_rounding(datatype: str, number: complex, rounded: complex) -> None:
    array = round_to(np.array([number]), Datatype(datatype), "x")
    assert array.dtype == Datatype(datatype).numpy_dtype
    assert complex(array.astype(np.complex128)[0]) == rounded


def test_nan_stays_nan() -> None:
    for name in ("FP16", "FP32", "BF16", "FP8_E4M3FN", "FP8_E4M3FNUZ", "FP8_E5M2", "FP8_E8M0"):
        assert np.isnan(round_to(np.array(np.nan), Datatype(name), "x").astype(np.float64))
