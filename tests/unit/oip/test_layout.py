"""What a request's JSON header settles: a layout reads what parsing reads, or there is none."""

from __future__ import annotations

import numpy as np
import pytest

from confonnx.oip import binary
from confonnx.oip.datatypes import Array, Datatype, SequenceType, TensorType
from confonnx.oip.layout import Layout, is_plain, layout_of, shapes_of
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferInput, InferRequest

PLAIN = [
    *(Datatype.FP16, Datatype.FP32, Datatype.FP64, Datatype.INT8, Datatype.INT16, Datatype.INT32),
    *(Datatype.INT64, Datatype.UINT8, Datatype.UINT16, Datatype.UINT32, Datatype.UINT64),
]


def message(*arrays: Array, **options: bool) -> tuple[bytes, int]:
    inputs = tuple(
        InferInput(f"x{number}", TensorType(Datatype.from_numpy(array.dtype), array.shape), array)
        for number, array in enumerate(arrays)
    )
    encoded = binary.encode_infer_request(InferRequest(inputs, id="q"), **options)
    return b"".join(encoded.parts), encoded.header_length or 0


def laid_out(body: bytes, header_length: int) -> Layout | None:
    request = binary.parse_infer_request(body, header_length=header_length or None, limits=OipLimits())
    return layout_of(request.inputs, body, header_length=header_length)


@pytest.mark.parametrize("datatype", PLAIN, ids=lambda datatype: datatype.value)
@pytest.mark.parametrize("shift", [0, 1])
def test_a_layout_reads_what_parsing_reads(datatype: Datatype, shift: int) -> None:
    first = np.arange(6).reshape(2, 3).astype(datatype.numpy_dtype)
    body, header_length = message(first, first[:1])
    layout = laid_out(body, header_length)
    assert layout is not None
    other, _ = message(first + first.dtype.type(1), first[1:])
    lying = bytearray(shift) + other  # where no tensor is aligned, an array is a copy that is
    view = memoryview(lying)[shift:].toreadonly()
    assert layout.matches(view)
    read = layout.read(view)
    assert [array.dtype for array in read.values()] == [datatype.numpy_dtype] * 2
    np.testing.assert_array_equal(read["x0"], first + 1)
    np.testing.assert_array_equal(read["x1"], first[1:])
    assert all(array.flags.aligned and not array.flags.writeable for array in read.values())


def test_another_header_or_size_does_not_match() -> None:
    body, header_length = message(np.zeros((2, 3), np.float32))
    layout = laid_out(body, header_length)
    assert layout is not None
    assert layout.matches(body)
    assert not layout.matches(body + b"\0")
    assert not layout.matches(body[:-1])
    assert not layout.matches(message(np.zeros((3, 2), np.float32))[0])
    for position in range(header_length):
        changed = bytearray(body)
        changed[position] ^= 1
        assert not layout.matches(changed)


@pytest.mark.parametrize(
    ("arrays", "options"),
    [
        ([np.zeros(2, np.bool_)], {}),  # elements other than 0 and 1 are refused
        ([np.array(["a", "b"], object)], {}),
        ([np.zeros(2, np.complex64)], {}),
        ([np.zeros((0, 3), np.float32)], {}),
        ([np.zeros(2, np.float32), np.zeros(2, np.bool_)], {}),
        ([np.zeros(2, np.float32)], {"binary": False}),
    ],
)
def test_what_the_header_does_not_settle_has_no_layout(arrays: list[Array], options: dict[str, bool]) -> None:
    assert laid_out(*message(*arrays, **options)) is None


def test_types() -> None:
    assert is_plain(TensorType(Datatype.FP32, (2,)))
    assert not is_plain(TensorType(Datatype.BF16, (2,)))
    assert not is_plain(SequenceType(TensorType(Datatype.FP32)))


def test_shapes() -> None:
    array = np.zeros((2, 3), np.float32)
    assert shapes_of({"a": array, "b": array[0]}) == [(2, 3), (3,)]
    assert shapes_of({"a": array, "b": None}) is None
    assert shapes_of({"a": array.T}) is None
    assert shapes_of({"a": array[:0]}) is None
