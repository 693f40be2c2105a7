"""A copy of what the build scripts need, so that a test's builds leave nothing in the working tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NEEDED = ("deploy", "docker", "src", "enclave.conf", "pyproject.toml", "README.md", "LICENSE")


def copy_tree(target: Path) -> Path:
    """``target``, filled."""
    for name in _NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


def run_script(tree: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` of ``tree`` to its end, with ``variables`` added to the environment."""
    return subprocess.run(
        [str(tree / script)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
        timeout=600,
    )
