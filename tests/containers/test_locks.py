"""What images are built from: wheels of the project's own lock file, by hash, and a wheel that repeats."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.build_tree import ROOT, copy_tree


def entries(lock: Path) -> dict[str, str]:
    """Requirement → its lines, hashes included."""
    found: dict[str, str] = {}
    for line in lock.read_text("utf-8").splitlines():
        if not line.startswith(" "):
            name = line
            found[name] = ""
        else:
            found[name] += line.strip()
    return found


@pytest.mark.parametrize("name", ["server.lock", "build.lock"])
def test_images_install_what_the_project_locks(name: str) -> None:
    ours = entries(ROOT / "deploy/docker" / name)
    assert ours
    assert all("--hash=sha256:" in hashes for hashes in ours.values())
    assert ours.items() <= entries(ROOT / "requirements.lock").items(), "run `make lock`"


def test_an_image_has_no_build_tool() -> None:
    names = {name.partition("==")[0] for name in entries(ROOT / "deploy/docker/server.lock")}
    assert {"onnxruntime", "cryptography", "uvloop"} <= names
    assert names.isdisjoint({"hatchling", "pip", "setuptools", "editables"})


def test_two_wheel_builds_are_byte_identical(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there/and/further"):
        tree = copy_tree(tmp_path / place)
        for file in tree.rglob("*.py"):
            os.utime(file, (1_000_000_000 + len(place), 1_000_000_000 + len(place)))
        subprocess.run(
            [
                sys.executable,
                "-m",
                "hatchling",
                "build",
                "--target",
                "wheel",
                "--directory",
                str(tree / "out"),
            ],
            cwd=tree,
            env=os.environ | {"SOURCE_DATE_EPOCH": "1767225600"},
            check=True,
            capture_output=True,
        )
        (wheel,) = (tree / "out").iterdir()
        assert wheel.name.endswith("-py3-none-any.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".so", ".pyd", ".pyc"))]
