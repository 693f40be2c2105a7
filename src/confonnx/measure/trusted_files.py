"""Which files an enclave needs, and their hashes: as few as the server runs with.

Code is what Python imports (sources and extension modules) and the metadata that tells versions; bytecode is
left out, since it differs from build to build and is as well compiled from the sources inside. Shared
libraries are those that the program and the extension modules are linked against, found by the loader itself
(``ldd``), and not whole directories.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confonnx.errors import ConfigurationError

#: Directories of the standard library and of packages that a server never imports from.
UNUSED_DIRECTORIES: Final = frozenset(
    {
        *("__pycache__", "dist-packages", "site-packages"),
        *(
            "curses",
            "dbm",
            "ensurepip",
            "idlelib",
            "lib2to3",
            "pydoc_data",
            "sqlite3",
            "tkinter",
            "turtledemo",
        ),
        *("test", "tests"),
        *("quantization", "transformers"),  # onnxruntime's tools that make models
    }
)
#: Extension modules of the standard library that would bring in shared libraries for nothing.
_UNUSED_MODULES: Final = (
    "_curses",
    "_dbm",
    "_gdbm",
    "_sqlite3",
    "_tkinter",
    "nis.",
    "ossaudiodev",
    "readline.",
)
_METADATA: Final = ("METADATA", "entry_points.txt")
_LIBRARY: Final = re.compile(r".+\.so(\.[0-9]+)*")
# The output of ldd: "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f…)", "libx.so => not found".
_LINKED: Final = re.compile(r"\s*(\S+) => (/\S+|not found)")
LOADER: Final = "ld-linux-x86-64.so.2"


@dataclass(frozen=True, slots=True)
class TrustedFile:
    """A file as Gramine lists it: its path on the host and its SHA-256 in hex."""

    path: Path
    sha256: str


def hash_files(paths: Iterable[Path]) -> tuple[TrustedFile, ...]:
    """The trusted files of ``paths``, each once, sorted by path. Raises ConfigurationError for an unreadable
    one."""
    return tuple(TrustedFile(path, _sha256(path)) for path in sorted(set(paths), key=str))


def code_files(root: Path) -> Iterator[Path]:
    """What can be imported from below ``root``, and the metadata of distributions."""
    for path in sorted(root.iterdir()):
        if path.is_dir():
            if path.name not in UNUSED_DIRECTORIES and not path.is_symlink():
                yield from code_files(path)
        elif path.suffix == ".py" or _is_used_library(path) or path.name in _METADATA:
            yield path


def plain_files(root: Path) -> Iterator[Path]:
    """Every file below ``root``: a model's directory, the configuration's."""
    return (path for path in root.rglob("*") if path.is_file())


def is_library(path: Path) -> bool:
    """A shared library or an extension module, by its name."""
    return _LIBRARY.fullmatch(path.name) is not None


def linked_libraries(binaries: Iterable[Path], *, runtime: Path) -> Iterator[Path]:
    """The shared libraries that ``binaries`` load from outside their own packages, and the loader.

    A library that Gramine has its own build of, in ``runtime``, is taken from there. Raises
    ConfigurationError when one is missing.
    """
    yield runtime / LOADER
    seen: set[str] = set()
    for binary in binaries:
        for name, path in _ldd(binary):
            if name in seen:
                continue
            seen.add(name)
            if path is None:
                raise ConfigurationError(f"{binary} needs the library {name}, which is not installed")
            yield runtime / name if (runtime / name).is_file() else path


def _is_used_library(path: Path) -> bool:
    return is_library(path) and not path.name.startswith(_UNUSED_MODULES)


def _ldd(binary: Path) -> Iterator[tuple[str, Path | None]]:
    try:
        done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError as error:
        raise ConfigurationError(f"ldd, which lists shared libraries, cannot be run: {error}") from error
    for line in done.stdout.splitlines():
        if match := _LINKED.match(line):
            yield match[1], None if match[2] == "not found" else Path(match[2])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigurationError(f"trusted file {path} cannot be read: {error.strerror}") from error
