from __future__ import annotations

import math
import time

import msgspec
import numpy as np
import pytest

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import Array, Datatype
from confonnx.oip.json import decode_json, encode_json, tensor_from_json, tensor_to_json
from confonnx.oip.tensors import round_to
from tests.support.oip import same, sample


def parse(text: str, datatype: str, shape: tuple[int, ...]) -> Array:
    return tensor_from_json(text.encode(), Datatype(datatype), shape, math.prod(shape), "x")


@pytest.mark.parametrize("datatype", Datatype, ids=lambda datatype: datatype.value)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (0,), (2, 0, 3), (1, 2, 2)], ids=str)
def test_there_and_back_flat_and_nested(datatype: Datatype, shape: tuple[int, ...]) -> None:
    array = sample(datatype, shape)
    flat = encode_json(tensor_to_json(array, datatype))
    back = tensor_from_json(flat, datatype, shape, array.size)
    assert same(back, array)
    assert not back.flags.writeable
    wide = np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array
    assert same(tensor_from_json(encode_json(wide.tolist()), datatype, shape, array.size), array)


@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", np.float32), ("FP64", np.float64)])
def test_finite_numbers_keep_every_bit(datatype: str, dtype: type[np.float32 | np.float64]) -> None:
    info = np.finfo(dtype)
    extreme = [info.max, info.min, info.tiny, info.smallest_subnormal, -0.0, 0.1, 1 / 3, 2**24 + 1]
    array = np.array(extreme, info.dtype)
    text = encode_json(tensor_to_json(array, Datatype(datatype)))
    assert same(tensor_from_json(text, Datatype(datatype), array.shape, array.size), array)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16", "FP8_E5M2"])
def test_what_json_cannot_write_is_a_string(datatype: str) -> None:
    array = parse('["NaN", "Infinity", -1, "-Infinity"]', datatype, (4,))
    assert [str(float(number)) for number in array] == ["nan", "inf", "-1.0", "-inf"]
    assert tensor_to_json(array, Datatype(datatype)) == ["NaN", "Infinity", -1.0, "-Infinity"]


def test_a_signalling_nan_raises_no_warning() -> None:
    for bits, datatype in (
        (np.array([0x7F800001], np.uint32), "FP32"),
        (np.array([0x7C01], np.uint16), "FP16"),
    ):
        array = bits.view(Datatype(datatype).numpy_dtype)
        assert tensor_to_json(array, Datatype(datatype)) == ["NaN"]
        assert np.isnan(round_to(array, Datatype.FP8_E5M2, "x").astype(np.float64)).all()


def test_complex_is_pairs() -> None:
    assert parse('[[1, 2], ["NaN", -0.0]]', "COMPLEX64", (2,))[0] == 1 + 2j
    assert parse("[[[1, 2]], [[3, 4]]]", "COMPLEX128", (2, 1)).tolist() == [[1 + 2j], [3 + 4j]]
    assert parse("[1, 2]", "COMPLEX128", ()).item() == 1 + 2j
    array = np.array([complex(-0.0, math.inf)], np.complex64)
    assert encode_json(tensor_to_json(array, Datatype.COMPLEX64)) == b'[[-0.0,"Infinity"]]'


def test_a_scalar_may_stand_alone() -> None:
    assert parse("5", "INT4", ()).item() == 5
    assert parse(" [ 5 ] ", "FP32", ()).item() == 5.0
    assert parse('"a"', "BYTES", ()).item() == "a"


def test_space_is_skipped_fast() -> None:
    text = "[" + " " * 30_000_000 + "1]"
    started = time.process_time()
    assert parse(text, "INT8", (1,)).item() == 1
    assert time.process_time() - started < 1.0  # a tenth of that here; a loop in Python takes more than two


def test_elements_that_look_like_structure() -> None:
    assert parse('["[[", "]", "null", "\\u0000,"]', "BYTES", (2, 2)).tolist() == [
        ["[[", "]"],
        ["null", "\0,"],
    ]


@pytest.mark.parametrize(
    ("datatype", "bounds"),
    [
        ("UINT8", (0, 255)), ("INT8", (-128, 127)), ("UINT16", (0, 65535)), ("INT32", (-(2**31), 2**31 - 1)),
        ("INT64", (-(2**63), 2**63 - 1)), ("UINT64", (0, 2**64 - 1)), ("INT4", (-8, 7)), ("UINT4", (0, 15)),
        ("INT2", (-2, 1)), ("UINT2", (0, 3)),
    ],
)  # fmt: skip
def test_integers_do_not_wrap(datatype: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    assert [int(number) for number in parse(f"[{low}, {high}]", datatype, (2,))] == [low, high]
    for outside in (low - 1, high + 1, 10**30):
        with pytest.raises(InvalidInputError, match=f"x: an integer is out of the range of {datatype}"):
            parse(f"[0, {outside}]", datatype, (2,))


@pytest.mark.parametrize(
    ("text", "datatype", "shape", "message"),
    [
        ("[1.0]", "INT32", (1,), "an element of data is not an integer, as INT32 needs"),
        ("[1e2]", "INT32", (1,), "not an integer"),
        ("[true]", "INT32", (1,), "not an integer"),
        ("[1]", "BOOL", (1,), "not a truth value"),
        ('["1"]', "FP32", (1,), "not a floating point number"),
        ('["nan"]', "FP32", (1,), "not a floating point number"),
        ("[null]", "FP32", (1,), "not a floating point number"),
        ("[1e999]", "FP64", (1,), "not a floating point number"),
        ("[[1, 2, 3]]", "COMPLEX64", (1,), "not a complex number"),
        ("[1]", "BYTES", (1,), "not a string"),
        ("[1, 2, 3]", "FP32", (2,), r"data has 3 elements, expected shape \[2\] \(2 elements\)"),
        ("[1]", "FP32", (2, 2), "data has 1 elements"),
        ("[[1, 2], [3]]", "FP32", (2, 2), "nested unevenly"),
        ("[[1, 2], 3]", "FP32", (2, 2), "the nesting is uneven"),
        ('[["a", "b"], ["c"]]', "BYTES", (2, 2), "nested unevenly|data has shape"),
        ('[["a"], ["b", "c"]]', "BYTES", (2, 1), "nested unevenly|data has shape"),
        ("[[1, 2, 3], [4, 5, 6]]", "FP32", (3, 2), r"data has shape \[2, 3\], expected shape \[3, 2\]"),
        ("[[1], [2]]", "FP32", (2,), "must be a flat list, or nested 1 deep"),
        ("[[[1]]]", "FP32", (1, 1), "must be a flat list, or nested 2 deep"),
        ("1", "FP32", (1,), "must be a flat list"),
        ("[]", "FP32", (1,), "0 elements"),
        ("{}", "FP32", (1,), "must be a flat list"),
        ("[{}]", "FP32", (1,), "not a floating point number"),
        ("[1]", "FP32", (0,), r"holds elements, but shape \[0\] has none"),
        ('"a"', "FP32", (0,), "holds elements"),
    ],
)
def test_bad_data(text: str, datatype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(OipError, match=f"x: .*({message})"):
        parse(text, datatype, shape)


def test_a_double_beyond_the_type_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no counterpart in FP32"):
        parse("[1e39]", "FP32", (1,))


def test_errors_do_not_show_elements() -> None:
    for text, datatype in (('["s3cret"]', "FP32"), ("[123454321]", "INT8"), ('["s3cret\\ud800"]', "BYTES")):
        with pytest.raises((OipError, InvalidInputError)) as caught:
            parse(text, datatype, (1,))
        assert "s3cret" not in str(caught.value)
        assert "12345" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_only_strings_are_written_as_strings() -> None:
    array = np.array([b"a"], object)
    with pytest.raises(InvalidInputError, match="element 0 is a bytes"):
        tensor_to_json(array, Datatype.BYTES)


def test_decoding_is_strict() -> None:
    decoder = msgspec.json.Decoder(dict[str, int])
    assert decode_json(decoder, b'{"a": 1}', "it") == {"a": 1}
    for text in (b"", b'{"a": NaN}', b'{"a": 1} x', b"\xff", b'{"\xff": 1}', b'{"a": 01}', b'{"\\ud800": 1}'):
        with pytest.raises(OipError, match="it is not valid JSON"):
            decode_json(decoder, text, "it")
    with pytest.raises(OipError, match="it has another form than expected: Expected `int`, got `str`"):
        decode_json(decoder, b'{"a": "1"}', "it")
    with pytest.raises(OipError, match="it is nested too deep"):
        decode_json(msgspec.json.Decoder(), b"[" * 100_000, "it")


def test_the_last_of_two_members_wins_as_documented() -> None:
    decoder = msgspec.json.Decoder(dict[str, int])
    assert decode_json(decoder, b'{"a": 1, "a": 2}', "it") == {"a": 2}
