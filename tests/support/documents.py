"""Runs the commands of a document as a reader would: block by block, as they are typed, in one directory.

``python -m tests.support.documents PAGE`` runs the blocks marked ``sh`` and ``python`` of a page, in a
network of its own if it was started in one, and stops at the first that fails. A line ``confonnx serve …``
goes on in the background, as in a terminal of its own.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVE = "confonnx serve "
_START_SECONDS = 60.0
_READY = "http://localhost:8888/readyz"
# Linux, netdevice(7).
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page: ``language`` is sh or python, ``line`` where it begins."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The blocks that a reader is meant to run; blocks without a language, or of another, are not."""
    content = page.read_text("utf-8")
    return [
        Block(match[1], match[2], content.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(content)
    ]


def run(page: Path) -> None:
    """Runs every block in the current directory. Raises CalledProcessError for the first that fails."""
    with ExitStack() as servers:
        for block in blocks(page):
            print(f"--- {page.name}, line {block.line}", flush=True)
            if block.language == "python":
                subprocess.run(["python3", "-W", "error", "-c", block.text], check=True)
                continue
            for part in _parts(block.text):
                if part.startswith(_SERVE):
                    servers.enter_context(_serving(part))
                else:
                    subprocess.run(["bash", "-e", "-u", "-o", "pipefail", "-c", part], check=True)


def own_network() -> None:
    """Brings up the loopback interface of a new network namespace, which begins without any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))


def _parts(text: str) -> Iterator[str]:
    """A block, split before and after each line that starts a server."""
    others: list[str] = []
    for line in text.splitlines():
        if line.startswith(_SERVE):
            yield "\n".join(others)
            yield line
            others = []
        else:
            others.append(line)
    yield "\n".join(others)


@contextmanager
def _serving(command: str) -> Iterator[None]:
    with subprocess.Popen(["bash", "-c", f"exec {command}"]) as process:
        try:
            _wait_until_ready(process)
            yield
        finally:
            process.terminate()
            status = process.wait(_START_SECONDS)
    if status:
        raise subprocess.CalledProcessError(status, command)


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(_READY, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server of the page did not start")


if __name__ == "__main__":
    if os.environ.get("OWN_NETWORK"):
        own_network()
    run(Path(sys.argv[1]))
