"""Values as ``.npz`` archives and as ONNX TensorProto files (``.pb``).

An archive has one array for each tensor. numpy stores a type of ml_dtypes (bfloat16, FP8, int4 …) as raw
bytes; the text ``__types__``, a JSON object of names and types, then says what they are. Sequences and maps
have no place in an archive.

A ``.pb`` file holds one value: a TensorProto, or, where the model declares so, a SequenceProto of tensors or
an OptionalProto. These are the files of ONNX's own test data.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import numpy_helper

from confonnx.errors import ConfigurationError, InvalidInputError, OipError
from confonnx.models.documents import exact_tensor, read_bytes, type_name
from confonnx.models.files import write_file
from confonnx.oip.datatypes import (
    Array,
    Datatype,
    OptionalType,
    SequenceType,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.values import Value

_TYPES = "__types__"
_BY_NAME = {type_name(datatype): datatype for datatype in Datatype}
_NOT_IN_NUMPY = frozenset(
    datatype.numpy_dtype for datatype in Datatype if datatype.numpy_dtype.type.__module__ == "ml_dtypes"
)


def read_npz(path: Path) -> dict[str, Value]:
    """The tensors of the archive at ``path``.

    Raises ConfigurationError when it cannot be read, InvalidInputError when it is no such archive.
    """
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, OSError, EOFError, AttributeError, TypeError) as error:
        raise InvalidInputError(f"{path} is not an .npz archive of plain arrays: {error}") from error
    types = _types(arrays.pop(_TYPES, None), path)
    return {name: _from_npz(array, types.get(name), f"{path}: {name!r}") for name, array in arrays.items()}


def write_npz(path: Path, values: Mapping[str, Value]) -> None:
    """Writes tensors as an archive. Raises ConfigurationError for other values, or when it cannot be
    written.
    """
    arrays = {name: _to_npz(values[name], f"{path}: {name!r}") for name in sorted(values)}
    types = {name: array.dtype.name for name, array in arrays.items() if array.dtype in _NOT_IN_NUMPY}
    for name in types:  # numpy would write some of them with a dtype that it then cannot read
        arrays[name] = np.asarray(arrays[name], order="C").view(f"V{arrays[name].dtype.itemsize}")
    if types:
        arrays[_TYPES] = np.array(json.dumps(types))
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    write_file(path, file.getvalue())


def read_pb(paths: Sequence[Path], names: Sequence[str], specs: Sequence[ValueSpec] = ()) -> dict[str, Value]:
    """The values in ``paths`` under ``names``; no names: those in the files.

    ``specs`` are the model's inputs, which tell a tensor from a sequence or an optional. Raises
    ConfigurationError for unequal numbers, repeated names or an unreadable file, InvalidInputError when a
    file is no such value.
    """
    if names and len(names) != len(paths):
        raise ConfigurationError(
            f"{len(paths)} .pb files but {len(names)} names; give one name for each file"
        )
    types = {spec.name: spec.type for spec in specs}
    values: dict[str, Value] = {}
    for index, path in enumerate(paths):
        given = names[index] if names else ""
        stored, value = _read_pb(path, read_bytes(path), types.get(given, TensorType(Datatype.FP32)))
        name = given or stored
        if not name:
            raise ConfigurationError(
                f"{path} has no name in it; give the names of the inputs (--pb-in-names)"
            )
        if name in values:
            raise ConfigurationError(f"two .pb files are for input {name!r}: give each file its own name")
        values[name] = value
    return values


def write_pb(directory: Path, values: Mapping[str, Value]) -> tuple[Path, ...]:
    """Writes each value as ``<name>.pb`` into ``directory``, which is made if it is missing.

    Characters that a file name cannot have become ``_``. Raises ConfigurationError for a map, for two names
    that become one, and when something cannot be written.
    """
    messages = {_file_name(name): _to_proto(values[name], name, str(directory)) for name in sorted(values)}
    if len(messages) != len(values):
        raise ConfigurationError(f"{directory}: two outputs would have the same file name; use JSON")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make directory {directory}: {error.strerror or error}") from error
    for name, message in messages.items():
        write_file(directory / name, message.SerializeToString(deterministic=True))
    return tuple(directory / name for name in messages)


def _types(stored: Array | None, path: Path) -> dict[str, Datatype]:
    if stored is None:
        return {}
    try:
        names = json.loads(str(stored))
        return {str(name): _BY_NAME[type_] for name, type_ in names.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path}: {_TYPES} is not a JSON object of names and types") from error


def _from_npz(array: Array, datatype: Datatype | None, where: str) -> Array:
    if datatype is not None:
        if array.dtype.itemsize != datatype.numpy_dtype.itemsize:
            raise InvalidInputError(
                f"{where}: {_TYPES} says {type_name(datatype)}, but elements of {array.dtype.itemsize} bytes"
            )
        return array.view(datatype.numpy_dtype)
    if array.dtype.kind == "V":
        raise InvalidInputError(
            f"{where} holds raw bytes ({array.dtype}) without their type; use JSON, or a confonnx archive"
        )
    try:
        datatype = Datatype.from_numpy(array.dtype)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from error
    return exact_tensor(array, datatype, where)


def _to_npz(value: Value, where: str) -> Array:
    if not isinstance(value, np.ndarray):
        raise ConfigurationError(f"{where} is no tensor, and .npz holds nothing else; use JSON")
    if value.dtype != object:
        return value
    texts = value.reshape(-1).tolist()
    if any(str(text).endswith("\0") for text in texts):
        raise ConfigurationError(
            f"{where} has a string that ends in NUL, which numpy would cut off; use JSON"
        )
    return np.array(texts, dtype=np.str_).reshape(value.shape)


def _read_pb(path: Path, data: bytes, value_type: ValueType) -> tuple[str, Value]:
    """The name in the file and the value."""
    match value_type:
        case SequenceType():
            sequence = onnx.SequenceProto()
            _parse(sequence, data, path)
            return sequence.name, [_tensor(tensor, path) for tensor in sequence.tensor_values]
        case OptionalType(element):
            return _read_optional(path, data, element)
        case _:
            tensor = onnx.TensorProto()
            _parse(tensor, data, path)
            return tensor.name, _tensor(tensor, path)


def _parse(message: Message, data: bytes, path: Path) -> None:
    """Fills ``message``. One kind of protobuf often parses as another, as empty but for fields it does not
    know.
    """
    kind = type(message).__name__
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidInputError(f"{path} is not an ONNX {kind}, or is cut short") from error
    message.DiscardUnknownFields()
    if message.ByteSize() != len(data):
        raise InvalidInputError(f"{path} is not an ONNX {kind}")


def _read_optional(path: Path, data: bytes, element: ValueType) -> tuple[str, Value]:
    """An OptionalProto, or its value alone: only the type tells it from a SequenceProto of one tensor."""
    optional = onnx.OptionalProto()
    try:
        _parse(optional, data, path)
    except InvalidInputError:
        return _read_pb(path, data, element)
    if optional.elem_type == onnx.OptionalProto.UNDEFINED:
        return optional.name, None
    if isinstance(element, TensorType) and optional.HasField("tensor_value"):
        return optional.name, _tensor(optional.tensor_value, path)
    if isinstance(element, SequenceType) and optional.HasField("sequence_value"):
        return optional.name, [_tensor(tensor, path) for tensor in optional.sequence_value.tensor_values]
    return _read_pb(path, data, element)


def _tensor(proto: onnx.TensorProto, path: Path) -> Array:
    """The array of a TensorProto that holds its data itself: external data would read any file it names."""
    if proto.data_location == onnx.TensorProto.EXTERNAL or not proto.data_type:
        raise InvalidInputError(f"{path} is not a TensorProto that holds its own data")
    try:
        array = np.asarray(numpy_helper.to_array(proto))
        datatype = Datatype.from_onnx(proto.data_type)
    except (ValueError, TypeError, KeyError, NotImplementedError, OipError) as error:
        raise InvalidInputError(
            f"{path}: the tensor's data does not fit its type and shape: {error}"
        ) from error
    return exact_tensor(array, datatype, str(path))


def _to_proto(value: Value, name: str, where: str) -> Message:
    match value:
        case np.ndarray():
            return numpy_helper.from_array(value, name)
        case list() if all(isinstance(item, np.ndarray) for item in value):
            return onnx.SequenceProto(
                name=name,
                elem_type=onnx.SequenceProto.TENSOR,
                tensor_values=[
                    numpy_helper.from_array(item) for item in value if isinstance(item, np.ndarray)
                ],
            )
        case None:
            return onnx.OptionalProto(name=name, elem_type=onnx.OptionalProto.UNDEFINED)
        case _:
            raise ConfigurationError(f"{where}: {name!r} holds a map, which a .pb file does not; use JSON")


def _file_name(name: str) -> str:
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
    return f"{safe[:200].lstrip('.') or '_'}.pb"
