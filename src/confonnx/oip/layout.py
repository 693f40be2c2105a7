"""What the JSON header of a message settles, for the next message with the same one.

A client that asks again with tensors of the same shapes sends the same header, byte for byte, and gets one
that is the same again. Only tensors whose numpy form is their wire form are laid out; everything else is
parsed each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from confonnx.oip.datatypes import Array, Buffer, Datatype, TensorType, ValueType
from confonnx.oip.messages import InferRequest
from confonnx.oip.values import Value

_PLAIN = frozenset(
    {
        *(Datatype.FP16, Datatype.FP32, Datatype.FP64),
        *(Datatype.INT8, Datatype.INT16, Datatype.INT32, Datatype.INT64),
        *(Datatype.UINT8, Datatype.UINT16, Datatype.UINT32, Datatype.UINT64),
    }
)


Shapes: TypeAlias = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class RequestLayout:
    """Where the tensors of a request lie whose body has ``size`` bytes and begins with ``header``."""

    header: bytes = field(repr=False)
    size: int
    places: tuple[_Place, ...]

    def matches(self, body: Buffer) -> bool:
        """Whether ``body`` is another request of this layout."""
        return len(body) == self.size and bytes(body[: len(self.header)]) == self.header

    def read(self, body: Buffer) -> dict[str, Array]:
        """The inputs in a ``body`` that matches: the very arrays that parsing it would give."""
        return {place.name: _array(body, place) for place in self.places}


def layout_of(request: InferRequest, body: Buffer, *, header_length: int) -> RequestLayout | None:
    """The layout of ``request``, which was parsed from ``body``; None where its header does not settle it.

    The parser has accounted for every byte: where all tensors together are as long as the binary part, each
    lies there, behind the one before it.
    """
    places = []
    end = header_length
    for item in request.inputs:
        if not is_plain(item.type) or not isinstance(item.value, np.ndarray) or not item.value.size:
            return None
        places.append(_Place(item.name, item.value.dtype, item.value.shape, end))
        end += item.value.nbytes
    if end != len(body):
        return None
    return RequestLayout(bytes(body[:header_length]), end, tuple(places))


def is_plain(type_: ValueType) -> bool:
    """Whether a value of the type is a tensor whose numpy form is its wire form, whatever its elements."""
    return isinstance(type_, TensorType) and type_.datatype in _PLAIN


def shapes_of(values: Mapping[str, Value]) -> Shapes | None:
    """The shapes of ``values`` where all are arrays with elements, in C order."""
    arrays = [value for value in values.values() if isinstance(value, np.ndarray)]
    if len(arrays) != len(values) or not all(array.size and array.flags.c_contiguous for array in arrays):
        return None
    return [array.shape for array in arrays]


def _array(body: Buffer, place: _Place) -> Array:
    array: Array = np.ndarray(place.shape, place.dtype, body, place.start)
    # onnxruntime reads through typed pointers; a copy is aligned.
    return array if array.flags.aligned else array.copy()
