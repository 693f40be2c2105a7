from __future__ import annotations

import enum
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from confonnx.errors import InvalidInputError
from confonnx.oip.datatypes import (
    Datatype,
    MapType,
    OptionalType,
    SequenceType,
    Shape,
    TensorType,
    ValueSpec,
    ValueType,
    parse_onnx_type,
)
from confonnx.oip.values import (
    Value,
    check_inputs,
    coerce,
    expect_list,
    expect_map,
    map_arrays,
    map_from_arrays,
    size_conflict,
)
from tests.support.oip import same, sample


class Colour(enum.IntEnum):
    RED = 3


class ArrayLike:
    """What tensors of other libraries offer."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.array([1.5, 2.5])


def tensor(datatype: str, shape: Shape | None = None) -> ValueSpec:
    return ValueSpec("x", TensorType(Datatype(datatype), shape))


@pytest.mark.parametrize("datatype", Datatype, ids=lambda datatype: datatype.value)
def test_what_fits_is_not_touched(datatype: Datatype) -> None:
    array = sample(datatype, (2, 3))
    spec = ValueSpec("x", TensorType(datatype, (2, "N")))
    assert same(coerce(array, spec), array)
    assert coerce(array, spec, convert=False) is array


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        ([1, 2], "FP32", [1.0, 2.0]),
        ([1, 2.5], "FP64", [1.0, 2.5]),
        (3, "INT64", 3),
        (3.5, "FP16", 3.5),
        (True, "BOOL", True),
        ([[True], [False]], "BOOL", [[True], [False]]),
        ([2**64 - 1], "UINT64", [2**64 - 1]),
        ([-8, 7], "INT4", [-8, 7]),
        ([1, 2j], "COMPLEX64", [1, 2j]),
        ([1, 2], "COMPLEX64", [1, 2]),
        ([10**18], "FP32", [float(np.float32(10**18))]),
        ([Colour.RED, 1], "INT8", [3, 1]),
        ([np.float32(0.5), 1], "FP32", [0.5, 1.0]),
        ([np.int64(5)], "UINT8", [5]),
        ([[np.uint64(2**63)], [1]], "UINT64", [[2**63], [1]]),
        ((1, 2), "BF16", [1.0, 2.0]),
        (range(3), "INT32", [0, 1, 2]),
        ([], "INT32", []),
        ([[], []], "FP32", [[], []]),
        ([np.zeros(2), np.ones(2)], "FP32", [[0.0, 0.0], [1.0, 1.0]]),
        (np.array([0.1]), "FP32", [float(np.float32(0.1))]),
        (np.array([1, 2], np.int64), "FP32", [1.0, 2.0]),
        (np.array([1, 2], np.int64), "UINT8", [1, 2]),
        (np.array([2**63], np.uint64), "UINT64", [2**63]),
        (np.array([1.5, 2], ">f4"), "FP32", [1.5, 2.0]),
        (np.array([1, 2], Datatype.INT4.numpy_dtype), "INT64", [1, 2]),
        (np.array([1, 2], Datatype.BF16.numpy_dtype), "FP32", [1.0, 2.0]),
        (np.array([1, 2.5], object), "FP32", [1.0, 2.5]),
        (np.array([], np.float64), "INT64", None),
        (np.float64(2.5), "FP32", 2.5),
        (ArrayLike(), "FP32", [1.5, 2.5]),
        ("é", "BYTES", "é"),
        (b"\xc3\xa9", "BYTES", "é"),
        (["a", b"b", np.str_("c"), np.bytes_(b"d")], "BYTES", ["a", "b", "c", "d"]),
        (np.array(["ab", "c"]), "BYTES", ["ab", "c"]),
        (np.array([b"ab", b"c"]), "BYTES", ["ab", "c"]),
        (np.array(["ab", "c"], np.dtypes.StringDType()), "BYTES", ["ab", "c"]),
        (np.array([["ab"]], object), "BYTES", [["ab"]]),
    ],
)
def test_conversions(value: object, datatype: str, expected: object) -> None:
    spec = tensor(datatype)
    if expected is None:
        with pytest.raises(InvalidInputError, match="found an array of FP64"):
            coerce(value, spec)
        return
    array = coerce(value, spec)
    assert isinstance(array, np.ndarray)
    assert array.dtype == Datatype(datatype).numpy_dtype
    assert array.tolist() == expected
    if datatype == "BYTES":
        assert {type(element) for element in array.reshape(-1).tolist()} == {str}


@pytest.mark.parametrize(
    ("value", "datatype", "message"),
    [
        ([1.0], "INT64", "expected INT64, found an array of FP64 with shape [1]; round it yourself"),
        (np.zeros(2), "INT8", "expected INT8, found an array of FP64 with shape [2]; round it yourself"),
        ([1], "BOOL", "expected BOOL, found an array of INT64 with shape [1]; convert it yourself"),
        ([True], "FP32", "expected FP32, found an array of BOOL"),
        ([True, 1], "INT64", "mixes kinds"),
        (["1"], "FP32", "expected FP32, found an array of BYTES"),
        ([1], "BYTES", "expected BYTES, found an array of INT64"),
        (["a", 1], "BYTES", "mixes kinds"),
        ([1j], "FP32", "expected FP32, found an array of COMPLEX128"),
        (None, "FP32", "expected FP32, found a NoneType"),
        ({"a": 1}, "FP32", "expected FP32, found a dict"),
        ({1, 2}, "FP32", "expected FP32, found a set"),
        ([None], "FP32", "expected elements of one kind for FP32"),
        ([[1, 2], [3]], "FP32", "ragged"),
        ([np.zeros(2), np.zeros(3)], "FP32", "nested unevenly"),
        (object(), "FP32", "expected elements of one kind"),
        ([np.datetime64("2026-01-01")], "FP32", "expected elements of one kind"),
        (np.array(["2026-01-01"], "datetime64[D]"), "INT64", "found an array of datetime64[D]"),
        ([300], "UINT8", "an integer is out of the range of UINT8, 0 to 255"),
        ([-1], "UINT64", "out of the range of UINT64"),
        ([2**63], "INT64", "out of the range of INT64"),
        ([np.int64(-1)], "UINT64", "out of the range of UINT64"),
        ([np.uint64(2**63)], "INT64", "out of the range of INT64"),
        ([10**400], "FP64", "out of the range of FP64"),
        ([10**400, 0.5], "FP64", "out of the range of FP64"),
        ([10**400, 1j], "COMPLEX64", "out of the range of COMPLEX64"),
        (np.ma.MaskedArray([1.0, 2.0], [True, False]), "FP64", "a masked array; say what stands for"),
        (np.array([-1]), "UINT64", "out of the range of UINT64, 0 to 18446744073709551615"),
        (np.array([2**63], np.uint64), "INT64", "out of the range of INT64"),
        (np.array([8]), "INT4", "out of the range of INT4, -8 to 7"),
        (np.array([-3]), "INT2", "out of the range of INT2, -2 to 1"),
        ([1e39], "FP32", "no counterpart in FP32"),
        ([70000], "FP16", "no counterpart in FP16"),
        ([np.longdouble(1)], "FP32", "expected elements of one kind"),
        (np.array([1], np.longdouble), "FP64", "found an array of "),
        (b"\xff", "BYTES", "element 0 is not valid UTF-8"),
        (np.array(["a", 1], object), "BYTES", "mixes kinds"),
    ],
)
def test_refusals(value: object, datatype: str, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidInputError) as caught:
            coerce(value, tensor(datatype))
    assert str(caught.value).startswith("input 'x'")
    assert message in str(caught.value)


def test_numpy_strings_that_are_missing_are_no_strings() -> None:
    array = np.array(["a", None], np.dtypes.StringDType(na_object=None))
    with pytest.raises(InvalidInputError, match="element 1 is a NoneType, expected a str"):
        coerce(array, tensor("BYTES"))


@pytest.mark.parametrize(
    ("shape", "declared", "found"),
    [
        ((2, 3), (2, 4), "expected shape [2, 4], found [2, 3]"),
        ((2, 3), ("N", None, 3), "expected shape [N, ?, 3], found [2, 3]"),
        ((1,), (), "expected shape [], found [1]"),
        ((), ("N",), "expected shape [N], found []"),
    ],
)
def test_shapes_are_checked(shape: tuple[int, ...], declared: Shape, found: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        coerce(np.zeros(shape, np.float32), tensor("FP32", declared))
    assert found in str(caught.value)


def test_any_size_fits_a_dimension_that_varies() -> None:
    array = np.zeros((0, 7), np.float32)
    assert coerce(array, tensor("FP32", ("N", None))) is array
    assert coerce(array, tensor("FP32", None)) is array


def test_mlserver_s_column_of_strings_is_explained() -> None:
    column = np.array([["a"], ["b"]], object)
    with pytest.raises(InvalidInputError, match=r"expected shape \[N\], found \[2, 1\]; MLServer's codecs"):
        coerce(column, tensor("BYTES", ("N",)), convert=False)


def test_without_conversion_another_dtype_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"expected FP32, found an array of FP64 with shape \[2\]"):
        coerce(np.zeros(2), tensor("FP32"), convert=False)
    with pytest.raises(InvalidInputError, match="expected FP32, found a list"):
        coerce([1.0], tensor("FP32"), convert=False)
    strings = np.array(["a"], object)
    assert coerce(strings, tensor("BYTES"), convert=False) is strings


def spec(text: str) -> ValueSpec:
    return ValueSpec("x", parse_onnx_type(text))


def test_sequences_maps_and_optionals() -> None:
    sequence = coerce(([1, 2], np.zeros((1, 1))), spec("seq(tensor(float))"))
    assert same(sequence, [np.array([1, 2], np.float32), np.zeros((1, 1), np.float32)])
    maps = coerce([{"a": 1, b"b": 0.1}], spec("seq(map(string,tensor(float)))"))
    assert same(maps, [{"a": 1.0, "b": float(np.float32(0.1))}])
    assert same(coerce({1: "x"}, spec("map(int64,tensor(string))")), {1: "x"})
    assert same(coerce({1: {"a": 2}}, spec("map(int64,map(string,tensor(int64)))")), {1: {"a": 2}})
    assert same(coerce({}, spec("map(int64,tensor(float))")), {})
    assert coerce(None, spec("optional(tensor(float))")) is None
    assert same(coerce([1], spec("optional(tensor(float))")), np.ones(1, np.float32))


@pytest.mark.parametrize(
    ("value", "type_", "message"),
    [
        (
            np.zeros(2),
            "seq(tensor(float))",
            "input 'x': expected a list for a sequence, found an array of FP64",
        ),
        ([[1], ["a"]], "seq(tensor(float))", r"input 'x'\[1\]: expected FP32, found an array of BYTES"),
        ([1], "map(int64,tensor(float))", "expected a dict for a map, found a list"),
        ({"a": 1}, "map(int64,tensor(float))", "input 'x'.keys: expected INT64, found an array of BYTES"),
        ({1: "a"}, "map(int64,tensor(float))", "input 'x'.values: expected FP32, found an array of BYTES"),
        ({1: [1, 2]}, "map(int64,tensor(float))", "input 'x'.values: expected shape"),
        (
            {1: 1, "a": 1},
            "map(int64,tensor(float))",
            "input 'x'.keys: expected elements of one kind",
        ),
        ({1: [["a"]]}, "map(int64,seq(tensor(float)))", r"input 'x'.values\[0\]"),
    ],
)
def test_bad_containers(value: object, type_: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        coerce(value, spec(type_))


def test_keys_that_become_equal_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="two keys of the map are equal as BYTES"):
        coerce({"a": 1, b"a": 2}, spec("map(string,tensor(float))"))


def test_maps_as_arrays() -> None:
    type_ = MapType(Datatype.INT64, TensorType(Datatype.FP32, ()))
    keys, values = map_arrays({1: 0.5, 2: 1.5}, type_, "m")
    assert isinstance(values, np.ndarray)
    assert same(map_from_arrays(keys, values, 2, "m"), {1: 0.5, 2: 1.5})
    nested = MapType(Datatype.INT64, SequenceType(TensorType(Datatype.FP32)))
    array = np.ones(2, np.float32)
    assert same(map_arrays({1: [array]}, nested, "m")[1], [[array]])


@pytest.mark.parametrize("value", [1, "ab", None, {"a": 1}])
def test_what_is_no_list(value: object) -> None:
    with pytest.raises(InvalidInputError, match="m: expected a list"):
        expect_list(value, "m")


def test_what_is_no_dict() -> None:
    with pytest.raises(InvalidInputError, match="m: expected a dict"):
        expect_map([("a", 1)], "m")


FLOATS: ValueType = TensorType(Datatype.FP32, ("N",))
SPECS = (ValueSpec("a", FLOATS), ValueSpec("b", FLOATS, optional=True), ValueSpec("c", OptionalType(FLOATS)))


def test_inputs_come_in_the_order_of_the_model() -> None:
    checked = check_inputs({"c": None, "a": [1]}, SPECS)
    assert list(checked) == ["a", "c"]
    assert same(checked["a"], np.ones(1, np.float32))


def test_missing_and_extra_inputs_are_named() -> None:
    with pytest.raises(InvalidInputError, match="missing input 'a', 'c'; expected: a, b, c"):
        check_inputs({"b": [1]}, SPECS)
    with pytest.raises(InvalidInputError, match="the model has no input 'd'; expected: a, b, c"):
        check_inputs({"a": [1], "c": None, "d": 1}, SPECS)
    with pytest.raises(InvalidInputError, match="no input 'd'; expected: no inputs"):
        check_inputs({"d": 1}, ())
    assert check_inputs({}, ()) == {}


@pytest.mark.parametrize(
    ("shapes", "sizes", "axes", "found"),
    [
        ([("N",), ("N",)], [(2,), (3,)], "axis 0 of input 'a' and axis 0 of input 'b' both 'N'", "2 and 3"),
        (
            [("N", "M"), (4, "M")],
            [(2, 5), (4, 6)],
            "axis 1 of input 'a' and axis 1 of input 'b' both 'M'",
            "5 and 6",
        ),
        ([("N", "N")], [(2, 3)], "axis 0 of input 'a' and axis 1 of input 'a' both 'N'", "2 and 3"),
        ([("N",), (), ("N",)], [(2,), (), (1,)], "input 'a' and axis 0 of input 'c' both 'N'", "2 and 1"),
    ],
)
def test_one_symbol_of_two_sizes(
    shapes: list[Shape], sizes: list[tuple[int, ...]], axes: str, found: str
) -> None:
    conflict = size_conflict(*_of_shapes(shapes, sizes))
    assert conflict is not None
    assert axes in conflict
    assert conflict.endswith(f"found {found}")


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        ([("N",), ("N",)], [(2,), (2,)]),
        ([("N",), ("M",)], [(2,), (3,)]),
        ([(None,), (None,)], [(2,), (3,)]),
        ([None, ("N",)], [(2,), (3,)]),
    ],
)
def test_every_symbol_of_one_size(shapes: list[Shape | None], sizes: list[tuple[int, ...]]) -> None:
    assert size_conflict(*_of_shapes(shapes, sizes)) is None


def _of_shapes(
    shapes: Sequence[Shape | None], sizes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, Value], list[ValueSpec]]:
    """Inputs a, b, … of these sizes, and what the model says of them."""
    names = "abc"[: len(shapes)]
    specs = [
        ValueSpec(name, TensorType(Datatype.FP32, shape)) for name, shape in zip(names, shapes, strict=True)
    ]
    return {name: np.ones(size, np.float32) for name, size in zip(names, sizes, strict=True)}, specs


def test_symbols_of_optionals_count_and_what_is_left_out_does_not() -> None:
    two, three = np.ones(2, np.float32), np.ones(3, np.float32)
    conflict = size_conflict({"a": two, "c": three}, SPECS)
    assert conflict is not None
    assert "input 'c'" in conflict
    assert size_conflict({"a": two, "c": None}, SPECS) is None
    sequence = ValueSpec("s", SequenceType(FLOATS))
    assert size_conflict({"a": two, "s": [three]}, (*SPECS, sequence)) is None


def test_a_server_converts_nothing() -> None:
    with pytest.raises(
        InvalidInputError, match=r"input 'a': expected FP32, found an array of INT32 with shape \[1\]"
    ):
        check_inputs({"a": np.ones(1, np.int32), "c": None}, SPECS, convert=False)


def test_errors_do_not_show_elements() -> None:
    for value, datatype in (
        ([987654], "INT8"),
        ([b"s3cret\xff"], "BYTES"),
        (["s3cret"], "FP32"),
        ([1e38], "FP16"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            coerce(value, tensor(datatype))
        assert "s3cret" not in str(caught.value)
        assert "98765" not in str(caught.value)
        assert "38" not in str(caught.value)
        assert caught.value.__cause__ is None
