"""Reports of a confidential VM through configfs, the kernel's interface for SEV-SNP and TDX since Linux 6.7.

Kernel documentation, ABI/testing/configfs-tsm-report: a directory stands for a request; ``inblob`` takes
what is to be bound, ``outblob`` gives the report and ``auxblob`` what the host adds to it. ``generation``
counts the writes to a directory, so a reader can tell that nobody wrote in between. Each request has a
directory of its own here; the count is checked all the same, because root can write to any.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from confonnx.attestation.attest.devices import PAUSES, Files, Wait, device_errors
from confonnx.errors import TeeError

DIRECTORY: Final = "/sys/kernel/config/tsm/report"
SEV_GUEST: Final = "sev_guest"
TDX_GUEST: Final = "tdx_guest"

_WRITES: Final = 1  # what generation must grow by
_AGAIN: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})


@dataclass(frozen=True, slots=True)
class TsmReport:
    """``outblob`` and ``auxblob`` of one request; ``auxblob`` is empty where the host adds nothing."""

    outblob: bytes
    auxblob: bytes


def find_provider(files: Files) -> str | None:
    """Which TEE's driver gives reports, such as :data:`SEV_GUEST`; None where there is none.

    Raises ``TeeError`` when the interface is there and cannot be used.
    """
    if not files.exists(DIRECTORY):
        return None
    try:
        with device_errors(DIRECTORY), _entry(files) as entry:
            return files.read(f"{entry}/provider").rstrip(b"\n").decode("ascii", "replace")
    except TeeError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENXIO:
            return None  # the module is loaded, and no TEE's driver registered with it
        raise


def request_report(files: Files, report_data: bytes, *, wait: Wait) -> TsmReport:
    """A report that binds ``report_data`` (64 bytes). Waits for a busy device. Raises ``TeeError``."""
    for pause in PAUSES:
        report = _try(files, report_data)
        if report is not None:
            return report
        wait(pause)
    raise TeeError(
        f"{DIRECTORY}: the device stayed busy, or others kept writing to our requests, {len(PAUSES)} times; "
        "look for another program that asks for reports"
    )


def _try(files: Files, report_data: bytes) -> TsmReport | None:
    """One request; None if it has to be made again."""
    try:
        with _entry(files) as entry:
            before = _generation(files, entry)
            files.write(f"{entry}/inblob", report_data)
            outblob = files.read(f"{entry}/outblob")
            auxblob = _auxblob(files, entry)
            after = _generation(files, entry)
    except OSError as error:
        if error.errno in _AGAIN:
            return None
        with device_errors(f"report from {DIRECTORY}", _ADVICE.get(error.errno or 0, "")):
            raise
    return TsmReport(outblob, auxblob) if after - before == _WRITES else None


_ADVICE: Final = {
    errno.ENXIO: "no TEE driver is there any more (sev-guest or tdx-guest)",
    errno.EINVAL: "the driver refuses the request: this may be no guest of its TEE, or not at VMPL 0",
    errno.EFBIG: "the host's certificates do not fit the driver's buffer",
    errno.ENOTTY: "the driver gave up the guest's key after an error; restart the VM",
}


def _auxblob(files: Files, entry: str) -> bytes:
    """Some drivers have none to give, and some have no such file."""
    with suppress(FileNotFoundError):
        return files.read(f"{entry}/auxblob")
    return b""


def _generation(files: Files, entry: str) -> int:
    text = files.read(f"{entry}/generation")
    try:
        return int(text)
    except ValueError as error:
        raise TeeError(f"{DIRECTORY}: generation is {text[:40]!r}, expected a number") from error


@contextmanager
def _entry(files: Files) -> Iterator[str]:
    """A directory that nobody else has."""
    path = f"{DIRECTORY}/confonnx-{os.getpid()}-{secrets.token_hex(8)}"
    files.make_directory(path)
    try:
        yield path
    finally:
        files.remove_directory(path)
