from __future__ import annotations

import numpy as np
import onnx
import pytest

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import (
    Datatype,
    Kind,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    format_onnx_type,
    parse_onnx_type,
    type_depth,
    wire_datatype,
)

FP32 = TensorType(Datatype.FP32)
SCALAR = TensorType(Datatype.FP32, ())
ZIPMAP = SequenceType(MapType(Datatype.BYTES, SCALAR))


@pytest.mark.parametrize("datatype", Datatype, ids=lambda datatype: datatype.value)
def test_numbers_and_dtypes_are_onnx_s_own(datatype: Datatype) -> None:
    assert onnx.helper.tensor_dtype_to_np_dtype(datatype.onnx_type) == datatype.numpy_dtype
    assert Datatype.from_onnx(datatype.onnx_type) is datatype
    assert Datatype.from_wire(datatype.value) is datatype
    assert Datatype.from_numpy(datatype.numpy_dtype) is datatype


def test_every_onnx_type_is_there_but_the_two_that_onnxruntime_lacks() -> None:
    missing = set(onnx.TensorProto.DataType.values()) - {datatype.onnx_type for datatype in Datatype}
    names = {onnx.TensorProto.DataType.Name(number) for number in missing}
    assert names == {"UNDEFINED", "FLOAT6E2M3", "FLOAT6E3M2"}


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [
        ("<U5", "BYTES"),
        ("S3", "BYTES"),
        (np.dtypes.StringDType(), "BYTES"),
        (">f4", "FP32"),
        (np.longlong, "INT64"),
    ],
)
def test_numpy_s_other_spellings(dtype: str, datatype: str) -> None:
    assert Datatype.from_numpy(dtype).value == datatype


def test_unknown_types_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="datetime64"):
        Datatype.from_numpy("datetime64[s]")
    with pytest.raises(OipError, match="27 is not supported"):
        Datatype.from_onnx(27)
    with pytest.raises(OipError, match="'FP33'; known are BOOL"):
        Datatype.from_wire("FP33")


def test_kinds() -> None:
    assert Datatype.UINT2.kind is Kind.INTEGER
    assert Datatype.FP8_E8M0.kind is Kind.FLOAT
    assert Datatype.BYTES.bits is None


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("tensor(float)", FP32),
        ("tensor(float8e4m3fnuz)", TensorType(Datatype.FP8_E4M3FNUZ)),
        ("seq(tensor(string))", SequenceType(TensorType(Datatype.BYTES))),
        ("seq(map(string,tensor(float)))", ZIPMAP),
        ("map(int64,tensor(double))", MapType(Datatype.INT64, TensorType(Datatype.FP64, ()))),
        ("map(int64,seq(tensor(float)))", MapType(Datatype.INT64, SequenceType(FP32))),
        ("map(int64,map(string,tensor(float)))", MapType(Datatype.INT64, MapType(Datatype.BYTES, SCALAR))),
        ("optional(seq(tensor(int64)))", OptionalType(SequenceType(TensorType(Datatype.INT64)))),
    ],
)
def test_onnx_types_there_and_back(text: str, type_: TensorType) -> None:
    assert parse_onnx_type(text) == type_
    assert format_onnx_type(type_) == text


def test_shapes_of_onnx_types() -> None:
    assert parse_onnx_type("tensor(float)", ["N", None, 3, -1, 0, ""]) == TensorType(
        Datatype.FP32, ("N", None, 3, None, 0, None)
    )
    assert parse_onnx_type("optional( tensor(float) )", [2]) == OptionalType(TensorType(Datatype.FP32, (2,)))
    assert parse_onnx_type("seq(tensor(float))", [2]) == SequenceType(FP32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensor(float", "not an ONNX type"),
        ("float", "not an ONNX type"),
        ("", "not an ONNX type"),
        ("tensor(float6)", "'float6' is not supported"),
        ("sparse_tensor(float)", "'sparse_tensor' is not supported"),
        ("map(string)", "not an ONNX type"),
        ("map(float,tensor(float))", "keys of a map are INT64 or BYTES, not FP32"),
        ("map(string,tensor(bfloat16))", "scalars of a standard type"),
        ("map(string,tensor(float8e5m2))", "scalars of a standard type"),
        ("map(string,optional(tensor(float)))", "cannot be optional"),
        ("optional(optional(tensor(float)))", "cannot hold an optional"),
        ("seq(" * 17 + "tensor(float)" + ")" * 17, "more than 16 deep"),
    ],
)
def test_bad_onnx_types(text: str, message: str) -> None:
    with pytest.raises(OipError, match=message):
        parse_onnx_type(text)


def test_a_map_s_tensor_is_a_scalar() -> None:
    with pytest.raises(OipError, match="scalars"):
        MapType(Datatype.BYTES, FP32)


def test_depth_and_wire_name() -> None:
    assert [type_depth(type_) for type_ in (FP32, ZIPMAP, OptionalType(ZIPMAP))] == [1, 3, 4]
    assert wire_datatype(FP32) == "FP32"
    assert [wire_datatype(type_) for type_ in (ZIPMAP, ZIPMAP.element, OptionalType(FP32))] == [
        "SEQUENCE", "MAP", "OPTIONAL",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "document"),
    [
        (
            ValueSpec("x", TensorType(Datatype.FP32, ("N", None, 4))),
            {"name": "x", "datatype": "FP32", "shape": [-1, -1, 4], "dims": ["N", None, None]},
        ),
        (ValueSpec("x", SCALAR), {"name": "x", "datatype": "FP32", "shape": []}),
        (
            ValueSpec("x", TensorType(Datatype.INT4, (None,)), optional=True),
            {"name": "x", "datatype": "INT4", "shape": [-1], "optional": True},
        ),
        (ValueSpec("x", FP32), {"name": "x", "datatype": "FP32", "shape": [-1], "unknown_rank": True}),
        (
            ValueSpec("p", ZIPMAP),
            {
                "name": "p",
                "datatype": "SEQUENCE",
                "shape": [-1],
                "element": {
                    "datatype": "MAP",
                    "shape": [-1],
                    "key": "BYTES",
                    "value": {"datatype": "FP32", "shape": []},
                },
            },
        ),
        (
            ValueSpec("o", OptionalType(SCALAR)),
            {
                "name": "o",
                "datatype": "OPTIONAL",
                "shape": [-1],
                "element": {"datatype": "FP32", "shape": []},
            },
        ),
    ],
)
def test_specs_there_and_back(spec: ValueSpec, document: object) -> None:
    assert spec.to_json() == document
    assert ValueSpec.from_json(document) == spec


def test_metadata_of_other_servers_has_more_members() -> None:
    document = {"name": "x", "datatype": "FP32", "shape": [-1, 3], "parameters": {"content_type": "np"}}
    assert ValueSpec.from_json(document) == ValueSpec("x", TensorType(Datatype.FP32, (None, 3)))


def _deep(levels: int) -> dict[str, object]:
    document: dict[str, object] = {"datatype": "FP32", "shape": []}
    for _ in range(levels):
        document = {"datatype": "SEQUENCE", "element": document}
    return {"name": "x", **document}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be a JSON object"),
        ({"datatype": "FP32", "shape": []}, "string 'name'"),
        ({"name": "x", "datatype": "FP32", "shape": [], "optional": 1}, "'optional' as true or false"),
        ({"name": "x", "datatype": "FP32"}, "'shape' as a list"),
        ({"name": "x", "datatype": 3, "shape": []}, "must be a string"),
        ({"name": "x", "datatype": "FP32", "shape": [-2]}, "must be -1 or a size"),
        ({"name": "x", "datatype": "FP32", "shape": [True]}, "must be -1 or a size"),
        ({"name": "x", "datatype": "FP32", "shape": [2**63]}, "must be -1 or a size"),
        ({"name": "x", "datatype": "FP32", "shape": [1], "dims": ["N"]}, "a name where 'shape' holds -1"),
        ({"name": "x", "datatype": "FP32", "shape": [-1], "dims": [1]}, "a name where 'shape' holds -1"),
        ({"name": "x", "datatype": "FP32", "shape": [-1], "dims": ["N", "M"]}, "as long as 'shape'"),
        ({"name": "x", "datatype": "FP32", "shape": [-1], "dims": "N"}, "as long as 'shape'"),
        ({"name": "x", "datatype": "SEQUENCE", "shape": [-1]}, "must be a JSON object"),
        ({"name": "x", "datatype": "MAP", "key": "FP32", "value": {"datatype": "FP32", "shape": []}}, "keys"),
        (_deep(16), "nested more than 16 deep"),
    ],
)
def test_bad_specs(document: object, message: str) -> None:
    with pytest.raises(OipError, match=message):
        ValueSpec.from_json(document)
