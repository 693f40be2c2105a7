"""Files: reading models, and writing results so that a reader finds all of one or nothing."""

from __future__ import annotations

import os
from io import BufferedReader
from pathlib import Path
from secrets import token_hex

from confonnx.errors import ConfigurationError, ModelFormatError, ModelNotFoundError

MAX_PROTOBUF_BYTES = 2**31 - 1
"""protobuf's own limit: a larger model must keep its weights in external data files."""

_MODEL_FILE = "model.onnx"


def model_file(path: Path) -> Path:
    """The ONNX file that ``path`` means: itself, or ``model.onnx`` or else the only ``*.onnx`` file of a
    directory.
    """
    if not path.is_dir():
        return path
    if (path / _MODEL_FILE).is_file():
        return path / _MODEL_FILE
    found = sorted(entry.name for entry in path.glob("*.onnx") if entry.is_file())
    if len(found) != 1:
        listed = ", ".join(found) if found else "none"
        raise ModelNotFoundError(
            f"directory {path}: expected one model file (*.onnx), or one named {_MODEL_FILE}; found {listed}"
        )
    return path / found[0]


def read_file(path: Path) -> bytes:
    """The content of ``path``. Raises ModelNotFoundError when it is missing or unreadable."""
    with open_file(path) as stream:
        return stream.read()


def open_file(path: Path) -> BufferedReader:
    """``path``, opened for reading. Raises ModelNotFoundError when it is missing or unreadable."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ModelNotFoundError(f"cannot read model file {path}: {error.strerror or error}") from error


def read_protobuf(file: Path) -> bytes:
    """The bytes of an ONNX file, and no more of it than protobuf can take. Raises ModelFormatError when it
    is larger.
    """
    with open_file(file) as stream:
        data = stream.read(MAX_PROTOBUF_BYTES + 1)
    if len(data) > MAX_PROTOBUF_BYTES:
        raise ModelFormatError(
            f"model file {file} is larger than the 2 GiB that protobuf allows; save it with external data "
            "(onnx.save_model(..., save_as_external_data=True))"
        )
    return data


def write_file(path: Path, data: bytes) -> None:
    """Writes ``path`` whole or not at all: into a new file beside it, which then takes its place.

    What is no regular file (``/dev/stdout``, a pipe) is written directly. Raises ConfigurationError when it
    cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
            return
        temporary = path.with_name(f".{path.name[:200]}.{token_hex(8)}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error
