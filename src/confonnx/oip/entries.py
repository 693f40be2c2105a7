"""Entries of ``inputs`` and ``outputs``: tensors as the protocol has them, and our extension
``confonnx_values``.

A value that is no tensor is one entry whose ``datatype`` is ``SEQUENCE``, ``MAP`` or ``OPTIONAL``, whose
parameter ``onnx_type`` is the ONNX type as text, such as ``seq(map(string,tensor(float)))``, and whose
``data`` is a list of entries without ``name``:

* ``SEQUENCE``: ``shape`` is ``[n]``, ``data`` has the n elements.
* ``MAP``: ``shape`` is ``[n]``, ``data`` has exactly two entries, the keys (a tensor of shape ``[n]``, INT64
  or BYTES, no key twice) and the values in the order of the keys: a tensor of shape ``[n]`` where the map
  holds tensors (they are scalars), otherwise a ``SEQUENCE`` of n.
* ``OPTIONAL``: ``shape`` is ``[0]`` and ``data`` empty for nothing, otherwise ``[1]`` with the value.

An inner entry has ``datatype``, ``shape``, and either ``data`` or the one parameter ``binary_data_size``; its
datatype must be what ``onnx_type`` says at its place. Binary parts of a message follow each other depth
first, in the order of the entries. The size of a binary part, and the absence of any other byte, are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias, assert_never

import msgspec
import numpy as np

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import (
    Array,
    Buffer,
    Datatype,
    JsonObject,
    MapType,
    OptionalType,
    SequenceType,
    TensorType,
    ValueType,
    format_onnx_type,
    parse_onnx_type,
    type_depth,
    wire_datatype,
)
from confonnx.oip.json import decode_json, tensor_from_json, tensor_to_json
from confonnx.oip.limits import OipLimits
from confonnx.oip.tensors import tensor_from_bytes, tensor_to_bytes
from confonnx.oip.values import Value, expect_list, expect_map, map_arrays, map_from_arrays

Parameter: TypeAlias = str | int | float | bool
Parameters: TypeAlias = Mapping[str, Parameter]

BINARY_DATA_SIZE = "binary_data_size"
ONNX_TYPE = "onnx_type"
_CONTAINERS = frozenset(("SEQUENCE", "MAP", "OPTIONAL"))


class Entry(msgspec.Struct, frozen=True):
    """One entry as JSON has it; ``data`` stays text until its datatype is known."""

    datatype: str
    shape: list[int]
    name: str | None = None
    parameters: dict[str, Parameter | None] | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


_entries = msgspec.json.Decoder(list[Entry])


def plain_parameters(parameters: Mapping[str, Parameter | None] | None) -> dict[str, Parameter]:
    """A new dict without the nulls that clients built on pydantic send for what they leave out."""
    return {name: value for name, value in (parameters or {}).items() if value is not None}


class EntryReader:
    """Reads the entries of one message in order, and its binary part. Mutable, one message long."""

    def __init__(self, binary: memoryview | None, limits: OipLimits) -> None:
        """``binary`` is None where the message has no binary part, which differs from an empty one."""
        self._binary = binary
        self._offset = 0
        self._tensors = 0
        self._limits = limits

    def read(self, entry: Entry, where: str) -> tuple[ValueType, Value, Parameters]:
        """The type, the value and the parameters that are not part of the encoding.

        Raises:
            OipError: malformed, or over a limit.
            InvalidInputError: a number that its datatype cannot hold.
        """
        parameters = plain_parameters(entry.parameters)
        size = parameters.pop(BINARY_DATA_SIZE, None)
        if entry.datatype not in _CONTAINERS:
            array = self._tensor(entry, size, where)
            type_: ValueType = TensorType(Datatype.from_wire(entry.datatype), array.shape)
            return type_, array, MappingProxyType(parameters)
        text = parameters.pop(ONNX_TYPE, None)
        if not isinstance(text, str):
            raise OipError(f"{where}: datatype {entry.datatype} needs the parameter {ONNX_TYPE!r}")
        type_ = parse_onnx_type(text)
        if type_depth(type_) > self._limits.max_depth:
            raise OipError(f"{where}: nested more than the {self._limits.max_depth} levels that are allowed")
        return type_, self._value(entry, type_, size, where), MappingProxyType(parameters)

    def finish(self) -> None:
        """Raises OipError if the binary part has bytes that belong to no entry."""
        if self._binary is not None and self._offset != len(self._binary):
            raise OipError(f"{len(self._binary) - self._offset} bytes follow the last tensor of the message")

    def _value(self, entry: Entry, type_: ValueType, size: Parameter | None, where: str) -> Value:
        if entry.datatype != (expected := wire_datatype(type_)):
            raise OipError(f"{where}: expected datatype {expected}, found {entry.datatype[:32]!r}")
        if isinstance(type_, TensorType):
            return self._tensor(entry, size, where)
        self._count(where)
        if size is not None:
            raise OipError(f"{where}: a {expected} has no {BINARY_DATA_SIZE!r}; the entries in its data have")
        if len(entry.shape) != 1:
            raise OipError(f"{where}: the shape of a {expected} has one dimension, found {len(entry.shape)}")
        length = self._limits.count_elements(entry.shape, where)
        children = decode_json(_entries, entry.data, f"{where}: data")
        match type_:
            case SequenceType(element):
                return self._sequence(children, element, length, where)
            case MapType():
                return self._map(children, type_, length, where)
            case OptionalType(element):
                if length > 1:
                    raise OipError(f"{where}: the shape of an OPTIONAL is [0] or [1], found [{length}]")
                values = self._sequence(children, element, length, where)
                return values[0] if values else None
            case _:
                assert_never(type_)

    def _sequence(self, children: list[Entry], type_: ValueType, length: int, where: str) -> list[Value]:
        if len(children) != length:
            raise OipError(f"{where}: shape [{length}] with {len(children)} entries in data")
        return [self._inner(child, type_, f"{where}[{index}]") for index, child in enumerate(children)]

    def _map(self, children: list[Entry], type_: MapType, length: int, where: str) -> Value:
        if len(children) != 2:
            raise OipError(
                f"{where}: data of a MAP has the keys and the values, found {len(children)} entries"
            )
        stacked = isinstance(type_.value, TensorType)
        values_type = type_.value if stacked else SequenceType(type_.value)
        keys = self._inner(children[0], TensorType(type_.key), f"{where}.keys")
        values = self._inner(children[1], values_type, f"{where}.values")
        return map_from_arrays(keys, values, length, where)

    def _inner(self, entry: Entry, type_: ValueType, where: str) -> Value:
        parameters = plain_parameters(entry.parameters)
        size = parameters.pop(BINARY_DATA_SIZE, None)
        if parameters or entry.name is not None:
            raise OipError(f"{where}: an inner entry has no name and no parameter but {BINARY_DATA_SIZE!r}")
        return self._value(entry, type_, size, where)

    def _tensor(self, entry: Entry, size: Parameter | None, where: str) -> Array:
        self._count(where)
        datatype = Datatype.from_wire(entry.datatype)
        count = self._limits.count_elements(entry.shape, where)
        data = bytes(entry.data)
        inline = data != b"null"
        if inline == (size is not None):
            raise OipError(f"{where}: expected either 'data' or the parameter {BINARY_DATA_SIZE!r}")
        if inline:
            return tensor_from_json(data, datatype, entry.shape, count, where)
        return tensor_from_bytes(self._take(size, where), datatype, entry.shape, where)

    def _take(self, size: Parameter | None, where: str) -> memoryview:
        if self._binary is None:
            raise OipError(f"{where}: {BINARY_DATA_SIZE!r} in a message without a binary part")
        left = len(self._binary) - self._offset
        if type(size) is not int or not 0 <= size <= left:
            raise OipError(
                f"{where}: {BINARY_DATA_SIZE!r} must be an integer from 0 to the {left} bytes left"
            )
        start, self._offset = self._offset, self._offset + size
        return self._binary[start : self._offset]

    def _count(self, where: str) -> None:
        self._tensors += 1
        if self._tensors > self._limits.max_tensors:
            raise OipError(
                f"{where}: more than the {self._limits.max_tensors} tensors that a message may have"
            )


class EntryWriter:
    """Writes entries and collects their binary parts. Mutable, one message long."""

    def __init__(self) -> None:
        """No parts yet."""
        self.parts: list[Buffer] = []

    def write(
        self, name: str, type_: ValueType, value: Value, parameters: Parameters, *, binary: bool, where: str
    ) -> JsonObject:
        """The entry as JSON; where ``binary``, its tensors are appended to ``parts``.

        Shapes are the value's own; those in ``type_`` are not looked at.

        Raises:
            InvalidInputError: the value is not of the type.
        """
        entry: JsonObject = {"name": name, **self._entry(type_, value, binary, where)}
        own = entry.get("parameters", {})
        if not isinstance(type_, TensorType):
            own = {ONNX_TYPE: format_onnx_type(type_)}
        if merged := {**parameters, **own}:  # type: ignore[dict-item]
            entry["parameters"] = merged
        return entry

    def _entry(self, type_: ValueType, value: Value, binary: bool, where: str) -> JsonObject:
        match type_:
            case TensorType(datatype):
                return self._tensor(datatype, value, binary, where)
            case SequenceType(element):
                values = expect_list(value, where)
                children = [
                    self._entry(element, item, binary, f"{where}[{index}]")
                    for index, item in enumerate(values)
                ]
            case MapType():
                children = self._map(type_, value, binary, where)
                return {"datatype": "MAP", "shape": [len(expect_map(value, where))], "data": children}
            case OptionalType(element):
                children = [] if value is None else [self._entry(element, value, binary, where)]
            case _:
                assert_never(type_)
        return {"datatype": wire_datatype(type_), "shape": [len(children)], "data": children}

    def _map(self, type_: MapType, value: Value, binary: bool, where: str) -> list[JsonObject]:
        keys, values = map_arrays(expect_map(value, where), type_, where)
        values_type = type_.value if isinstance(type_.value, TensorType) else SequenceType(type_.value)
        return [
            self._entry(TensorType(type_.key), keys, binary, f"{where}.keys"),
            self._entry(values_type, values, binary, f"{where}.values"),
        ]

    def _tensor(self, datatype: Datatype, value: Value, binary: bool, where: str) -> JsonObject:
        if not isinstance(value, np.ndarray):
            raise InvalidInputError(
                f"{where}: expected an array of {datatype.value}, found {type(value).__name__}"
            )
        entry: JsonObject = {"datatype": datatype.value, "shape": list(value.shape)}
        if not binary:
            return {**entry, "data": tensor_to_json(value, datatype, where)}
        part = tensor_to_bytes(value, datatype, where)
        self.parts.append(part)
        return {**entry, "parameters": {BINARY_DATA_SIZE: len(part)}}
