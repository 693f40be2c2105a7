"""One tensor as JSON, and strict JSON decoding.

``data`` holds the elements flat in row-major order, or nested as ``shape`` says; a tensor without dimensions
may also be the bare element. Numbers are JSON numbers in every type, FP16, BF16 and the eight- and four-bit
ones included; what JSON cannot write is a string: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``. A complex
number is ``[re, im]``, a truth value ``true`` or ``false``, a BYTES element a string. Integers must be
written without fraction or exponent and be in range. Finite FP32 and FP64 survive the way there and back bit
for bit; a NaN keeps no payload.

Of two members with one name the last wins, as in most parsers (RFC 8259 §4 leaves it open). That cannot be
used to show two readers two messages: a request is opened, parsed and run by one process, nothing forwards
its bytes unparsed, and what is written out again holds every member once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, TypeVar

import msgspec
import numpy as np

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import Array, Buffer, Datatype, Kind
from confonnx.oip.tensors import check_dtype, round_to

T = TypeVar("T")

_Number = float | Literal["NaN", "Infinity", "-Infinity"]
_LEAVES: dict[Kind, object] = {
    Kind.BOOL: bool,
    Kind.INTEGER: int,
    Kind.FLOAT: _Number,
    Kind.COMPLEX: tuple[_Number, _Number],
    Kind.STRING: str,
}
_SPACE = b" \t\r\n"
_OPENING = re.compile(rb"[\[ \t\r\n]+")
_encoder = msgspec.json.Encoder()


def encode_json(document: object) -> bytes:
    """Compact UTF-8 JSON of dicts, lists and scalars."""
    return _encoder.encode(document)


def decode_json(decoder: msgspec.json.Decoder[T], text: Buffer, what: str) -> T:
    """``text`` as the type of the decoder.

    Raises:
        OipError: not JSON, nested too deep to parse, or another type.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        raise OipError(f"{what} has another form than expected: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Neither text nor cause of the two: they may quote what was sent.
        raise OipError(
            f"{what} is not valid JSON in UTF-8 (NaN and infinities are written as strings)"
        ) from None
    except RecursionError:
        raise OipError(f"{what} is nested too deep") from None


def tensor_to_json(array: Array, datatype: Datatype, where: str = "tensor") -> list[object]:
    """The elements in row-major order, ready for `encode_json`.

    Raises:
        InvalidInputError: another dtype, or elements of a BYTES tensor that are not ``str``.
    """
    check_dtype(array, datatype, where)
    flat = array.reshape(-1)
    match datatype.kind:
        case Kind.BOOL | Kind.INTEGER:
            return flat.tolist()
        case Kind.FLOAT:
            return _numbers(flat)
        case Kind.COMPLEX:
            real, imaginary = _numbers(flat.real), _numbers(flat.imag)
            return [list(pair) for pair in zip(real, imaginary, strict=True)]
        case Kind.STRING:
            return _strings(flat, where)


def tensor_from_json(
    text: Buffer, datatype: Datatype, shape: Sequence[int], count: int, where: str = "tensor"
) -> Array:
    """The read-only array of a tensor's ``data``. ``count`` is the number of elements of ``shape``.

    Raises:
        OipError: the data is not of the datatype, or not of the shape.
        InvalidInputError: a number is out of the datatype's range.
    """
    raw = bytes(text)
    if count == 0:
        if raw.translate(None, b"[]," + _SPACE):
            raise OipError(f"{where}: data holds elements, but shape {list(shape)} has none")
        array: Array = np.empty(shape, datatype.numpy_dtype)
    else:
        depth = _leading_brackets(raw) - (datatype.kind is Kind.COMPLEX)
        if depth not in (1, len(shape)):
            raise OipError(
                f"{where}: data must be a flat list, or nested {len(shape)} deep as its shape says"
            )
        values = _decode_elements(raw, datatype, depth, where)
        array = _build(values, datatype, where)
        if array.shape != ((count,) if depth == 1 else tuple(shape)):
            found = f"{array.size} elements" if depth == 1 else f"shape {list(array.shape)}"
            raise OipError(f"{where}: data has {found}, expected shape {list(shape)} ({count} elements)")
        array = array.reshape(shape)
    array.flags.writeable = False
    return array


@cache
def _decoder(kind: Kind, depth: int) -> msgspec.json.Decoder[object]:
    # At most five kinds by 64 ranks are cached: `_leading_brackets` is compared with a bounded rank first.
    leaf = _LEAVES[kind]
    for _ in range(depth):
        leaf = list[leaf]  # type: ignore[valid-type]
    return msgspec.json.Decoder(leaf)


def _decode_elements(raw: bytes, datatype: Datatype, depth: int, where: str) -> object:
    try:
        return _decoder(datatype.kind, depth).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Neither text nor cause of the two: they may quote an element.
        raise OipError(
            f"{where}: an element of data is not {datatype.kind.value}, as {datatype.value} needs, "
            f"or the nesting is uneven"
        ) from None


def _build(values: object, datatype: Datatype, where: str) -> Array:
    try:
        match datatype.kind:
            case Kind.BOOL | Kind.STRING:
                return np.array(values, datatype.numpy_dtype)
            case Kind.INTEGER:
                return _integers(values, datatype)
            case Kind.FLOAT:
                return round_to(np.array(values, np.float64), datatype, where)
            case Kind.COMPLEX:
                pairs = np.array(values, np.float64)
                whole = pairs.view(np.complex128)[..., 0]
                return round_to(whole, datatype, where)
    except OverflowError:
        raise InvalidInputError(f"{where}: an integer is out of the range of {datatype.value}") from None
    except ValueError:
        raise OipError(f"{where}: data is nested unevenly") from None


def _integers(values: object, datatype: Datatype) -> Array:
    if datatype.bits is not None and datatype.bits >= 8:
        return np.array(values, datatype.numpy_dtype)
    wide = np.array(values, np.int64)
    narrow = wide.astype(datatype.numpy_dtype)
    if bool((narrow.astype(np.int64) != wide).any()):
        raise OverflowError
    return narrow


def _numbers(flat: Array) -> list[object]:
    with np.errstate(invalid="ignore"):  # a signalling NaN is no reason for a warning
        wide = flat.astype(np.float64)
    numbers: list[object] = wide.tolist()
    for position in np.flatnonzero(~np.isfinite(wide)).tolist():
        number = wide[position]
        numbers[position] = "NaN" if np.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return numbers


def _strings(flat: Array, where: str) -> list[object]:
    strings: list[object] = flat.tolist()
    for position, element in enumerate(strings):
        if not isinstance(element, str):
            raise InvalidInputError(
                f"{where}: element {position} is a {type(element).__name__}, expected a str"
            )
    return strings


def _leading_brackets(raw: bytes) -> int:
    # A regular expression, since a loop over megabytes of spaces would be a cheap way to keep a server busy.
    found = _OPENING.match(raw)
    return found.group().count(b"[") if found else 0
