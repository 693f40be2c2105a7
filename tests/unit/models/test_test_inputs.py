"""Test inputs: every type, every kind of dimension, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from confonnx.errors import ConfigurationError
from confonnx.models.schema import ModelSchema
from confonnx.models.test_inputs import create_test_inputs, varying_dims
from confonnx.oip.datatypes import (
    Datatype,
    Kind,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.values import Value, check_inputs
from tests.support.onnx_backend import same_bits

FP32 = Datatype.FP32


def schema(**types: ValueType) -> ModelSchema:
    return ModelSchema(tuple(ValueSpec(name, type_) for name, type_ in types.items()), (), 10, (), "")


def shape_of(value: Value) -> tuple[int, ...]:
    assert isinstance(value, np.ndarray)
    return value.shape


EVERYTHING = schema(
    **{datatype.name.lower(): TensorType(datatype, ("batch", 3)) for datatype in Datatype},
    scalar=TensorType(FP32, ()),
    any_rank=TensorType(Datatype.INT64, None),
    sequence=SequenceType(TensorType(Datatype.BF16, (2,))),
    records=SequenceType(MapType(Datatype.BYTES, TensorType(FP32, ()))),
    numbered=MapType(Datatype.INT64, TensorType(Datatype.BYTES, ())),
    lists=MapType(Datatype.INT64, SequenceType(TensorType(FP32, (1,)))),
    maybe=OptionalType(TensorType(FP32, ("batch",))),
)


def test_every_type_gets_a_value_that_fits_exactly() -> None:
    values = create_test_inputs(EVERYTHING, seed=1)
    checked = check_inputs(values, EVERYTHING.inputs, convert=False)
    assert list(checked) == [spec.name for spec in EVERYTHING.inputs]


@pytest.mark.parametrize("datatype", list(Datatype))
def test_values_are_of_the_documented_range(datatype: Datatype) -> None:
    array = create_test_inputs(schema(x=TensorType(datatype, (1000,))), seed=3)["x"]
    assert isinstance(array, np.ndarray)
    assert array.dtype == datatype.numpy_dtype
    match datatype.kind:
        case Kind.STRING:
            assert all(isinstance(text, str) and len(text) == 5 and text.isalpha() for text in array.tolist())
        case Kind.COMPLEX:
            assert 0 <= array.real.min() <= array.real.max() <= 1
            assert 0 <= array.imag.min() <= array.imag.max() <= 1
        case Kind.FLOAT:
            wide = array.astype(np.float64)
            assert wide.min() >= (0.5 if datatype is Datatype.FP8_E8M0 else 0)
            assert wide.max() <= 1 if datatype is Datatype.FP8_E8M0 else wide.max() < 1
        case Kind.BOOL | Kind.INTEGER:
            assert set(array.astype(np.int64).tolist()) == {0, 1}
    assert len(set(map(str, array.tolist()))) > 1, "random, not constant"


def test_the_same_seed_gives_the_same_values_and_another_gives_others() -> None:
    one, same, other = (create_test_inputs(EVERYTHING, seed=seed) for seed in (7, 7, 8))
    assert all(same_bits(one[name], same[name]) for name in one)
    assert not all(same_bits(one[name], other[name]) for name in one)


IMAGE = schema(image=TensorType(FP32, ("batch", None, 3)))


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ({}, (1, 1, 3)),
        ({"batch": 8}, (8, 1, 3)),
        ({"image:1": 5}, (1, 5, 3)),
        ({"batch": 8, "image:0": 2}, (2, 1, 3)),
        ({"batch": 0}, (0, 1, 3)),
    ],
)
def test_sizes_of_dimensions(dims: Mapping[str, int], shape: tuple[int, ...]) -> None:
    assert shape_of(create_test_inputs(IMAGE, dims=dims)["image"]) == shape


def test_one_symbol_has_one_size_in_all_inputs() -> None:
    both = schema(a=TensorType(FP32, ("n",)), b=OptionalType(TensorType(FP32, (2, "n"))))
    values = create_test_inputs(both, dims={"n": 4})
    assert (shape_of(values["a"]), shape_of(values["b"])) == ((4,), (2, 4))


@pytest.mark.parametrize("size", [0, 1, 5])
def test_entries_of_sequences_maps_and_vectors_of_unknown_rank(size: int) -> None:
    element = TensorType(FP32, ())
    parts = schema(s=SequenceType(element), m=MapType(Datatype.INT64, element), v=TensorType(FP32, None))
    values = create_test_inputs(parts, dims={"s:0": size, "m:0": size, "v:0": size})
    assert isinstance(values["s"], list)
    assert isinstance(values["m"], dict)
    assert (len(values["s"]), len(values["m"]), shape_of(values["v"])) == (size, size, (size,))


def test_inputs_with_a_default_are_left_out() -> None:
    spec = ValueSpec("w", TensorType(FP32, ("n",)), optional=True)
    assert create_test_inputs(ModelSchema((spec,), (), 10, (), "")) == {}


def test_an_input_of_optional_type_gets_a_value() -> None:
    spec = ValueSpec("o", OptionalType(TensorType(FP32, (2,))), optional=True)
    assert shape_of(create_test_inputs(ModelSchema((spec,), (), 10, (), ""))["o"]) == (2,)


@pytest.mark.parametrize(
    ("dims", "text"),
    [
        ({"btach": 8}, "no dimension 'btach'; did you mean 'batch'.*batch, image:0, image:1"),
        ({"image:2": 8}, "no dimension 'image:2'"),
        ({"batch": -1}, "'batch' is -1; expected 0 or more"),
        ({"batch": 2**31}, r"shape \[2147483648, 1, 3\], more than"),
    ],
)
def test_bad_sizes_are_explained(dims: Mapping[str, int], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        create_test_inputs(IMAGE, dims=dims)


def test_a_model_of_fixed_sizes_says_so() -> None:
    with pytest.raises(ConfigurationError, match="none: all sizes are fixed"):
        create_test_inputs(schema(x=TensorType(FP32, (2,))), dims={"batch": 1})


def test_what_varies_in_an_input() -> None:
    assert set(varying_dims(IMAGE.inputs[0])) == {"batch", "image:0", "image:1"}
