"""Element types, value types and the specification of a model's inputs and outputs.

Wire names: the Open Inference Protocol's own (``BOOL`` … ``BYTES``), Triton's ``BF16``, and our extension
``confonnx_datatypes`` for what onnxruntime has beyond them. The numbers are ONNX's ``TensorProto.DataType``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias, assert_never

import ml_dtypes
import numpy as np
import numpy.typing as npt

from confonnx.errors import InvalidInputError, OipError

Buffer: TypeAlias = bytes | bytearray | memoryview
Array: TypeAlias = npt.NDArray[np.generic]
JsonObject: TypeAlias = dict[str, object]

# A type nests as deep as its text has parentheses; onnxruntime's deepest real ones have four.
_MAX_TYPE_DEPTH = 16
# Whether a dimension is 2**40 or 2**60 makes no difference to any machine, but the second overflows numpy's
# intp.
_MAX_DIMENSION = 2**40


class Kind(Enum):
    """What an element is; conversions are decided by it."""

    BOOL = "a truth value"
    INTEGER = "an integer"
    FLOAT = "a floating point number"
    COMPLEX = "a complex number"
    STRING = "a string"


class _Row(NamedTuple):
    onnx_type: int
    onnx_name: str
    dtype: type
    bits: int | None
    kind: Kind


_TABLE = {
    "BOOL": _Row(9, "bool", np.bool_, 8, Kind.BOOL),
    "UINT8": _Row(2, "uint8", np.uint8, 8, Kind.INTEGER),
    "UINT16": _Row(4, "uint16", np.uint16, 16, Kind.INTEGER),
    "UINT32": _Row(12, "uint32", np.uint32, 32, Kind.INTEGER),
    "UINT64": _Row(13, "uint64", np.uint64, 64, Kind.INTEGER),
    "INT8": _Row(3, "int8", np.int8, 8, Kind.INTEGER),
    "INT16": _Row(5, "int16", np.int16, 16, Kind.INTEGER),
    "INT32": _Row(6, "int32", np.int32, 32, Kind.INTEGER),
    "INT64": _Row(7, "int64", np.int64, 64, Kind.INTEGER),
    "FP16": _Row(10, "float16", np.float16, 16, Kind.FLOAT),
    "FP32": _Row(1, "float", np.float32, 32, Kind.FLOAT),
    "FP64": _Row(11, "double", np.float64, 64, Kind.FLOAT),
    "BYTES": _Row(8, "string", np.object_, None, Kind.STRING),
    "BF16": _Row(16, "bfloat16", ml_dtypes.bfloat16, 16, Kind.FLOAT),
    "FP8_E4M3FN": _Row(17, "float8e4m3fn", ml_dtypes.float8_e4m3fn, 8, Kind.FLOAT),
    "FP8_E4M3FNUZ": _Row(18, "float8e4m3fnuz", ml_dtypes.float8_e4m3fnuz, 8, Kind.FLOAT),
    "FP8_E5M2": _Row(19, "float8e5m2", ml_dtypes.float8_e5m2, 8, Kind.FLOAT),
    "FP8_E5M2FNUZ": _Row(20, "float8e5m2fnuz", ml_dtypes.float8_e5m2fnuz, 8, Kind.FLOAT),
    "FP8_E8M0": _Row(24, "float8e8m0", ml_dtypes.float8_e8m0fnu, 8, Kind.FLOAT),
    "FP4_E2M1": _Row(23, "float4e2m1", ml_dtypes.float4_e2m1fn, 4, Kind.FLOAT),
    "INT4": _Row(22, "int4", ml_dtypes.int4, 4, Kind.INTEGER),
    "UINT4": _Row(21, "uint4", ml_dtypes.uint4, 4, Kind.INTEGER),
    "INT2": _Row(26, "int2", ml_dtypes.int2, 2, Kind.INTEGER),
    "UINT2": _Row(25, "uint2", ml_dtypes.uint2, 2, Kind.INTEGER),
    "COMPLEX64": _Row(14, "complex64", np.complex64, 64, Kind.COMPLEX),
    "COMPLEX128": _Row(15, "complex128", np.complex128, 128, Kind.COMPLEX),
}


class Datatype(Enum):
    """An element type; ``value`` is its name on the wire.

    Attributes:
        onnx_type: number of the type in ``TensorProto.DataType``.
        onnx_name: its name inside ``tensor(…)``, as onnxruntime prints it.
        numpy_dtype: numpy's dtype, from ml_dtypes where numpy has none, ``object`` (of ``str``) for BYTES.
            Sub-byte types take one byte an element in numpy and are packed only on the wire.
        bits: size of an element on the wire in bits; None for BYTES, which varies.
        kind: what an element is.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"
    BF16 = "BF16"
    FP8_E4M3FN = "FP8_E4M3FN"
    FP8_E4M3FNUZ = "FP8_E4M3FNUZ"
    FP8_E5M2 = "FP8_E5M2"
    FP8_E5M2FNUZ = "FP8_E5M2FNUZ"
    FP8_E8M0 = "FP8_E8M0"
    FP4_E2M1 = "FP4_E2M1"
    INT4 = "INT4"
    UINT4 = "UINT4"
    INT2 = "INT2"
    UINT2 = "UINT2"
    COMPLEX64 = "COMPLEX64"
    COMPLEX128 = "COMPLEX128"

    def __init__(self, name: str) -> None:
        """The member's row of the table."""
        row = _TABLE[name]
        self.onnx_type = row.onnx_type
        self.onnx_name = row.onnx_name
        self.numpy_dtype: np.dtype[np.generic] = np.dtype(row.dtype)
        self.bits = row.bits
        self.kind = row.kind

    @staticmethod
    def from_wire(name: str) -> Datatype:
        """The datatype of a wire name.

        Raises:
            OipError: there is none of that name.
        """
        if (found := _BY_WIRE.get(name)) is None:
            raise OipError(f"unknown datatype {name[:32]!r}; known are {', '.join(_BY_WIRE)}")
        return found

    @staticmethod
    def from_onnx(number: int) -> Datatype:
        """The datatype of a ``TensorProto.DataType`` number.

        Raises:
            OipError: onnxruntime has no tensors of that type.
        """
        if (found := _BY_ONNX.get(number)) is None:
            raise OipError(f"ONNX element type {number} is not supported")
        return found

    @staticmethod
    def from_numpy(dtype: npt.DTypeLike) -> Datatype:
        """The datatype of a numpy dtype of either byte order; every kind of string is BYTES.

        Raises:
            InvalidInputError: no tensor has elements of that dtype.
        """
        known = np.dtype(dtype)
        if known.kind in "USOT":
            return Datatype.BYTES
        if (found := _BY_NUMPY.get(known.newbyteorder("="))) is None:
            raise InvalidInputError(f"numpy dtype {known} has no counterpart in ONNX")
        return found


_BY_WIRE = {datatype.value: datatype for datatype in Datatype}
_BY_ONNX = {datatype.onnx_type: datatype for datatype in Datatype}
_BY_ONNX_NAME = {datatype.onnx_name: datatype for datatype in Datatype}
_BY_NUMPY = {datatype.numpy_dtype: datatype for datatype in Datatype}

Dimension: TypeAlias = int | str | None
Shape: TypeAlias = tuple[Dimension, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor: a dimension is a number, the name of a symbol, or None; ``shape`` None means unknown rank."""

    datatype: Datatype
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class SequenceType:
    """Any number of values of one type."""

    element: ValueType


@dataclass(frozen=True, slots=True)
class MapType:
    """From INT64 or BYTES to scalars of a numpy-native type, or to sequences or maps."""

    key: Datatype
    value: ValueType

    def __post_init__(self) -> None:
        """Raises OipError for a map that no dict of Python scalars can hold."""
        if self.key not in (Datatype.INT64, Datatype.BYTES):
            raise OipError(f"the keys of a map are INT64 or BYTES, not {self.key.value}")
        match self.value:
            case TensorType(datatype, shape):
                if shape != () or datatype not in _MAP_VALUES:
                    raise OipError(f"a map's values are scalars of a standard type, not {self.value}")
            case OptionalType():
                raise OipError("a map's values cannot be optional")
            case SequenceType() | MapType():
                pass
            case _:
                assert_never(self.value)


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value or nothing."""

    element: ValueType

    def __post_init__(self) -> None:
        """Raises OipError for an optional of an optional: None could mean either."""
        if isinstance(self.element, OptionalType):
            raise OipError("an optional cannot hold an optional")


ValueType: TypeAlias = TensorType | SequenceType | MapType | OptionalType

# What `tolist` gives back as a plain Python scalar from which the array can be made again without loss.
_MAP_VALUES = frozenset(
    datatype for datatype in Datatype if datatype.numpy_dtype.kind in "biufO" and datatype.bits != 4
) - {Datatype.FP8_E5M2}


@dataclass(frozen=True, slots=True)
class ValueSpec:
    """An input or output that a model declares. ``optional``: the model has a default for this input."""

    name: str
    type: ValueType
    optional: bool = False

    def to_json(self) -> JsonObject:
        """The tensor metadata object of the protocol, extended without loss.

        * ``datatype`` and ``shape`` as the protocol has them, -1 for a dimension that varies;
        * ``dims``, where a dimension has a name: a list parallel to ``shape`` of names and nulls;
        * ``unknown_rank: true``, where even the rank varies; ``shape`` is then ``[-1]``;
        * datatype ``SEQUENCE`` and ``OPTIONAL`` with ``element``, ``MAP`` with ``key`` (a datatype) and
          ``value``: each such object again; their ``shape`` is ``[-1]``, the number of entries;
        * ``optional: true``, where the input may be left out.
        """
        document: JsonObject = {"name": self.name, **_type_to_json(self.type)}
        if self.optional:
            document["optional"] = True
        return document

    @staticmethod
    def from_json(document: object) -> ValueSpec:
        """The inverse of `to_json`; accepts the plain objects of other servers. Unknown members are ignored.

        Raises:
            OipError: a member is missing or wrong.
        """
        members = _members(document)
        name = members.get("name")
        optional = members.get("optional", False)
        if not isinstance(name, str) or not isinstance(optional, bool):
            raise OipError("tensor metadata needs a string 'name', and 'optional' as true or false if at all")
        return ValueSpec(name, _type_from_json(members, depth=1), optional)


def parse_onnx_type(text: str, shape: Sequence[Dimension] | None = None) -> ValueType:
    """A type as onnxruntime prints it, such as ``seq(map(string,tensor(float)))``.

    ``shape`` belongs to the tensor of ``tensor(…)`` and ``optional(tensor(…))``; negative dimensions vary.

    Raises:
        OipError: not such a text, nested too deep, or an element type without tensors.
    """
    if text.count("(") > _MAX_TYPE_DEPTH:
        raise OipError(f"an ONNX type is nested more than {_MAX_TYPE_DEPTH} deep")
    fixed = None if shape is None else tuple(_dimension(dimension) for dimension in shape)
    return _parse_type("".join(text.split()), fixed)


def format_onnx_type(type_: ValueType) -> str:
    """The text that `parse_onnx_type` reads; shapes are not part of it."""
    match type_:
        case TensorType(datatype):
            return f"tensor({datatype.onnx_name})"
        case SequenceType(element):
            return f"seq({format_onnx_type(element)})"
        case MapType(key, value):
            return f"map({key.onnx_name},{format_onnx_type(value)})"
        case OptionalType(element):
            return f"optional({format_onnx_type(element)})"
        case _:
            assert_never(type_)


def type_depth(type_: ValueType) -> int:
    """How deep the type nests; a tensor is 1."""
    match type_:
        case TensorType():
            return 1
        case SequenceType(element) | OptionalType(element) | MapType(_, element):
            return 1 + type_depth(element)
        case _:
            assert_never(type_)


def wire_datatype(type_: ValueType) -> str:
    """What stands in ``datatype`` for a value of the type."""
    match type_:
        case TensorType(datatype):
            return datatype.value
        case SequenceType():
            return "SEQUENCE"
        case MapType():
            return "MAP"
        case OptionalType():
            return "OPTIONAL"
        case _:
            assert_never(type_)


def _parse_type(text: str, shape: Shape | None) -> ValueType:
    constructor, parenthesis, rest = text.partition("(")
    if not parenthesis or not rest.endswith(")"):
        raise OipError(f"not an ONNX type: {text[:64]!r}")
    inner = rest[:-1]
    match constructor:
        case "tensor":
            return TensorType(_by_onnx_name(inner), shape)
        case "seq":
            return SequenceType(_parse_type(inner, None))
        case "optional":
            return OptionalType(_parse_type(inner, shape))
        case "map":
            key, _, value = inner.partition(",")
            # onnxruntime prints no shape for a map's values, because they can only be scalars.
            return MapType(_by_onnx_name(key), _parse_type(value, ()))
        case _:
            raise OipError(
                f"ONNX type {constructor[:32]!r} is not supported; expected tensor, seq, map or optional"
            )


def _by_onnx_name(name: str) -> Datatype:
    if (found := _BY_ONNX_NAME.get(name)) is None:
        raise OipError(f"ONNX element type {name[:32]!r} is not supported")
    return found


def _dimension(dimension: Dimension) -> Dimension:
    if isinstance(dimension, int) and dimension < 0:
        return None
    return dimension or (0 if dimension == 0 else None)  # onnxruntime prints a nameless symbol as ''


def _type_to_json(type_: ValueType) -> JsonObject:
    document: JsonObject = {"datatype": wire_datatype(type_), "shape": [-1]}
    match type_:
        case TensorType(_, shape):
            document |= _shape_to_json(shape)
        case SequenceType(element) | OptionalType(element):
            document["element"] = _type_to_json(element)
        case MapType(key, value):
            document |= {"key": key.value, "value": _type_to_json(value)}
        case _:
            assert_never(type_)
    return document


def _shape_to_json(shape: Shape | None) -> JsonObject:
    if shape is None:
        return {"unknown_rank": True}
    document: JsonObject = {"shape": [size if isinstance(size, int) else -1 for size in shape]}
    if any(isinstance(size, str) for size in shape):
        document["dims"] = [size if isinstance(size, str) else None for size in shape]
    return document


def _type_from_json(members: Mapping[str, object], *, depth: int) -> ValueType:
    if depth > _MAX_TYPE_DEPTH:
        raise OipError(f"the type of a tensor in the metadata is nested more than {_MAX_TYPE_DEPTH} deep")
    match members.get("datatype"):
        case "SEQUENCE":
            return SequenceType(_type_from_json(_members(members.get("element")), depth=depth + 1))
        case "OPTIONAL":
            return OptionalType(_type_from_json(_members(members.get("element")), depth=depth + 1))
        case "MAP":
            value = _type_from_json(_members(members.get("value")), depth=depth + 1)
            return MapType(Datatype.from_wire(_text(members.get("key"))), value)
        case datatype:
            return TensorType(Datatype.from_wire(_text(datatype)), _shape_from_json(members))


def _shape_from_json(members: Mapping[str, object]) -> Shape | None:
    if members.get("unknown_rank", False) is True:
        return None
    shape = members.get("shape")
    if not isinstance(shape, list):
        raise OipError("tensor metadata needs 'shape' as a list")
    names = members.get("dims") or [None] * len(shape)
    if not isinstance(names, list) or len(names) != len(shape):
        raise OipError("'dims' in tensor metadata must be a list as long as 'shape'")
    return tuple(_named_dimension(size, name) for size, name in zip(shape, names, strict=True))


def _named_dimension(size: object, name: object) -> Dimension:
    if type(size) is not int or not -1 <= size <= _MAX_DIMENSION:
        raise OipError("a dimension in tensor metadata must be -1 or a size")
    if name is not None and (not isinstance(name, str) or not name or size != -1):
        raise OipError("'dims' in tensor metadata holds null, or a name where 'shape' holds -1")
    return name if size == -1 else size


def _members(document: object) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise OipError("tensor metadata must be a JSON object, and so must its 'element' and 'value'")
    return document


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise OipError("a datatype in tensor metadata must be a string")
    return name
