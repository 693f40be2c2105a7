"""Where models lie: one file, or a repository of named and versioned models.

A repository is a directory with any of these layouts, mixed as one likes::

    digits.onnx                    model "digits", version 1
    fraud/3/model.onnx             model "fraud", version 3
    large/1/model.onnx/            a directory of that name: model.onnx and its external data files
    bert/2/…                       external data may also lie beside model.onnx

Names and versions come from the directory alone, so they are checked before they reach a URL or a statement.
Hidden entries (names that begin with a dot) and files beside the models are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from confonnx.errors import ModelFormatError, ModelNotFoundError
from confonnx.models.digest import model_digest
from confonnx.models.files import model_file

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
_VERSION = re.compile(r"[1-9][0-9]{0,17}|0")
_MODEL_ENTRY = "model.onnx"
_NAME_RULE = "1 to 128 letters, digits and _ . -, first and last a letter, digit or _"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that a server shall serve."""

    name: str
    version: str
    """A whole number in decimal, without leading zeros; the highest is the default version."""
    path: Path
    """The ONNX file, or the directory that holds it with its external data."""
    digest: str
    """What :func:`confonnx.models.digest.model_digest` found; loading compares it with the bytes it reads."""


def load_single(path: Path, name: str | None = None, *, libraries: Sequence[Path] = ()) -> ModelFile:
    """The model at ``path`` as version 1. ``name`` defaults to the file's name without its suffix.

    ``libraries`` are the custom operator libraries that it will be loaded with: they count in the digest.
    Raises ModelNotFoundError and ModelFormatError.
    """
    file = model_file(path)
    chosen = name if name is not None else _tidy(path.stem)
    _check_name(chosen, f"the name of model {path}")
    if not file.is_file():
        raise ModelNotFoundError(f"no model file at {path}")
    return ModelFile(chosen, "1", path, model_digest(path, libraries=libraries))


def scan_repository(directory: Path, *, libraries: Sequence[Path] = ()) -> tuple[ModelFile, ...]:
    """Every model of a repository, ordered by name and version.

    Raises ModelNotFoundError when there is none, and ModelFormatError for an entry that looks like a model
    but breaks a rule: a server that silently left out a model would surprise its owner.
    """
    if not directory.is_dir():
        raise ModelNotFoundError(f"model repository {directory} is not a directory")
    root = directory.resolve()
    found: dict[tuple[str, str], Path] = {}
    for name, version, path in _candidates(directory):
        _check_name(name, f"model repository {directory}: the name of a model")
        if not path.resolve().is_relative_to(root):
            raise ModelFormatError(
                f"model repository: {path} is a link out of the repository, to {path.resolve()}"
            )
        if (name, version) in found:
            raise ModelFormatError(
                f"model repository: {path} and {found[name, version]} are both {name!r} version {version}"
            )
        found[name, version] = path
    if not found:
        raise ModelNotFoundError(
            f"model repository {directory} holds no model; expected NAME.onnx or "
            f"NAME/VERSION/{_MODEL_ENTRY}, found {_listing(directory)}"
        )
    ordered = sorted(found.items(), key=lambda item: (item[0][0], int(item[0][1])))
    return tuple(
        ModelFile(name, version, path, model_digest(path, libraries=libraries))
        for (name, version), path in ordered
    )


def _candidates(directory: Path) -> Iterator[tuple[str, str, Path]]:
    """``(name, version, path)`` of everything in ``directory`` that is laid out as a model."""
    for entry in _visible(directory):
        if entry.suffix == ".onnx":
            yield entry.stem, "1", entry
        elif entry.is_dir():
            yield from _versions(entry)


def _versions(directory: Path) -> Iterator[tuple[str, str, Path]]:
    entries = [entry for entry in _visible(directory) if entry.is_dir()]
    versions = [entry for entry in entries if _VERSION.fullmatch(entry.name)]
    if not versions and ((directory / _MODEL_ENTRY).exists() or entries):
        raise ModelFormatError(
            f"model repository: {directory} has no version directory; expected "
            f"{directory.name}/1/{_MODEL_ENTRY}, found {_listing(directory)}"
        )
    for version in versions:
        path = version / _MODEL_ENTRY
        if not path.exists():
            raise ModelFormatError(
                f"model repository: {path} does not exist; found {_listing(version)} in {version}"
            )
        yield directory.name, version.name, path


def _visible(directory: Path) -> list[Path]:
    try:
        return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise ModelNotFoundError(f"cannot read directory {directory}: {error.strerror or error}") from error


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise ModelFormatError(f"{what} is {name!r}; expected {_NAME_RULE}; rename it, or give it a name")


def _tidy(name: str) -> str:
    """A file name made into a model name: what may not be in one becomes ``_``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:128].strip(".-") or "model"


def _listing(directory: Path) -> str:
    names = [entry.name for entry in _visible(directory)]
    shown = ", ".join(names[:10]) if names else "nothing"
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
