"""Values that a model accepts, made from its schema alone.

They are meant to make a model run, not to mean anything:

* floating point numbers lie in [0, 1) (complex ones in each part), FP8_E8M0 in [0.5, 1] because it has no
zero;
* integers are 0 or 1, so that one used as an index, a class or a token id is in range;
* truth values are random, strings are short words of lower-case letters;
* a dimension that varies is what ``dims`` says, or 1; a tensor of unknown rank is a vector;
* a sequence and a map have two entries (or what ``dims`` says), an optional holds a value;
* inputs that have a default are left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import assert_never

import numpy as np

from confonnx.errors import ConfigurationError
from confonnx.models.schema import ModelSchema
from confonnx.oip.datatypes import (
    Array,
    Datatype,
    Kind,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.values import Scalar, Value

_ENTRIES = 2
_MAX_ELEMENTS = 2**31  # a tensor beyond it is a mistyped dimension
_ALPHABET = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def create_test_inputs(
    schema: ModelSchema, *, dims: Mapping[str, int] | None = None, seed: int | None = None
) -> dict[str, Value]:
    """One value for each input that has no default.

    ``dims`` gives the size of dimensions by symbolic name (``batch``), or by input and position
    (``image:0``), which also names the nameless and wins; ``name:0`` of a sequence or map is its number of
    entries. The same ``seed`` gives the same values. Raises ConfigurationError for a dimension that the
    model does not have or a bad size.
    """
    taken = [spec for spec in schema.inputs if not spec.optional or isinstance(spec.type, OptionalType)]
    sizes = _checked(dims or {}, taken)
    random = np.random.default_rng(seed)
    return {spec.name: _value(spec.type, spec.name, sizes, random) for spec in taken}


def _checked(dims: Mapping[str, int], specs: list[ValueSpec]) -> Mapping[str, int]:
    known = sorted({name for spec in specs for name in varying_dims(spec)})
    for name, size in dims.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(known) if known else "none: all sizes are fixed"
            raise ConfigurationError(f"the model has no dimension {name!r}{hint} Its dimensions: {listed}")
        if size < 0:
            raise ConfigurationError(f"dimension {name!r} is {size}; expected 0 or more")
    return dims


def varying_dims(spec: ValueSpec) -> Iterator[str]:
    """Every name by which ``dims`` may set a size of an input: ``image:0`` and, if it has one, its symbol."""
    return _varying(spec.type, spec.name)


def _varying(value_type: ValueType, name: str) -> Iterator[str]:
    match value_type:
        case TensorType(_, shape):
            for position, dimension in enumerate((None,) if shape is None else shape):
                if not isinstance(dimension, int):
                    yield f"{name}:{position}"
                if isinstance(dimension, str):
                    yield dimension
        case SequenceType() | MapType():
            yield f"{name}:0"
        case OptionalType(element):
            yield from _varying(element, name)
        case _:
            assert_never(value_type)


def _value(value_type: ValueType, name: str, sizes: Mapping[str, int], random: np.random.Generator) -> Value:
    match value_type:
        case TensorType():
            return _tensor(value_type, name, sizes, random)
        case SequenceType(element):
            entries = sizes.get(f"{name}:0", _ENTRIES)
            return [_value(element, f"{name}[]", sizes, random) for _ in range(entries)]
        case OptionalType(element):
            return _value(element, name, sizes, random)
        case MapType():
            return _map(value_type, sizes.get(f"{name}:0", _ENTRIES), name, sizes, random)
        case _:
            assert_never(value_type)


def _map(
    value_type: MapType, entries: int, name: str, sizes: Mapping[str, int], random: np.random.Generator
) -> dict[int | str, Value | Scalar]:
    result: dict[int | str, Value | Scalar] = {}
    for index in range(entries):
        value = _value(value_type.value, f"{name}[]", sizes, random)
        key = index if value_type.key is Datatype.INT64 else f"key{index}"
        result[key] = value.item() if isinstance(value, np.ndarray) else value
    return result


def _tensor(
    value_type: TensorType, name: str, sizes: Mapping[str, int], random: np.random.Generator
) -> Array:
    dimensions = (None,) if value_type.shape is None else value_type.shape
    shape = tuple(
        dimension
        if isinstance(dimension, int)
        else sizes.get(f"{name}:{position}", sizes.get(dimension or "", 1))
        for position, dimension in enumerate(dimensions)
    )
    if float(np.prod(shape, dtype=np.float64)) > _MAX_ELEMENTS:
        raise ConfigurationError(
            f"input {name!r} would have shape {list(shape)}, more than {_MAX_ELEMENTS} elements"
        )
    return _elements(value_type.datatype, shape, random)


def _elements(datatype: Datatype, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    dtype = datatype.numpy_dtype
    match datatype.kind:
        case Kind.BOOL:
            return np.asarray(random.integers(0, 2, shape)).astype(np.bool_)
        case Kind.INTEGER:
            return np.asarray(random.integers(0, 2, shape)).astype(dtype)
        case Kind.FLOAT if datatype is Datatype.FP8_E8M0:
            return np.asarray(0.5 + random.random(shape) / 2).astype(dtype)
        case Kind.FLOAT:
            return _below_one(np.asarray(random.random(shape)), datatype)
        case Kind.COMPLEX:
            return np.asarray(random.random(shape) + 1j * random.random(shape)).astype(dtype)
        case Kind.STRING:
            letters = random.choice(_ALPHABET, (*shape, 5))
            words = ["".join(word) for word in letters.reshape(-1, 5).tolist()]
            return np.array(words, dtype=object).reshape(shape)
        case _:
            assert_never(datatype.kind)


def _below_one(numbers: Array, datatype: Datatype) -> Array:
    """Rounded to the datatype; what rounds up to 1 becomes 0.5."""
    rounded = numbers.astype(datatype.numpy_dtype)
    return np.where(rounded.astype(np.float64) < 1.0, rounded, np.array(0.5, datatype.numpy_dtype))
