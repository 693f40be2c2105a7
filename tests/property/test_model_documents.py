"""Documents: what is written reads back, and whatever is read gives a value or the documented error."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from confonnx.errors import InvalidInputError
from confonnx.models.documents import format_json, parse_json
from confonnx.models.tensor_files import read_npz, read_pb, write_npz
from confonnx.oip.datatypes import Datatype
from confonnx.oip.values import Value
from tests.support.onnx_backend import same_bits

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
NAMES = st.text(string.ascii_letters + " ./é", min_size=1, max_size=6)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """A tensor of any type; numbers are such that every type of their kind has them."""
    datatype = draw(st.sampled_from(list(Datatype)))
    shape = draw(SHAPES)
    size = int(np.prod(shape))
    if datatype is Datatype.BYTES:
        texts = draw(st.lists(TEXT, min_size=size, max_size=size))
        strings = np.empty(size, dtype=object)
        strings[:] = texts
        return strings.reshape(shape)
    elements = draw(
        st.lists(
            st.sampled_from([0.5, 1.0, 2.0] if _is_float(datatype) else [0, 1]), min_size=size, max_size=size
        )
    )
    return np.array(elements, np.float64).astype(datatype.numpy_dtype).reshape(shape)


def _is_float(datatype: Datatype) -> bool:
    return datatype.kind.name in ("FLOAT", "COMPLEX")


SCALARS = st.floats(width=32, allow_nan=False) | st.floats(allow_nan=False)
MAPS = st.dictionaries(TEXT, SCALARS, max_size=3) | st.dictionaries(
    st.integers(-(2**63), 2**63 - 1), SCALARS, max_size=3
)
VALUES = st.recursive(tensors() | MAPS | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_json_round_trip(values: dict[str, Value]) -> None:
    back = parse_json(format_json(values), source="x")
    assert set(back) == set(values)
    assert all(same_bits(back[name], value) for name, value in values.items())


@given(hnp.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint64]), SHAPES))
def test_json_keeps_every_number(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    back = parse_json(format_json({"x": array}), source="x")["x"]
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert np.array_equal(back, array, equal_nan=True)
    assert np.array_equal(np.signbit(back), np.signbit(array)) or bool(np.isnan(array).any())


@settings(deadline=None)
@given(st.dictionaries(NAMES, tensors(), max_size=3))
def test_archive_round_trip(values: dict[str, Value]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.npz"
        ends_in_nul = any(
            isinstance(value, np.ndarray)
            and any(str(text).endswith("\0") for text in value.reshape(-1).tolist())
            for value in values.values()
        )
        if not ends_in_nul:
            write_npz(path, values)
            back = read_npz(path)
            assert all(same_bits(back[name], value) for name, value in values.items())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["NaN", "int8", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "values", "shape", "keys", "x"]), inner, max_size=4)
        | st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    ["int8", "float32", "string", "bool", "complex64", "map", "sequence", "optional"]
                ),
                "values": inner,
            },
            optional={"shape": inner, "keys": inner},
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=2), JSON, max_size=2))
def test_any_json_gives_values_or_the_documented_error(document: dict[str, object]) -> None:
    try:
        values = parse_json(json.dumps(document), source="x")
    except InvalidInputError:
        return
    assert set(values) == set(document)


@given(st.binary(max_size=80))
@example(b'{"x": {"type": "int8", "values": [' + b"[" * 50)
def test_any_bytes_give_values_or_the_documented_error(data: bytes) -> None:
    try:
        values = parse_json(data, source="x")
    except InvalidInputError:
        return
    assert isinstance(values, dict)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_protobuf_gives_a_tensor_or_the_documented_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pb"
        path.write_bytes(data)
        try:
            value = read_pb([path], ["x"])["x"]
        except InvalidInputError:
            return
        assert isinstance(value, np.ndarray)
