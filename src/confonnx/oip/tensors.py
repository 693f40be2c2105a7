"""One tensor as bytes: the binary form of the wire, which is also ONNX's ``raw_data``.

Little-endian, row-major. BOOL is one byte, 0 or 1. Four-bit types are packed two to a byte, low nibble first,
two-bit types four to a byte, low bits first, and unused bits of the last byte are zero (onnx.proto3,
``raw_data``). A BYTES element is its length as u32 and that many bytes of UTF-8 (Triton's
``binary_tensor_data``).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from confonnx.errors import InvalidInputError, OipError
from confonnx.oip.datatypes import Array, Buffer, Datatype, Kind

_LENGTH = struct.Struct("<I")
_ALIGNMENT = 16
_SMALL = 1 << 16


def byte_size(datatype: Datatype, count: int) -> int | None:
    """Bytes that ``count`` elements take on the wire; None for BYTES."""
    return None if datatype.bits is None else (count * datatype.bits + 7) // 8


def tensor_to_bytes(array: Array, datatype: Datatype, where: str = "tensor") -> Buffer:
    """The wire form of an array of exactly the datatype's dtype; a view on it where it is contiguous and not
    packed.

    Raises:
        InvalidInputError: another dtype, or elements of a BYTES tensor that are not ``str``.
    """
    check_dtype(array, datatype, where)
    if datatype.bits is None:
        return _join_strings(array, where)
    octets = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if datatype.bits < 8:
        octets = _pack(octets, datatype.bits)
    return octets.data


def tensor_from_bytes(data: Buffer, datatype: Datatype, shape: Sequence[int], where: str = "tensor") -> Array:
    """The read-only array of a wire form; a view on ``data`` unless it is small, BYTES, packed or misaligned.

    ``shape`` is one that `OipLimits.count_elements` let pass.

    Raises:
        OipError: ``data`` has another length, or is not a valid form of the datatype.
    """
    count = math.prod(shape)
    expected = byte_size(datatype, count)
    if expected is not None and len(data) != expected:
        raise OipError(
            f"{where}: {datatype.value} of shape {list(shape)} takes {expected} bytes, found {len(data)}"
        )
    if datatype.bits is None:
        array = _split_strings(memoryview(data), count, where)
    elif datatype.bits < 8:
        array = _unpack(data, datatype, count, where)
    else:
        array = _view(data, datatype, where)
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def check_dtype(array: Array, datatype: Datatype, where: str) -> None:
    """Raises InvalidInputError unless the array's dtype is the datatype's own, byte order included."""
    if array.dtype != datatype.numpy_dtype:
        raise InvalidInputError(
            f"{where}: expected an array of {datatype.numpy_dtype} for {datatype.value}, found {array.dtype}"
        )


def round_to(array: Array, datatype: Datatype, where: str) -> Array:
    """Real or complex numbers rounded to the nearest of a floating point datatype.

    Raises:
        InvalidInputError: a finite number became infinite, NaN or the largest one, or a NaN or infinity
            something else: the value did not survive.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(datatype.numpy_dtype)
    survived = np.isfinite(rounded).all() and datatype is not Datatype.FP4_E2M1  # the common case in one pass
    if not survived and _lost(array, rounded, datatype):
        raise InvalidInputError(
            f"{where}: a number has no counterpart in {datatype.value} (too large, or not a number)"
        )
    return rounded


def _lost(before: Array, after: Array, datatype: Datatype) -> bool:
    with np.errstate(invalid="ignore"):  # a signalling NaN is no reason for a warning
        if datatype.kind is Kind.COMPLEX:
            wide = before.astype(np.complex128)
            pairs = [(wide.real, after.real), (wide.imag, after.imag)]
        else:
            pairs = [(before.astype(np.float64), after.astype(np.float64))]
    # FP4 has neither infinity nor NaN, so ml_dtypes stops at 6, the largest (OCP Microscaling Formats v1.0
    # §5.3.3).
    largest = 6.0 if datatype is Datatype.FP4_E2M1 else np.inf
    return any(
        bool(((np.isnan(x) != np.isnan(y)) | (np.isinf(x) != np.isinf(y)) | (np.abs(x) > largest)).any())
        for x, y in pairs
    )


def _view(data: Buffer, datatype: Datatype, where: str) -> Array:
    if len(data) == 0:
        return np.empty(0, datatype.numpy_dtype)
    # numpy's bool arrays must hold 0 and 1 only: anything else makes comparisons and kernels disagree.
    if datatype is Datatype.BOOL and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise OipError(f"{where}: a BOOL is one byte, 0 or 1; found another value")
    return well_placed(np.frombuffer(data, datatype.numpy_dtype))


def well_placed(array: Array) -> Array:
    """``array``, or a copy, at an address of which onnxruntime gives what it gives for numpy's own.

    It reads through typed pointers, and sums in another order where an address is no multiple of 16, which
    numpy's are: the last bits of a result would tell how a message was framed. Small arrays are copied
    without looking.
    """
    if array.nbytes < _SMALL or array.__array_interface__["data"][0] % _ALIGNMENT:
        return array.copy()
    return array


def _pack(octets: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    per_byte = 8 // bits
    rows = -(-octets.size // per_byte)
    padded = np.zeros(rows * per_byte, np.uint8)
    # ml_dtypes ignores the high bits of its byte, so they may hold anything.
    np.bitwise_and(octets, (1 << bits) - 1, out=padded[: octets.size])
    columns = padded.reshape(rows, per_byte)
    packed = np.zeros(rows, np.uint8)
    for position in range(per_byte):
        packed |= columns[:, position] << np.uint8(bits * position)
    return packed


def _unpack(data: Buffer, datatype: Datatype, count: int, where: str) -> Array:
    bits = datatype.bits or 0
    packed = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    columns = np.empty((packed.size, 8 // bits), np.uint8)
    for position in range(8 // bits):
        columns[:, position] = (packed >> np.uint8(bits * position)) & np.uint8((1 << bits) - 1)
    elements = columns.reshape(-1)
    if bool(elements[count:].any()):
        raise OipError(f"{where}: the unused bits of the last byte of {datatype.value} must be zero")
    return elements[:count].view(datatype.numpy_dtype)


def _join_strings(array: Array, where: str) -> bytes:
    parts: list[bytes] = []
    for position, element in enumerate(array.reshape(-1).tolist()):
        if not isinstance(element, str):
            raise InvalidInputError(
                f"{where}: element {position} is a {type(element).__name__}, expected a str"
            )
        try:
            encoded = element.encode()
        except UnicodeEncodeError:
            # Without the cause: its text holds the element.
            raise InvalidInputError(f"{where}: element {position} has a lone surrogate, no UTF-8") from None
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def _split_strings(data: memoryview, count: int, where: str) -> Array:
    if (
        count > len(data) // _LENGTH.size
    ):  # before the array is allocated: every element takes at least its length
        raise OipError(f"{where}: {count} BYTES elements need at least {count * 4} bytes, found {len(data)}")
    array = np.empty(count, object)
    offset = 0
    for position in range(count):
        start = offset + _LENGTH.size
        if start > len(data):
            raise OipError(f"{where}: BYTES data ends before element {position}")
        offset = start + _LENGTH.unpack_from(data, offset)[0]
        if offset > len(data):
            raise OipError(f"{where}: element {position} is longer than the rest of the data")
        try:
            array[position] = str(data[start:offset], "utf-8")
        except UnicodeDecodeError:
            # Without the cause: its text holds bytes of the element.
            raise OipError(
                f"{where}: element {position} is not valid UTF-8; send binary data as a UINT8 tensor"
            ) from None
    if offset != len(data):
        raise OipError(f"{where}: {len(data) - offset} bytes follow the last of {count} BYTES elements")
    return array
