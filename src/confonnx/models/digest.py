"""The bytes of a model and their digest (D7).

A model that is one file has the SHA-256 of that file, so ``sha256sum model.onnx`` prints its digest. A model
that needs more files (external data, an operator library) has the SHA-256 of the list of all of them: one
line ``<sha256 of the file>  <path relative to the model file>\\n`` each, sorted by the bytes of the path.
With GNU coreutils, in the directory of the model::

    sha256sum model.onnx weights.bin | LC_ALL=C sort -k 2 | sha256sum

A file is read once: what :func:`read_model` hashed is what it returns, so a host that swaps the file
afterwards changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from confonnx.errors import ModelFormatError
from confonnx.models.files import model_file, open_file, read_file, read_protobuf
from confonnx.models.schema import external_locations, parse_model


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """A model as it was read: everything that loading it needs, and the digest of exactly these bytes."""

    model: bytes = field(repr=False)
    """The ONNX protobuf."""
    external: tuple[tuple[str, bytes], ...] = field(repr=False)
    """The external data files as ``(location in the model, content)``, sorted by location."""
    digest: str
    """64 hexadecimal digits (D7)."""


def model_digest(path: Path, *, libraries: Sequence[Path] = ()) -> str:
    """The digest of the model at ``path`` (a file, or a directory that holds one), as D7 defines it.

    ``libraries`` are the custom operator libraries that the model is served with. External data is hashed as
    a stream, so memory stays bounded by the protobuf. Raises ModelFormatError and ModelNotFoundError.
    """
    file = model_file(path)
    model = read_protobuf(file)
    hashes = [(file.name, _sha256(model))]
    for location in external_locations(parse_model(model, source=str(file))):
        with open_file(_external_path(file, location)) as stream:
            hashes.append((location, hashlib.file_digest(stream, "sha256").hexdigest()))
    return _digest([*hashes, *_library_hashes((library.name, read_file(library)) for library in libraries)])


def read_model(path: Path, *, libraries: Sequence[tuple[str, bytes]] = ()) -> ModelBytes:
    """The model at ``path`` with all its files in memory, and the digest of these bytes.

    ``libraries`` are the operator libraries that the caller already read, as ``(file name, content)``; they
    count in the digest. Raises ModelFormatError and ModelNotFoundError.
    """
    file = model_file(path)
    model = read_protobuf(file)
    locations = external_locations(parse_model(model, source=str(file)))
    external = tuple((location, read_file(_external_path(file, location))) for location in locations)
    hashes = [(file.name, _sha256(model)), *((name, _sha256(content)) for name, content in external)]
    return ModelBytes(model, external, _digest([*hashes, *_library_hashes(libraries)]))


def _external_path(file: Path, location: str) -> Path:
    """Where the external data file ``location`` of the model ``file`` lies; never outside the model's
    directory.

    A link may lead to the directory that the model file itself is linked to (model caches do so), nowhere
    else.
    """
    pure = PurePosixPath(location)
    unsafe = pure.is_absolute() or ".." in pure.parts or not pure.parts
    if unsafe or any(mark in location for mark in "\\\n\r\0*"):
        raise ModelFormatError(
            f"model file {file}: external data {location!r} is not a plain path below the model's directory"
        )
    path = file.parent / pure
    real = path.resolve()
    if not any(real.is_relative_to(root) for root in (file.parent.resolve(), file.resolve().parent)):
        raise ModelFormatError(
            f"model file {file}: external data {location!r} is a link out of the model's directory"
        )
    if not path.is_file():
        raise ModelFormatError(
            f"model file {file} needs its external data file {location!r}, which is not at {path}"
        )
    return path


def _library_hashes(libraries: Iterable[tuple[str, bytes]]) -> list[tuple[str, str]]:
    return [(name, _sha256(content)) for name, content in libraries]


def _digest(hashes: Sequence[tuple[str, str]]) -> str:
    """D7: the hash of the only file, or the hash of the sorted list of all. ``hashes`` is ``(path,
    sha256)``.
    """
    if len(hashes) == 1:
        return hashes[0][1]
    names = [name for name, _ in hashes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ModelFormatError(f"two files of the model have the same path: {', '.join(twice)}; rename one")
    lines = sorted((name.encode(), content) for name, content in hashes)
    return _sha256(b"".join(content.encode() + b"  " + name + b"\n" for name, content in lines))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
