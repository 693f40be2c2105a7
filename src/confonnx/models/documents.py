"""Values of a model's inputs and outputs as JSON (``input.json``, ``output.json``), and the model's own
description.

A document is an object with one member for each input or output::

    {"image": {"type": "float32", "values": [[0.0, 1.5], [2.0, "NaN"]]},
     "label": {"type": "string", "values": ["a", "b"]}}

* ``type`` is numpy's or ml_dtypes' name of the element type (``float32``, ``int64``, ``bool``, ``bfloat16``,
  ``float8_e4m3fn``, ``int4`` …), or ``string`` (``str`` is accepted too).
* ``values`` is a nested list, or a plain value for a tensor without dimensions. Floating point numbers that
  JSON lacks are the strings "NaN", "Infinity" and "-Infinity"; a complex number is a pair, real part first.
* ``shape`` may be added; ``values`` may then be flat. It is written only where it does not follow from
  ``values``, which is when a dimension is 0.

Values that are no tensors nest such entries::

    {"type": "sequence", "values": [entry, …]}
    {"type": "map", "keys": entry, "values": entry}      keys: one dimension, int64 or string
    {"type": "optional", "values": entry or null}

The values of a map are an entry of one dimension for scalars, or a sequence. A finite number reads back as
it was written, bit for bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from confonnx.errors import ConfigurationError, InvalidInputError, OipError
from confonnx.models.files import write_file
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
from confonnx.oip.values import Scalar, Value, coerce, map_from_arrays

_MAX_DEPTH = 16  # of entries in entries; real models have four
_NOT_IN_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def read_json(path: Path) -> dict[str, Value]:
    """The values in the document at ``path``.

    Raises ConfigurationError when it cannot be read, InvalidInputError when it is not such a document.
    """
    return parse_json(read_bytes(path), source=str(path))


def write_json(path: Path, values: Mapping[str, Value]) -> None:
    """Writes ``values`` with sorted names. Raises ConfigurationError when ``path`` cannot be written."""
    write_file(path, format_json(values).encode())


def parse_json(text: str | bytes, *, source: str) -> dict[str, Value]:
    """The values in a document; ``source`` names it in errors. Raises InvalidInputError."""
    try:
        document = json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{source} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(
            f"{source}: expected an object with one member for each input, found {_kind(document)}"
        )
    return {name: _parse(entry, f"{source}: {name!r}", depth=1) for name, entry in document.items()}


def format_json(values: Mapping[str, Value]) -> str:
    """The document of ``values``, with sorted names and a line for each. Ends in a newline."""
    lines = (
        f"  {json.dumps(name)}: {json.dumps(_entry(values[name]), allow_nan=False)}"
        for name in sorted(values)
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def exact_tensor(value: object, datatype: Datatype, where: str) -> Array:
    """``value`` as an array of ``datatype``; ``where`` names it in errors. Raises InvalidInputError."""
    try:
        array = coerce(value, ValueSpec("value", TensorType(datatype)))
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {str(error).removeprefix(_PREFIX)}") from error
    assert isinstance(array, np.ndarray)  # what coerce gives for a tensor
    return array


_PREFIX = "input 'value': "  # how coerce names what it was given


def read_bytes(path: Path) -> bytes:
    """The content of a file of values. Raises ConfigurationError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error


def type_name(datatype: Datatype) -> str:
    """The name of a datatype in documents."""
    return "string" if datatype is Datatype.BYTES else datatype.numpy_dtype.name


_BY_NAME = {type_name(datatype): datatype for datatype in Datatype} | {"str": Datatype.BYTES}


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"member {twice!r} is there twice")
    return members


def _parse(entry: object, where: str, *, depth: int) -> Value:
    if depth > _MAX_DEPTH:
        raise InvalidInputError(f"{where}: nested more than {_MAX_DEPTH} deep")
    if not isinstance(entry, dict) or "type" not in entry or "values" not in entry:
        raise InvalidInputError(
            f'{where}: expected {{"type": …, "values": …}}, found {_kind(entry)}'
            + (f" with members {', '.join(entry) or 'none'}" if isinstance(entry, dict) else "")
        )
    match entry["type"]:
        case "sequence":
            return _parse_sequence(entry["values"], where, depth)
        case "map":
            return _parse_map(entry, where, depth)
        case "optional":
            value = entry["values"]
            return None if value is None else _parse(value, where, depth=depth + 1)
        case str() as name if name in _BY_NAME:
            return _parse_tensor(entry, _BY_NAME[name], where)
        case other:
            raise InvalidInputError(
                f"{where}: unknown type {other!r}; expected sequence, map, optional or {', '.join(_BY_NAME)}"
            )


def _parse_sequence(values: object, where: str, depth: int) -> list[Value]:
    if not isinstance(values, list):
        raise InvalidInputError(
            f"{where}: the values of a sequence are a list of entries, found {_kind(values)}"
        )
    return [_parse(item, f"{where}[{index}]", depth=depth + 1) for index, item in enumerate(values)]


def _parse_map(entry: Mapping[str, object], where: str, depth: int) -> Value:
    keys = _parse(entry.get("keys"), f"{where}.keys", depth=depth + 1)
    values = _parse(entry["values"], f"{where}.values", depth=depth + 1)
    if not isinstance(keys, np.ndarray) or keys.ndim != 1 or keys.dtype not in (np.int64, np.object_):
        raise InvalidInputError(f"{where}: the keys of a map are a list of int64 or string")
    try:
        return map_from_arrays(keys, values, len(keys), where)
    except OipError as error:
        raise InvalidInputError(str(error)) from error


def _parse_tensor(entry: Mapping[str, object], datatype: Datatype, where: str) -> Array:
    values = entry["values"]
    if datatype.kind in (Kind.FLOAT, Kind.COMPLEX):
        values = _numbers(values)
    parts = Datatype.FP64 if datatype.kind is Kind.COMPLEX else datatype
    array = exact_tensor(values, parts, where)
    if datatype.kind is Kind.COMPLEX:
        array = _complex(array, datatype, where)
    return _reshaped(array, entry["shape"], where) if "shape" in entry else array


def _numbers(values: object) -> object:
    """``values`` with the names of what JSON lacks replaced by the numbers."""
    if isinstance(values, list):
        return [_numbers(value) for value in values]
    return _NOT_IN_JSON.get(values, values) if isinstance(values, str) else values


def _complex(parts: Array, datatype: Datatype, where: str) -> Array:
    if parts.size == 0:
        return parts.astype(datatype.numpy_dtype)
    if parts.ndim == 0 or parts.shape[-1] != 2:
        raise InvalidInputError(f"{where}: a complex number is a pair [real, imaginary]")
    return parts.view(np.complex128)[..., 0].astype(datatype.numpy_dtype)


def _reshaped(array: Array, shape: object, where: str) -> Array:
    if not isinstance(shape, list):
        raise InvalidInputError(f"{where}: shape is a list, found {_kind(shape)}")
    sizes = [size for size in shape if isinstance(size, int) and not isinstance(size, bool) and size >= 0]
    if len(sizes) != len(shape):
        raise InvalidInputError(f"{where}: shape is a list of numbers of 0 or more")
    if math.prod(sizes) != array.size:
        raise InvalidInputError(
            f"{where}: shape {sizes} means {math.prod(sizes)} elements, but values has {array.size}"
        )
    return array.reshape(sizes)


def _entry(value: Value) -> dict[str, object]:
    match value:
        case None:
            return {"type": "optional", "values": None}
        case list():
            return {"type": "sequence", "values": [_entry(item) for item in value]}
        case dict():
            values = list(value.values())
            entry = _scalars(values) if all(isinstance(item, Scalar) for item in values) else None
            nested = [item for item in values if not isinstance(item, Scalar)]
            return {"type": "map", "keys": _scalars(value), "values": entry or _entry(nested)}
        case _:
            return _tensor_entry(value)


def _scalars(values: Iterable[object]) -> dict[str, object]:
    """Keys or values of a map. Its values come as Python numbers: ``float32`` where that loses nothing."""
    scalars = list(values)
    if any(isinstance(scalar, str) for scalar in scalars):
        return _tensor_entry(np.array(scalars, dtype=object))  # numpy's own strings lose a NUL at the end
    array = np.array(scalars, dtype=None if scalars else np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        single = array.astype(np.float32)
    if array.dtype == np.float64 and np.array_equal(array, single, equal_nan=True):
        return _tensor_entry(single)
    return _tensor_entry(array)


def _tensor_entry(array: Array) -> dict[str, object]:
    datatype = Datatype.from_numpy(array.dtype)
    entry: dict[str, object] = {"type": type_name(datatype), "values": _listed(array, datatype)}
    if array.size == 0:
        entry["shape"] = list(array.shape)
    return entry


def _listed(array: Array, datatype: Datatype) -> object:
    match datatype.kind:
        case Kind.FLOAT:
            with np.errstate(invalid="ignore"):  # a signalling NaN
                wide = array.astype(np.float64)
            return wide.tolist() if bool(np.isfinite(wide).all()) else _named(wide.tolist())
        case Kind.COMPLEX:
            wide = np.stack([array.real, array.imag], axis=-1).astype(np.float64)
            return _named(wide.tolist())
        case Kind.INTEGER if datatype.bits is not None and datatype.bits < 8:
            return array.astype(np.int8).tolist()
        case _:
            return array.tolist()


def _named(numbers: object) -> object:
    """``numbers`` with what JSON lacks replaced by names."""
    if isinstance(numbers, list):
        return [_named(number) for number in numbers]
    if not isinstance(numbers, float) or math.isfinite(numbers):
        return numbers
    return "NaN" if math.isnan(numbers) else "Infinity" if numbers > 0 else "-Infinity"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def model_info(schema: ModelSchema) -> dict[str, dict[str, dict[str, object]]]:
    """What ``python3 -m confonnx.get_model_info`` writes.

    ``{"inputs": {name: {"shape": [...], "type": "float32"}}, "outputs": {...}}``: a dimension is a number,
    its symbolic name, or null; the shape of unknown rank is null; ``type`` is as in documents. A sequence,
    map or optional describes its members under ``element`` (a map: ``key`` and ``value``). An input that may
    be left out has ``"optional": true``.
    """
    return {
        "inputs": {spec.name: _info(spec) for spec in schema.inputs},
        "outputs": {spec.name: _info(spec) for spec in schema.outputs},
    }


def _info(spec: ValueSpec) -> dict[str, object]:
    return _type_info(spec.type) | ({"optional": True} if spec.optional else {})


def _type_info(value_type: ValueType) -> dict[str, object]:
    match value_type:
        case TensorType(datatype, shape):
            return {"shape": None if shape is None else list(shape), "type": type_name(datatype)}
        case SequenceType(element):
            return {"type": "sequence", "element": _type_info(element)}
        case OptionalType(element):
            return {"type": "optional", "element": _type_info(element)}
        case MapType(key, value):
            return {"type": "map", "key": type_name(key), "value": _type_info(value)}
