"""What the JSON header of a message settles, for the next message with the same one.

A client that asks again with tensors of the same shapes sends the same header, byte for byte, and gets one
that is the same again. Only tensors whose numpy form is their wire form are laid out; everything else is
parsed each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from confonnx.oip.datatypes import Array, Buffer, Datatype, TensorType, ValueType
from confonnx.oip.messages import InferInput, InferOutput
from confonnx.oip.tensors import well_placed
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
class Layout:
    """Where the tensors of a message lie that has ``size`` bytes and begins with the JSON ``header``."""

    header: bytes = field(repr=False)
    size: int
    places: tuple[_Place, ...]

    @property
    def header_length(self) -> int:
        """Bytes of JSON."""
        return len(self.header)

    def matches(self, body: Buffer) -> bool:
        """Whether ``body`` is another message of this layout."""
        return len(body) == self.size and bytes(body[: len(self.header)]) == self.header

    def read(self, body: Buffer) -> dict[str, Array]:
        """The values in a read-only ``body`` that matches: the very arrays that parsing it would give."""
        return {place.name: _array(body, place) for place in self.places}


def layout_of(
    tensors: Sequence[InferInput] | Sequence[InferOutput], body: Buffer, *, header_length: int
) -> Layout | None:
    """The layout of ``body``, from which ``tensors`` were parsed; None where its header does not settle it.

    The parser has accounted for every byte: where all tensors together are as long as the binary part, each
    lies there, behind the one before it.
    """
    places = []
    end = header_length
    for item in tensors:
        if not is_plain(item.type) or not isinstance(item.value, np.ndarray) or not item.value.size:
            return None
        places.append(_Place(item.name, item.value.dtype, item.value.shape, end))
        end += item.value.nbytes
    if end != len(body):
        return None
    return Layout(bytes(body[:header_length]), end, tuple(places))


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
    array = well_placed(np.ndarray(place.shape, place.dtype, body, place.start))
    array.flags.writeable = False
    return array
