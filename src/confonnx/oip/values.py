"""Values of a model's inputs and outputs, and the way from what a user has to what the model wants.

A tensor is a numpy array of exactly the datatype's dtype, BYTES an object array of ``str``; a sequence is a
list, a map a dict of Python scalars (or of lists or dicts), an optional the value or None.

`coerce` converts what cannot be misunderstood: integers where they are in range, numbers to floating point
with rounding to nearest where they stay finite, lists and scalars to arrays, ``bytes`` to ``str`` by strict
UTF-8. It refuses what loses meaning: floating point to integer, truth values to numbers and back, complex to
real. Error texts name the input and the types, never an element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, assert_never

import numpy as np

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import (
    Array,
    Datatype,
    Kind,
    MapType,
    OptionalType,
    SequenceType,
    Shape,
    TensorType,
    ValueSpec,
    ValueType,
)
from confonnx.oip.tensors import round_to

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = "Array | list[Value] | dict[int | str, Value | Scalar] | None"


def check_inputs(
    inputs: Mapping[str, object], specs: Sequence[ValueSpec], *, convert: bool = True
) -> dict[str, Value]:
    """Every input that a model needs, by name in the order of ``specs``, of the exact type.

    ``convert`` is for what a user passes; without it (a server, whose client named a datatype) another dtype
    is an error.

    Raises:
        InvalidInputError: an input is missing, is none of the model's, or does not fit.
    """
    known = {spec.name for spec in specs}
    if extra := [name for name in inputs if name not in known]:
        raise InvalidInputError(f"the model has no input {_names(extra)}; expected: {_expected(specs)}")
    if missing := [spec.name for spec in specs if spec.name not in inputs and not spec.optional]:
        raise InvalidInputError(f"missing input {_names(missing)}; expected: {_expected(specs)}")
    return {
        spec.name: coerce(inputs[spec.name], spec, convert=convert) for spec in specs if spec.name in inputs
    }


def coerce(value: object, spec: ValueSpec, *, convert: bool = True) -> Value:
    """``value`` as ``spec`` wants it; the same array where it fits already.

    Raises:
        InvalidInputError: it cannot be converted without losing meaning, or has another shape.
    """
    return _coerce(value, spec.type, f"input {spec.name!r}", convert)


def size_conflict(inputs: Mapping[str, Value], specs: Sequence[ValueSpec]) -> str | None:
    """Two dimensions to which the model gives one name, and ``inputs`` two sizes, as a text; None without.

    That is no error by itself. onnxruntime takes the names for hints, and models in use rely on it: a size of
    1 broadcasts, and the decoders that Hugging Face's optimum merges get a stand-in of length 1 for a cache
    that the branch they take does not read. So it explains a run that failed, and does not forbid one.
    """
    sizes: dict[str, tuple[str, int]] = {}
    for spec in specs:
        value = inputs.get(spec.name)
        type_ = spec.type.element if isinstance(spec.type, OptionalType) else spec.type
        if not isinstance(value, np.ndarray) or not isinstance(type_, TensorType) or type_.shape is None:
            continue
        for axis, (name, size) in enumerate(zip(type_.shape, value.shape, strict=False)):
            here = f"axis {axis} of input {spec.name!r}"
            if isinstance(name, str) and (first := sizes.setdefault(name, (here, size)))[1] != size:
                return (
                    f"the model calls {first[0]} and {here} both {name!r}, expected one size for them, "
                    f"found {first[1]} and {size}"
                )
    return None


def expect_list(value: object, where: str) -> list[Value]:
    """``value`` as the list of a sequence. Raises InvalidInputError if it is something else."""
    if not isinstance(value, list | tuple):
        raise InvalidInputError(f"{where}: expected a list for a sequence, found {_describe(value)}")
    return list(value)


def expect_map(value: object, where: str) -> dict[int | str, Value | Scalar]:
    """``value`` as the dict of a map. Raises InvalidInputError if it is something else."""
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"{where}: expected a dict for a map, found {_describe(value)}")
    return dict(value)


def map_arrays(
    value: Mapping[int | str, Value | Scalar], type_: MapType, where: str
) -> tuple[Array, Array | list[Value]]:
    """Keys as an array of the map's key type, values as an array of scalars or, where they are none, as a
    list.

    Raises:
        InvalidInputError: a key or a value is not of its type, or two keys become equal (``"a"`` and
            ``b"a"``).
    """
    keys = _tensor(list(value), TensorType(type_.key), f"{where}.keys", convert=True)
    if len(set(keys.tolist())) != len(value):
        raise InvalidInputError(f"{where}.keys: two keys of the map are equal as {type_.key.value}")
    if isinstance(type_.value, TensorType):
        scalars = TensorType(type_.value.datatype, (len(value),))
        return keys, _tensor(list(value.values()), scalars, f"{where}.values", convert=True)
    return keys, [
        _coerce(item, type_.value, f"{where}.values[{index}]", convert=False)
        for index, item in enumerate(value.values())
    ]


def map_from_arrays(keys: Value, values: Value, length: int, where: str) -> dict[int | str, Value | Scalar]:
    """The dict of a map's keys and values as they came over the wire, each of ``length``.

    Raises:
        OipError: another length, or a key that is there twice (one reader would see the first, another the
            last).
    """
    columns: list[list[Value | Scalar]] = []
    for column, what in ((keys, "keys"), (values, "values")):
        if isinstance(column, np.ndarray) and column.shape == (length,):
            columns.append(column.tolist())
        elif isinstance(column, list) and len(column) == length:
            columns.append(list(column))
        else:
            raise OipError(f"{where}: the {what} of a MAP of shape [{length}] must have shape [{length}]")
    found = dict(zip(*columns, strict=True))
    if len(found) != length:
        raise OipError(f"{where}: a key of the MAP is there twice")
    return found


def _coerce(value: object, type_: ValueType, where: str, convert: bool) -> Value:
    match type_:
        case TensorType():
            return _tensor(value, type_, where, convert=convert)
        case SequenceType(element):
            items = expect_list(value, where)
            return [_coerce(item, element, f"{where}[{index}]", convert) for index, item in enumerate(items)]
        case MapType():
            keys, values = map_arrays(expect_map(value, where), type_, where)
            return map_from_arrays(keys, values, len(keys), where)
        case OptionalType(element):
            return None if value is None else _coerce(value, element, where, convert)
        case _:
            assert_never(type_)


def _tensor(value: object, type_: TensorType, where: str, *, convert: bool) -> Array:
    datatype = type_.datatype
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidInputError(f"{where}: a masked array; say what stands for the masked, with .filled(…)")
    if (
        isinstance(value, np.ndarray)
        and value.dtype == datatype.numpy_dtype
        and datatype is not Datatype.BYTES
    ):
        array: Array = value
    elif convert:
        array = _converted(_as_array(value, datatype, where), datatype, where)
    elif isinstance(value, np.ndarray) and value.dtype == datatype.numpy_dtype:
        array = value
    else:
        raise InvalidInputError(f"{where}: expected {datatype.value}, found {_describe(value)}")
    _check_shape(array, type_, where)
    return array


def _as_array(value: object, datatype: Datatype, where: str) -> Array:
    """Arrays, array-likes, scalars and nested lists as an array whose dtype tells what the elements are."""
    if value is None or isinstance(value, Mapping | set | frozenset):
        raise InvalidInputError(f"{where}: expected {datatype.value}, found {_describe(value)}")
    try:
        if isinstance(value, str | bytes):
            return np.array(value, object)
        if isinstance(value, list | tuple) and not _holds_arrays(value):
            return _typed(np.array(value, object), datatype, where)
        array: Array = np.asarray(value)
    except (ValueError, TypeError):
        raise InvalidInputError(f"{where}: lists nested unevenly, or not numbers or strings") from None
    return _typed(array, datatype, where) if array.dtype.kind == "O" else array


def _typed(objects: Array, datatype: Datatype, where: str) -> Array:
    """An object array with the dtype of its elements: alone, numpy makes a True among numbers a 1."""
    elements = objects.reshape(-1)
    kinds = {_kind_of(class_) for class_ in set(map(type, elements.tolist()))}
    if not kinds:
        return np.empty(objects.shape, datatype.numpy_dtype)
    if kinds == {Kind.STRING}:
        return objects
    if kinds == {Kind.BOOL}:
        return objects.astype(np.bool_)
    try:
        if kinds == {Kind.INTEGER}:
            return _integers(objects, datatype)
        if kinds <= {Kind.INTEGER, Kind.FLOAT}:
            return objects.astype(np.float64)
        if kinds <= {Kind.INTEGER, Kind.FLOAT, Kind.COMPLEX}:
            return objects.astype(np.complex128)
    except OverflowError:
        raise InvalidInputError(f"{where}: an integer is out of the range of {datatype.value}") from None
    raise InvalidInputError(
        f"{where}: expected elements of one kind for {datatype.value}; the list is ragged, mixes kinds, "
        f"or holds something else than numbers, truth values and strings"
    )


def _integers(objects: Array, datatype: Datatype) -> Array:
    wide = np.uint64 if datatype is Datatype.UINT64 else np.int64
    if datatype.kind in (Kind.FLOAT, Kind.COMPLEX):
        wide = np.float64  # type: ignore[assignment]
    # Through int: numpy converts an np.int64 of -1 in a list to uint64 without a word.
    return np.array([int(element) for element in objects.reshape(-1)], wide).reshape(objects.shape)


_KINDS: dict[type, Kind] = {
    bool: Kind.BOOL,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    complex: Kind.COMPLEX,
    str: Kind.STRING,
    bytes: Kind.STRING,
}


def _kind_of(class_: type) -> Kind | None:
    """The kind of elements of a class: built in, a subclass of that, or a numpy scalar; None for others."""
    if (known := _KINDS.get(class_)) is not None:
        return known
    if issubclass(class_, np.generic) and np.dtype(class_) in _SCALARS:
        return Datatype.from_numpy(class_).kind
    return next((kind for base, kind in _KINDS.items() if issubclass(class_, base)), None)


_SCALARS = frozenset(datatype.numpy_dtype for datatype in Datatype if datatype is not Datatype.BYTES)


def _holds_arrays(items: Sequence[object]) -> bool:
    return bool(items) and all(isinstance(item, np.ndarray) and item.dtype.kind != "O" for item in items)


def _converted(array: Array, datatype: Datatype, where: str) -> Array:
    """``array`` with the dtype of ``datatype``, or InvalidInputError where that would lose meaning."""
    try:
        found = Datatype.from_numpy(array.dtype).kind
    except InvalidInputError:
        raise _refusal(array, datatype, where, "") from None
    match datatype.kind, found:
        case Kind.STRING, Kind.STRING:
            return _strings(array, where)
        case Kind.BOOL, Kind.BOOL:
            return array
        case Kind.INTEGER, Kind.INTEGER:
            return _narrowed(array, datatype, where)
        case Kind.INTEGER, Kind.FLOAT:
            raise _refusal(array, datatype, where, "; round it yourself, for example with .round().astype(…)")
        case Kind.FLOAT, Kind.INTEGER | Kind.FLOAT:
            return round_to(array, datatype, where)
        case Kind.COMPLEX, Kind.INTEGER | Kind.FLOAT | Kind.COMPLEX:
            return round_to(array, datatype, where)
        case _:
            raise _refusal(array, datatype, where, "; convert it yourself, for example with .astype(…)")


def _narrowed(array: Array, datatype: Datatype, where: str) -> Array:
    wide = array if array.dtype.kind in "iu" else array.astype(np.int64)
    low, high = _range(datatype)
    if wide.size and (int(wide.min()) < low or int(wide.max()) > high):
        raise InvalidInputError(
            f"{where}: an integer is out of the range of {datatype.value}, {low} to {high}"
        )
    return array.astype(datatype.numpy_dtype)


def _range(datatype: Datatype) -> tuple[int, int]:
    bits = datatype.bits or 0
    return (
        (0, 2**bits - 1) if datatype.value.startswith("UINT") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )


def _strings(array: Array, where: str) -> Array:
    flat = array.reshape(-1).tolist()
    strings = np.empty(len(flat), object)
    for position, element in enumerate(flat):
        if isinstance(element, bytes):
            try:
                strings[position] = element.decode()
            except UnicodeDecodeError:
                # Without the cause: its text holds bytes of the element.
                raise InvalidInputError(f"{where}: element {position} is not valid UTF-8") from None
        elif isinstance(element, str):
            strings[position] = str(element)
        else:
            raise InvalidInputError(
                f"{where}: element {position} is a {type(element).__name__}, expected a str"
            )
    return strings.reshape(array.shape)


def _check_shape(array: Array, type_: TensorType, where: str) -> None:
    shape = type_.shape
    if shape is None:
        return
    fits = len(shape) == array.ndim and all(
        not isinstance(size, int) or size == actual for size, actual in zip(shape, array.shape, strict=True)
    )
    if not fits:
        hint = ""
        if type_.datatype is Datatype.BYTES and len(shape) == 1 and array.ndim == 2 and array.shape[1] == 1:
            hint = "; MLServer's codecs send a list of strings as [N, 1]: set the shape to [N]"
        raise InvalidInputError(f"{where}: expected shape {_shape(shape)}, found {list(array.shape)}{hint}")


def _shape(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _refusal(array: Array, datatype: Datatype, where: str, hint: str) -> InvalidInputError:
    return InvalidInputError(f"{where}: expected {datatype.value}, found {_describe(array)}{hint}")


def _describe(value: object) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    try:
        name = Datatype.from_numpy(value.dtype).value
    except InvalidInputError:
        name = str(value.dtype)
    return f"an array of {name} with shape {list(value.shape)}"


def _expected(specs: Sequence[ValueSpec]) -> str:
    return ", ".join(spec.name for spec in specs) or "no inputs"


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
