"""A container engine for the tests: Podman with a store of its own, and a base image of Debian packages.

No registry is needed: ``debootstrap`` makes a small Debian with Python, which stands in for the pinned base
images under the name that the scripts are told. It has Debian's Python, whatever that name says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.build_tree import ROOT

BASE_IMAGE = "localhost/python:3-slim"
#: Kept in the working tree, which git ignores there, since making it takes a minute or two.
_ROOT_FILESYSTEM = ROOT / "build/containers/base.tar"
_PACKAGES = "python3,python3-venv,ca-certificates"
# No network namespace, no cgroup controller, no systemd: so it works inside a container too.
_ENGINE = """
[containers]
netns = "host"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORE = """
[storage]
driver = "overlay"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
"""


def missing() -> str | None:
    """Why containers cannot be tested here, or None."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "containers are tested as root on Linux"
    programs = [name for name in ("podman", "runc", "debootstrap") if shutil.which(name) is None]
    return f"not installed: {', '.join(programs)}" if programs else None


@contextmanager
def engine(directory: Path) -> Iterator[dict[str, str]]:
    """The environment for the scripts, with an engine whose store is in ``directory`` and holds the base."""
    (directory / "containers.conf").write_text(_ENGINE)
    (directory / "storage.conf").write_text(_STORE.format(directory=directory))
    variables = {
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        "DOCKER": "podman",
        "BUILD_OPTIONS": "--network=host",
        "PYTHON_3_12_IMAGE": BASE_IMAGE,
        "SOURCE_DATE_EPOCH": "1767225600",
    }
    try:
        podman(variables, "import", "--quiet", str(_root_filesystem(directory)), BASE_IMAGE)
        yield variables
    finally:
        podman(variables, "rm", "--all", "--force", check=False)
        podman(variables, "rmi", "--all", "--force", check=False)
        shutil.rmtree(directory, ignore_errors=True)


def podman(variables: dict[str, str], *words: str, check: bool = True) -> str:
    """What ``podman`` printed."""
    run = subprocess.run(
        ["podman", *words],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0 or not check, run.stderr
    return run.stdout


def _root_filesystem(directory: Path) -> Path:
    if _ROOT_FILESYSTEM.is_file():
        return _ROOT_FILESYSTEM
    tree, archive = directory / "debian", directory / "base.tar"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(tree)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=900,
    )
    shutil.rmtree(tree / "var/cache/apt")
    subprocess.run(["tar", "--numeric-owner", "-C", str(tree), "-cf", str(archive), "."], check=True)
    shutil.rmtree(tree)
    _ROOT_FILESYSTEM.parent.mkdir(parents=True, exist_ok=True)
    partial = _ROOT_FILESYSTEM.with_suffix(f".{os.getpid()}")
    shutil.move(archive, partial)
    partial.replace(_ROOT_FILESYSTEM)  # whole, or not at all
    return _ROOT_FILESYSTEM
