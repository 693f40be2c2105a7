"""Inference messages. The malformed ones are the cases that servers of this protocol have met before."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.binary import (
    Encoded,
    encode_infer_request,
    encode_infer_response,
    parse_header_length,
    parse_infer_request,
    parse_infer_response,
)
from confonnx.oip.datatypes import Datatype, Shape, TensorType, ValueSpec, parse_onnx_type
from confonnx.oip.entries import Parameter
from confonnx.oip.limits import OipLimits
from confonnx.oip.messages import InferInput, InferOutput, InferRequest, InferResponse, RequestedOutput
from confonnx.oip.values import Value
from tests.support.oip import same

LIMITS = OipLimits()
FLOATS = TensorType(Datatype.FP32)
ZIPMAP = "seq(map(string,tensor(float)))"


def body(document: object, *parts: bytes) -> tuple[bytes, int]:
    header = json.dumps(document).encode()
    return b"".join((header, *parts)), len(header)


def parse(document: object, *parts: bytes, limits: OipLimits = LIMITS) -> InferRequest:
    message, header_length = body(document, *parts)
    return parse_infer_request(message, header_length=header_length if parts else None, limits=limits)


def entry(datatype: str, shape: list[int], **members: object) -> dict[str, object]:
    return {"name": "x", "datatype": datatype, "shape": shape, **members}


def sized(datatype: str, shape: list[object], size: object) -> dict[str, object]:
    return {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def request_of(type_: str, value: Value) -> InferRequest:
    return InferRequest((InferInput("x", parse_onnx_type(type_), value),))


def reparse(encoded: Encoded) -> InferRequest:
    return parse_infer_request(b"".join(encoded.parts), header_length=encoded.header_length, limits=LIMITS)


# What other clients send


def test_a_tritonclient_binary_request() -> None:
    request = parse(
        {
            "id": "7",
            "inputs": [
                {"name": "a", "shape": [1, 2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
                {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
                {"name": "j", "shape": [1], "datatype": "FP32", "data": [0.5]},
                {"name": "e", "shape": [0], "datatype": "FP16", "parameters": {"binary_data_size": 0}},
            ],
            "outputs": [
                {"name": "o", "parameters": {"binary_data": True}},
                {"name": "p", "parameters": {"binary_data": False, "classification": 3}},
                {"name": "q"},
            ],
            "parameters": {"priority": 1, "custom": "kept"},
        },
        struct.pack("<2i", 1, -2),
        b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xa9",
    )
    values = {item.name: item.value for item in request.inputs}
    assert same(values["a"], np.array([[1, -2]], np.int32))
    assert same(values["s"], np.array(["a", "é"], object))
    assert same(values["j"], np.array([0.5], np.float32))
    assert same(values["e"], np.zeros(0, np.float16))
    assert request.inputs[0].type == TensorType(Datatype.INT32, (1, 2))
    assert request.id == "7"
    assert request.parameters == {"priority": 1, "custom": "kept"}
    assert [(output.name, output.binary) for output in request.outputs] == [
        ("o", True),
        ("p", False),
        ("q", None),
    ]
    assert request.outputs[1].parameters == {"classification": 3}


def test_a_tritonclient_json_request_with_binary_outputs() -> None:
    request = parse(
        {
            "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.0, 2.0, 3.0, 4.0]}],
            "parameters": {"binary_data_output": True},
        }
    )
    assert same(request.inputs[0].value, np.array([[1, 2], [3, 4]], np.float32))
    output = InferOutput("y", FLOATS, np.ones(2, np.float32))
    encoded = encode_infer_response(InferResponse("m", "1", (output,)), request)
    assert encoded.content_type == "application/octet-stream"
    assert encoded.header_length == len(encoded.parts[0])
    header = json.loads(bytes(encoded.parts[0]))
    assert header["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert "data" not in header["outputs"][0]


def test_an_mlserver_request_with_nulls_and_content_types() -> None:
    request = parse(
        {
            "id": None,
            "parameters": None,
            "inputs": [
                {
                    "name": "x",
                    "shape": [2, 1],
                    "datatype": "BYTES",
                    "parameters": {"content_type": "str", "headers": None},
                    "data": ["a", "b"],
                }
            ],
            "outputs": None,
        }
    )
    assert request.inputs[0].parameters == {"content_type": "str"}
    assert request.outputs == ()
    assert request.id is None


def test_the_example_of_the_specification() -> None:
    request = parse(
        {
            "id": "42",
            "inputs": [
                {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
                {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True]},
            ][:1],
            "outputs": [{"name": "output0"}],
        }
    )
    assert same(request.inputs[0].value, np.array([[1, 2], [3, 4]], np.uint32))


# Forms of a response


@pytest.mark.parametrize(
    ("own", "whole", "binary"),
    [
        (None, None, False), (None, True, True), (None, False, False), (True, None, True),
        (True, False, True),        (False, True, False),
    ],
)  # fmt: skip
def test_an_output_s_own_wish_wins(own: bool | None, whole: bool | None, binary: bool) -> None:
    parameters: dict[str, Parameter] = {} if whole is None else {"binary_data_output": whole}
    request = InferRequest((), (RequestedOutput("y", own),), id="i", parameters=parameters)
    output = InferOutput("y", FLOATS, np.array([1.5], np.float32), {"kept": "yes"})
    response = InferResponse("m", "3", (output,), parameters={"also": 1})
    encoded = encode_infer_response(response, request)
    assert (encoded.header_length is not None) is binary
    back = parse_infer_response(b"".join(encoded.parts), header_length=encoded.header_length, limits=LIMITS)
    assert (back.model_name, back.model_version, back.id) == ("m", "3", "i")
    assert back.parameters == {"also": 1}
    assert back.outputs[0].parameters == {"kept": "yes"}
    assert same(back.outputs[0].value, output.value)


def test_a_response_without_version_or_id() -> None:
    encoded = encode_infer_response(InferResponse("m", None, ()), InferRequest(()))
    assert encoded == Encoded("application/json", None, (b'{"model_name":"m","outputs":[]}',))
    back = parse_infer_response(encoded.parts[0], header_length=None, limits=LIMITS)
    assert (back.model_version, back.id, back.outputs) == (None, None, ())


# Our own requests


def test_a_binary_request_views_what_it_was_made_of() -> None:
    array = np.arange(1 << 16, dtype=np.float32).reshape(1 << 14, 4)  # a small one is copied
    request = InferRequest((InferInput("x", FLOATS, array, {"k": True}),), (RequestedOutput("y"),), id="1")
    encoded = encode_infer_request(request)
    assert encoded.header_length is not None
    assert encoded.header_length % 16 == 0
    assert np.shares_memory(np.frombuffer(encoded.parts[1], np.uint8), array)
    message = np.frombuffer(b"".join(encoded.parts), np.uint8)
    back = parse_infer_request(message.data, header_length=encoded.header_length, limits=LIMITS)
    value = back.inputs[0].value
    assert isinstance(value, np.ndarray)
    assert np.shares_memory(value, message)
    assert not value.flags.writeable
    assert back.inputs[0].parameters == {"k": True}
    assert back.parameters == {"binary_data_output": True}
    assert same(value, array)


def test_arrays_over_a_writable_body_are_read_only() -> None:
    encoded = encode_infer_request(request_of("tensor(float)", np.ones(4, np.float32)))
    message = bytearray(b"".join(encoded.parts))
    value = parse_infer_request(message, header_length=encoded.header_length, limits=LIMITS).inputs[0].value
    assert isinstance(value, np.ndarray)
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 2.0


def test_a_json_request_leaves_the_form_of_outputs_open() -> None:
    encoded = encode_infer_request(request_of("tensor(float)", np.ones(1, np.float32)), binary=False)
    assert encoded.content_type == "application/json"
    assert b"".join(encoded.parts) == b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1.0]}]}'


def test_values_do_not_show_in_repr() -> None:
    secret = np.array([1234.5], np.float32)
    request = InferRequest((InferInput("x", FLOATS, secret),))
    response = InferResponse("m", "1", (InferOutput("x", FLOATS, secret),))
    encoded = encode_infer_request(request, binary=False)
    assert "1234" not in repr(request) + repr(response) + repr(encoded)


# Sequences, maps, optionals

ONE = np.ones(1, np.float32)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("seq(tensor(float))", []),
        ("seq(tensor(float))", [ONE, np.zeros((2, 0), np.float32), np.array(2, np.float32)]),
        ("seq(tensor(string))", [np.array(["a", "é"], object)]),
        (ZIPMAP, [{"a": 0.25, "b": 0.75}, {}]),
        ("seq(map(int64,tensor(float)))", [{-1: 0.1 + 0.4}]),
        ("map(string,tensor(int64))", {"a": -1}),
        ("map(int64,tensor(string))", {3: "x", 2: "y"}),
        ("map(int64,seq(tensor(float)))", {1: [ONE, ONE], 2: []}),
        ("map(int64,map(string,tensor(double)))", {1: {"a": 0.1}, 2: {}}),
        ("optional(tensor(float))", None),
        ("optional(tensor(float))", ONE),
        ("optional(seq(tensor(float)))", [ONE]),
        ("optional(seq(tensor(float)))", []),
        ("seq(optional(tensor(float)))", [None, ONE]),
        ("seq(seq(seq(tensor(float))))", [[], [[], [ONE]]]),
    ],
)
def test_values_there_and_back(type_: str, value: Value, binary: bool) -> None:
    back = reparse(encode_infer_request(request_of(type_, value), binary=binary))
    assert back.inputs[0].type == parse_onnx_type(type_)
    assert same(back.inputs[0].value, value)
    assert back.inputs[0].parameters == {}


def test_the_form_of_a_zipmap() -> None:
    encoded = encode_infer_request(request_of(ZIPMAP, [{"a": 0.5}]), binary=False)
    assert json.loads(bytes(encoded.parts[0]))["inputs"] == [
        {
            "name": "x",
            "datatype": "SEQUENCE",
            "shape": [1],
            "parameters": {"onnx_type": ZIPMAP},
            "data": [
                {
                    "datatype": "MAP",
                    "shape": [1],
                    "data": [
                        {"datatype": "BYTES", "shape": [1], "data": ["a"]},
                        {"datatype": "FP32", "shape": [1], "data": [0.5]},
                    ],
                }
            ],
        }
    ]


def test_binary_parts_follow_depth_first() -> None:
    encoded = encode_infer_request(request_of(ZIPMAP, [{"a": 0.5}, {"b": 1.0}]))
    assert b"".join(encoded.parts[1:]) == (
        b"\x01\x00\x00\x00a" + struct.pack("<f", 0.5) + b"\x01\x00\x00\x00b" + struct.pack("<f", 1.0)
    )


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        ("tensor(float)", [1.0], "input 'x': expected an array of FP32, found list"),
        ("tensor(float)", np.zeros(1), "expected an array of float32 for FP32, found float64"),
        ("seq(tensor(float))", ONE, "expected a list for a sequence"),
        ("seq(tensor(float))", [ONE, None], r"input 'x'\[1\]: expected an array of FP32, found NoneType"),
        ("map(int64,tensor(float))", [], "expected a dict for a map"),
        ("map(int64,tensor(float))", {"a": 1.0}, "input 'x'.keys: expected INT64"),
    ],
)
def test_values_of_another_type_are_not_written(type_: str, value: Value, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        encode_infer_request(request_of(type_, value))


F = {"datatype": "FP32", "shape": [1], "data": [1]}
KEYS = {"datatype": "INT64", "shape": [1], "data": [1]}
SEQ = {"onnx_type": "seq(tensor(float))"}
MAP = {"onnx_type": "map(int64,tensor(float))"}
OPT = {"onnx_type": "optional(tensor(float))"}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (entry("SEQUENCE", [0], data=[]), "datatype SEQUENCE needs the parameter 'onnx_type'"),
        (entry("SEQUENCE", [0], data=[], parameters={"onnx_type": 1}), "needs the parameter"),
        (entry("SEQUENCE", [0], data=[], parameters={"onnx_type": "seq"}), "not an ONNX type"),
        (entry("SEQUENCE", [0], data=[], parameters=MAP), "expected datatype MAP, found 'SEQUENCE'"),
        (
            entry("SEQUENCE", [0], data=[], parameters={**SEQ, "binary_data_size": 0}),
            "has no 'binary_data_size'",
        ),
        (entry("SEQUENCE", [], data=[], parameters=SEQ), "one dimension, found 0"),
        (entry("SEQUENCE", [1, 1], data=[F], parameters=SEQ), "one dimension, found 2"),
        (entry("SEQUENCE", [-1], data=[F], parameters=SEQ), "negative dimension"),
        (entry("SEQUENCE", [2], data=[F], parameters=SEQ), r"shape \[2\] with 1 entries"),
        (entry("SEQUENCE", [1], parameters=SEQ), "data has another form than expected"),
        (entry("SEQUENCE", [1], data=[1], parameters=SEQ), "data has another form than expected"),
        (
            entry("SEQUENCE", [1], data=[{**F, "name": "y"}], parameters=SEQ),
            r"x'\[0\]: an inner entry has no name",
        ),
        (entry("SEQUENCE", [1], data=[{**F, "parameters": {"a": 1}}], parameters=SEQ), "no parameter but"),
        (
            entry("SEQUENCE", [1], data=[KEYS], parameters=SEQ),
            r"x'\[0\]: expected datatype FP32, found 'INT64'",
        ),
        (entry("MAP", [1], data=[KEYS], parameters=MAP), "the keys and the values, found 1 entries"),
        (entry("MAP", [1], data=[KEYS, KEYS], parameters=MAP), "x'.values: expected datatype FP32"),
        (entry("MAP", [1], data=[F, F], parameters=MAP), "x'.keys: expected datatype INT64"),
        (entry("MAP", [2], data=[KEYS, F], parameters=MAP), r"the keys of a MAP of shape \[2\]"),
        (entry("MAP", [1], data=[KEYS, {**F, "shape": [1, 1]}], parameters=MAP), "the values of a MAP"),
        (
            entry(
                "MAP",
                [2],
                data=[{**KEYS, "shape": [2], "data": [1, 1]}, {**F, "shape": [2], "data": [1, 2]}],
                parameters=MAP,
            ),
            "a key of the MAP is there twice",
        ),
        (
            entry(
                "MAP",
                [1],
                data=[KEYS, {"datatype": "SEQUENCE", "shape": [0], "data": []}],
                parameters={"onnx_type": "map(int64,seq(tensor(float)))"},
            ),
            "the values of a MAP",
        ),
        (entry("OPTIONAL", [2], data=[F, F], parameters=OPT), r"OPTIONAL is \[0\] or \[1\], found \[2\]"),
        (entry("OPTIONAL", [1], data=[], parameters=OPT), r"shape \[1\] with 0 entries"),
    ],
)
def test_malformed_values(item: dict[str, object], message: str) -> None:
    with pytest.raises(OipError, match=message):
        parse({"inputs": [item]})


def test_depth_is_limited() -> None:
    deep: Value = [[[ONE]]]
    message = b"".join(
        encode_infer_request(request_of("seq(seq(seq(tensor(float))))", deep), binary=False).parts
    )
    fits, tight = replace(LIMITS, max_depth=4), replace(LIMITS, max_depth=3)
    assert same(parse_infer_request(message, header_length=None, limits=fits).inputs[0].value, deep)
    with pytest.raises(OipError, match="nested more than the 3 levels"):
        parse_infer_request(message, header_length=None, limits=tight)


# Malformed messages


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "has another form than expected"),
        ({}, "missing required field `inputs`"),
        ({"inputs": {}}, "Expected `array`"),
        ({"inputs": [], "id": 7}, "Expected `str"),
        ({"inputs": [], "parameters": {"a": []}}, "got `array`"),
        (
            {"inputs": [], "parameters": {"binary_data_output": 1}},
            "'binary_data_output' must be true or false",
        ),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
            "must be true or false",
        ),
        ({"inputs": [], "outputs": [{}]}, "missing required field `name`"),
        ({"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}, "requested output 'y' is there twice"),
        ({"inputs": [entry("FP32", [1], data=[1])] * 2}, "input 'x' is there twice"),
        ({"inputs": [F]}, "without a name: the input at position 0"),
        ({"inputs": [{**F, "name": ""}]}, "without a name"),
        ({"inputs": [entry("FP99", [1], data=[1])]}, "unknown datatype 'FP99'"),
        ({"inputs": [{"name": "x", "shape": [1], "data": [1]}]}, "missing required field `datatype`"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, "missing required field `shape`"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1.0], "data": [1]}]}, "Expected `int`"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": 1, "data": [1]}]}, "Expected `array`"),
        ({"inputs": [entry("FP32", [-1], data=[1])]}, "negative dimension"),
        ({"inputs": [entry("FP32", [2**32, 2**32], data=[])]}, "more than the"),
        ({"inputs": [entry("FP32", [1] * 33, data=[1])]}, "33 dimensions, at most 32"),
        ({"inputs": [entry("FP32", [1])]}, "expected either 'data' or"),
        ({"inputs": [entry("FP32", [1], data=None)]}, "expected either 'data' or"),
        ({"inputs": [sized("FP32", [1], 4)]}, "in a message without a binary part"),
    ],
)
def test_malformed_json(document: object, message: str) -> None:
    with pytest.raises(OipError, match=message):
        parse(document)


@pytest.mark.parametrize(
    ("item", "part", "message"),
    [
        (sized("FP32", [1], 4), b"abc", "must be an integer from 0 to the 3 bytes left"),
        (sized("FP32", [1], -4), b"abcd", "must be an integer from 0"),
        (sized("FP32", [1], 2**64), b"abcd", "must be an integer from 0"),
        (sized("FP32", [1], True), b"a", "must be an integer from 0"),
        (sized("FP32", [1], 4.0), b"abcd", "must be an integer from 0"),
        (sized("FP32", [1], "4"), b"abcd", "must be an integer from 0"),
        (sized("FP32", [2], 4), b"abcd", r"FP32 of shape \[2\] takes 8 bytes, found 4"),
        (sized("FP32", [-1], 4), b"abcd", "negative dimension"),
        (sized("FP32", [-1, -1], 4), b"abcd", "negative dimension"),
        (sized("FP32", [2**30, 2**30, 4], 4), b"abcd", "more than the"),  # 2**64 bytes: 0 in 64 bits
        (sized("FP32", [2**62 + 1], 4), b"abcd", "more than the"),  # 4 bytes in 64 bits
        (sized("FP32", [2**70], 4), b"abcd", "more than the"),
        (sized("BYTES", [2**31], 4), b"abcd", "BYTES elements need at least"),
        (sized("BYTES", [2], 4), b"\x00\x00\x00\x00", "BYTES elements need at least"),
        (sized("BYTES", [1], 8), b"\x00" * 8, "4 bytes follow the last of 1 BYTES"),
        (sized("BYTES", [1], 5), b"\x01\x00\x00\x00\xff", "element 0 is not valid UTF-8"),
        (sized("FP32", [1], 4), b"abcdef", "2 bytes follow the last tensor"),
        ({**sized("FP32", [1], 4), "data": [1.0]}, b"abcd", "expected either 'data' or"),
        (entry("FP32", [1], data=[1]), b"abcd", "4 bytes follow the last tensor"),
    ],
)
def test_malformed_binary(item: dict[str, object], part: bytes, message: str) -> None:
    with pytest.raises(OipError, match=message):
        parse({"inputs": [item]}, part)


@pytest.mark.parametrize("header_length", [-1, 15, 2**64])
def test_a_header_length_out_of_range(header_length: int) -> None:
    with pytest.raises(
        OipError, match=f"inference-header-content-length is {header_length}, expected 1 to 14"
    ):
        parse_infer_request(b'{"inputs": []}', header_length=header_length, limits=LIMITS)


def test_a_header_that_is_cut_short() -> None:
    with pytest.raises(OipError, match="not valid JSON"):
        parse_infer_request(b'{"inputs": []}', header_length=13, limits=LIMITS)
    with pytest.raises(OipError, match="the body is empty"):
        parse_infer_request(b"", header_length=None, limits=LIMITS)


@pytest.mark.parametrize(
    "place", [b'{"inputs":%s}', b'{"inputs":[],"x":%s}', b'{"inputs":[{"name":"x","data":%s}]}']
)
def test_recursion_is_an_error_like_any_other(place: bytes) -> None:
    for nested in (b"[" * 200_000, b'{"a":' * 200_000, b"[" * 200_000 + b"]" * 200_000):
        with pytest.raises(OipError):
            parse_infer_request(place % nested, header_length=None, limits=LIMITS)


def test_two_outputs_of_a_response_with_one_name() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1]}
    message, _ = body({"model_name": "m", "outputs": [output, output]})
    with pytest.raises(OipError, match="output 'y' is there twice"):
        parse_infer_response(message, header_length=None, limits=LIMITS)


def test_limits_of_a_message() -> None:
    request = {"inputs": [{**F, "name": str(index)} for index in range(3)]}
    assert len(parse(request, limits=replace(LIMITS, max_tensors=3)).inputs) == 3
    with pytest.raises(OipError, match="more than the 2 inputs"):
        parse(request, limits=replace(LIMITS, max_tensors=2))
    with pytest.raises(OipError, match="more than the 3 tensors"):
        parse(
            {"inputs": [entry("SEQUENCE", [3], data=[F] * 3, parameters=SEQ)]},
            limits=replace(LIMITS, max_tensors=3),
        )
    with pytest.raises(OipError, match="bytes of JSON, at most 20 allowed"):
        parse(request, limits=replace(LIMITS, max_header_bytes=20))
    with pytest.raises(OipError, match="the id has 3 characters, at most 2"):
        parse({"inputs": [], "id": "abc"}, limits=replace(LIMITS, max_name_length=2))
    with pytest.raises(OipError, match="the name of the input at position 0 has 3 characters"):
        parse({"inputs": [{**F, "name": "abc"}]}, limits=replace(LIMITS, max_name_length=2))


# Raw requests


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def raw(data: bytes, type_: str, shape: Shape | None, limits: OipLimits = LIMITS) -> Value:
    spec = ValueSpec("x", parse_onnx_type(type_, shape))
    return parse_infer_request(data, header_length=0, limits=limits, raw_input=spec).inputs[0].value


def test_a_raw_request_is_the_one_input() -> None:
    expected = np.array([[1, 2], [3, 4]], np.float32)
    assert same(raw(FOUR, "tensor(float)", (2, 2)), expected)
    assert same(raw(FOUR, "tensor(float)", ("N", 2)), expected)
    assert same(raw(b"", "tensor(float)", ("N", 2)), np.zeros((0, 2), np.float32))


@pytest.mark.parametrize(
    ("data", "type_", "shape", "message"),
    [
        (b"abcde", "tensor(float)", ("N",), r"FP32 of shape \[1\] takes 4 bytes, found 5"),
        (b"abcd", "tensor(float)", (2,), r"FP32 of shape \[2\] takes 8 bytes, found 4"),
        (b"abcd", "tensor(float)", ("N", "M"), "more than one dimension"),
        (b"abcd", "tensor(float)", ("N", 0), "more than one dimension"),
        (b"abcd", "tensor(float)", None, "only a model with one input"),
        (b"abcd", "tensor(string)", (1,), "only a model with one input"),
        (b"abcd", "seq(tensor(float))", None, "only a model with one input"),
    ],
)
def test_bad_raw_requests(data: bytes, type_: str, shape: Shape | None, message: str) -> None:
    with pytest.raises(OipError, match=message):
        raw(data, type_, shape)


def test_a_raw_request_for_any_other_model() -> None:
    with pytest.raises(OipError, match=r"is 0 .*only a model with one input"):
        parse_infer_request(b"abcd", header_length=0, limits=LIMITS)
    with pytest.raises(OipError, match="more than the 2 elements"):
        raw(bytes(12), "tensor(float)", ("N",), replace(LIMITS, max_elements=2))


def test_the_header_length_field() -> None:
    assert parse_header_length(None) is None
    assert parse_header_length("0") == 0
    assert parse_header_length("1234") == 1234
    assert parse_header_length("9" * 18) == 10**18 - 1
    for text in ("", "x", "-1", "+1", " 1", "1_0", "\u0661", "9" * 19):
        with pytest.raises(OipError, match="is no number of bytes, expected 1 to 18 digits"):
            parse_header_length(text)
