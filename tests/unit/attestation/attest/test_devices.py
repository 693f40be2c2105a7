"""Pseudo-files and ioctls of the real kernel, as far as any machine has them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
import threading
from pathlib import Path

import pytest

from confonnx.attestation.attest.devices import KernelFiles, device_errors, kernel_ioctl
from confonnx.errors import TeeError

FILES = KernelFiles()


def test_a_file_in_pieces(tmp_path: Path) -> None:
    """A pipe gives what there is; only nothing means the end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pieces = [b"a" * 100, b"b" * 70_000, b"c"]

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    assert FILES.read(str(pipe)) == b"".join(pieces)
    thread.join()


def test_a_file_without_end() -> None:
    with pytest.raises(OSError, match="too large") as caught:
        FILES.read("/dev/zero")
    assert caught.value.errno == errno.EFBIG


def test_a_file_of_the_kernel() -> None:
    assert FILES.exists("/proc/self/status")
    assert FILES.read("/proc/self/status").startswith(b"Name:")


def test_writing_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "inblob"
    with pytest.raises(FileNotFoundError):
        FILES.write(str(path), b"data")
    assert not path.exists()
    path.write_bytes(b"longer than that")
    FILES.write(str(path), b"data")
    assert path.read_bytes() == b"dataer than that"


def test_a_short_write(tmp_path: Path) -> None:
    """A full pipe takes a part."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    original = os.open
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", lambda path, flags: original(path, flags | os.O_NONBLOCK))
            with pytest.raises(OSError, match=r"took \d+ of 1000000 bytes"):
                FILES.write(str(pipe), bytes(1_000_000))
    finally:
        os.close(reader)


def test_directories(tmp_path: Path) -> None:
    path = str(tmp_path / "request")
    FILES.make_directory(path)
    assert FILES.exists(path)
    with pytest.raises(FileExistsError):
        FILES.make_directory(path)
    FILES.remove_directory(path)
    assert not FILES.exists(path)


def test_an_ioctl_changes_its_argument() -> None:
    ours, theirs = os.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 7, 9, 0, 0))
        argument = bytearray(8)
        kernel_ioctl(os.ttyname(theirs), termios.TIOCGWINSZ, argument)
        assert struct.unpack("HHHH", argument) == (7, 9, 0, 0)
    finally:
        os.close(ours)
        os.close(theirs)


def test_an_ioctl_that_is_none() -> None:
    with pytest.raises(OSError, match="ioctl") as caught:
        kernel_ioctl("/dev/null", 0xC0205302, bytearray(32))
    assert caught.value.errno == errno.ENOTTY


DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("error", "hint", "text"),
    [
        (DENIED, "", r"^the device: Permission denied \(EACCES\); .*run-in-a-tee"),
        (DENIED, "look", r"^the device: Permission denied \(EACCES\); look$"),
        (TimeoutError("timed out"), "", r"^the device: timed out \(no error number\)$"),
    ],
)
def test_errors_say_what_failed_and_what_to_do(error: OSError, hint: str, text: str) -> None:
    with pytest.raises(TeeError, match=text), device_errors("the device", hint):
        raise error
