"""Which files are measured: all that the server opens, nothing that nobody needs, in one order."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from confonnx.errors import ConfigurationError
from confonnx.measure import trusted_files
from confonnx.measure.trusted_files import (
    TrustedFile,
    code_files,
    hash_files,
    linked_libraries,
    plain_files,
)


def tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_code_and_metadata_alone(tmp_path: Path) -> None:
    wanted = ["a.py", "p/__init__.py", "p/fast.cpython-312-x86_64-linux-gnu.so", "p.libs/libx-1.so.0.3.1"]
    wanted += ["p-1.dist-info/METADATA", "p-1.dist-info/entry_points.txt"]
    unwanted = [
        "p/__pycache__/__init__.cpython-312.pyc",
        "p/tests/test_a.py",
        "p/x.pyi",
        "p/x.h",
        "p/data.bin",
    ]
    unwanted += ["p-1.dist-info/RECORD", "idlelib/a.py", "lib-dynload/_sqlite3.cpython-312.so", "b.pyc"]
    tree(tmp_path, *wanted, *unwanted)
    (tmp_path / "link").symlink_to("p", target_is_directory=True)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in code_files(tmp_path)) == sorted(wanted)


def test_hashes_sorted_and_once(tmp_path: Path) -> None:
    tree(tmp_path, "b", "a", "c/d")
    files = hash_files([*plain_files(tmp_path), tmp_path / "a"])
    assert files == tuple(
        TrustedFile(tmp_path / name, hashlib.sha256(name.encode()).hexdigest()) for name in ("a", "b", "c/d")
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trusted file .*missing cannot be read"):
        hash_files([tmp_path / "missing"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ldd is Linux's")
def test_libraries_of_the_interpreter_come_from_the_runtime_where_it_has_them(tmp_path: Path) -> None:
    python = Path(sys.executable).resolve()
    outside = set(linked_libraries([python], runtime=tmp_path))
    libc = [path for path in outside if path.name == "libc.so.6"]
    assert len(libc) == 1
    assert tmp_path / trusted_files.LOADER in outside
    tree(tmp_path, "libc.so.6")
    inside = set(linked_libraries([python, python], runtime=tmp_path))
    assert inside == (outside - set(libc)) | {tmp_path / "libc.so.6"}


def test_a_library_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ldd(tmp_path, "\tlinux-vdso.so.1 (0x00)\n\tlibgone.so.2 => not found\n", monkeypatch)
    with pytest.raises(
        ConfigurationError, match=r"/bin/x needs the library libgone.so.2, which is not installed"
    ):
        list(linked_libraries([Path("/bin/x")], runtime=tmp_path))


def test_no_ldd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="ldd, which lists shared libraries, cannot be run"):
        list(linked_libraries([Path("/bin/x")], runtime=tmp_path))


def fake_ldd(directory: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = directory / "ldd"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{output}END\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


_IMPORTED = """
import sys
import confonnx.cli.serve, confonnx.attestation.attest.sgx, uvloop
for module in list(sys.modules.values()):
    if getattr(module, "__file__", None):
        print(module.__file__)
"""


def test_every_module_that_a_server_imports_would_be_listed() -> None:
    """With the packages of this very environment; the container test repeats it on the image."""
    run = subprocess.run([sys.executable, "-B", "-c", _IMPORTED], capture_output=True, text=True, check=True)
    stdlib, packages = Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))
    listed = {*code_files(stdlib), *code_files(packages)}
    imported = {Path(line) for line in run.stdout.splitlines()}
    needed = {path for path in imported if path.is_relative_to(stdlib) or path.is_relative_to(packages)}
    assert len(needed) > 500
    assert needed - listed == set()
