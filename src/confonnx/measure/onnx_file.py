"""Is this file an ONNX model, and how large is it with its external data: a look without the onnx package.

A ``ModelProto`` has no magic number. What can be told cheaply is that its bytes are a sequence of protobuf
fields with the numbers and wire types of ``onnx.proto``, that ``ir_version`` (1) and ``graph`` (7) are among
them, and that no field reaches past the end. That refuses a PyTorch file, an archive, an HTML page and a
truncated download; the server's own loading, in the image that is built, decides. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from confonnx.errors import ModelFormatError
from confonnx.models.files import open_file

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
#: Fields of onnx.proto's ModelProto and their wire types.
_FIELDS: Final[Mapping[int, int]] = {
    1: _VARINT,  # ir_version
    2: _BYTES,  # producer_name
    3: _BYTES,  # producer_version
    4: _BYTES,  # domain
    5: _VARINT,  # model_version
    6: _BYTES,  # doc_string
    7: _BYTES,  # graph
    8: _BYTES,  # opset_import
    14: _BYTES,  # metadata_props
    20: _BYTES,  # training_info
    25: _BYTES,  # functions
    26: _BYTES,  # configuration
}
_IR_VERSION: Final = 1
_GRAPH: Final = 7


def model_bytes(path: Path) -> int:
    """The size in bytes of the model at ``path``: the file, or everything in the directory that holds it with
    its external data."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def check_onnx(file: Path) -> None:
    """Raises ModelFormatError when ``file`` cannot be ONNX, ModelNotFoundError when it cannot be read."""
    try:
        with open_file(file) as stream:
            found = set(_fields(stream, file.stat().st_size))
    except ValueError as error:
        raise ModelFormatError(f"{file} is not an ONNX model: {error}") from None
    missing = [
        name for number, name in ((_IR_VERSION, "ir_version"), (_GRAPH, "graph")) if number not in found
    ]
    if missing:
        raise ModelFormatError(f"{file} is not an ONNX model: it has no {' and no '.join(missing)}")


def _fields(stream: BinaryIO, size: int) -> Iterator[int]:
    """The numbers of the top-level fields. Raises ValueError where the bytes are none of ModelProto's."""
    while (offset := stream.tell()) < size:
        key = _varint(stream)
        number, wire = key >> 3, key & 7
        if _FIELDS.get(number) != wire:
            raise ValueError(f"at byte {offset} there is field {number} of wire type {wire}")
        length = _varint(stream)
        if wire == _BYTES:
            stream.seek(length, 1)
        if stream.tell() > size:
            raise ValueError(
                f"field {number} at byte {offset} ends {stream.tell() - size} bytes past the end"
            )
        yield number


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is longer than 10 bytes")
