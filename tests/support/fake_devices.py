"""``/dev/sev-guest`` and ``/dev/nsm`` without a kernel: they follow the pointers in the ioctl's argument."""

from __future__ import annotations

import ctypes
import errno
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cbor2

from tests.support.fake_kernel import QuoteMaker, failure

SNP_GET_EXT_REPORT = 0xC0205302
NSM_RAW = 0xC0200A00


@dataclass
class FakeSevGuest:
    """The kernel's SEV guest driver. ``failures`` are pairs of error number and exitinfo2, each once."""

    report: QuoteMaker
    certificates: bytes = b""
    failures: deque[tuple[int, int]] = field(default_factory=deque)
    status: int = 0
    calls: int = 0

    def ioctl(self, device: str, request: int, argument: bytearray) -> None:
        """``SNP_GET_EXT_REPORT``."""
        self.calls += 1
        assert (device, len(argument)) == ("/dev/sev-guest", 32)
        if request != SNP_GET_EXT_REPORT:
            raise failure(errno.ENOTTY, device)
        version, asked, answer = struct.unpack_from("<B7xQQ", argument)
        if version == 0:
            raise failure(errno.EINVAL, device)
        user_data, vmpl, address, length = struct.unpack("<64sI28xQI4x", ctypes.string_at(asked, 112))
        if self.failures:
            number, exit_info = self.failures.popleft()
            struct.pack_into("<Q", argument, 24, exit_info)
            raise failure(number, device)
        if length % 4096 or length > 16384:
            raise failure(errno.EINVAL, device)
        if len(self.certificates) > length:
            struct.pack_into("<Q", argument, 24, 1 << 32)
            raise failure(errno.EIO, device)
        ctypes.memmove(address, self.certificates, len(self.certificates))
        report = self.report(user_data)
        assert vmpl == 0
        response = struct.pack("<II24x", self.status, len(report)) + report
        ctypes.memmove(answer, response, len(response))


@dataclass
class FakeNsm:
    """A Nitro security module. ``answer`` makes a CBOR value of the members of a request for attestation."""

    answer: Callable[[dict[str, Any]], Any]
    error: int | None = None

    def ioctl(self, device: str, request: int, argument: bytearray) -> None:
        """``NSM_IOCTL_RAW``."""
        assert (device, request, len(argument)) == ("/dev/nsm", NSM_RAW, 32)
        if self.error is not None:
            raise failure(self.error, device)
        address, length, response, capacity = struct.unpack("<QQQQ", argument)
        if length > 0x1000:
            raise failure(errno.EMSGSIZE, device)
        asked = cbor2.loads(ctypes.string_at(address, length))
        answer = self.answer(asked["Attestation"])
        encoded = answer if isinstance(answer, bytes) else cbor2.dumps(answer)
        if len(encoded) > min(capacity, 0x3000):
            raise failure(errno.EMSGSIZE, device)
        ctypes.memmove(response, encoded, len(encoded))
        struct.pack_into("<Q", argument, 24, len(encoded))
