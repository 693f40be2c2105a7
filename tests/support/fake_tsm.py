"""configfs-tsm without a kernel (Documentation/ABI/testing/configfs-tsm-report): requests are directories."""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from tests.support.fake_kernel import FakeFiles, QuoteMaker, failure

DIRECTORY = "/sys/kernel/config/tsm/report"
MAX_INBLOB = 64


@dataclass
class _Request:
    inblob: bytes | None = None
    generation: int = 0
    answered: int = -1  # generation of the report that outblob and auxblob give
    outblob: bytes = b""


class FakeTsm(FakeFiles):
    """A kernel with ``provider`` ("sev_guest", "tdx_guest"; None: no driver registered), whose reports are
    ``report(inblob)``.

    ``errors`` are numbers to fail with, by operation and file, each once and in order: ``"write inblob"``,
    ``"read outblob"``, ``"mkdir"``. ``intrude`` is called after each write of an inblob with the directory's
    path: what another root process does in between.
    """

    def __init__(
        self,
        report: QuoteMaker,
        provider: str | None = "sev_guest",
        *,
        auxblob: bytes | None = b"",
        contents: dict[str, bytes | int] | None = None,
    ) -> None:
        super().__init__({DIRECTORY: errno.EISDIR, **(contents or {})})
        self.errors: dict[str, deque[int]] = {}
        self.intrude: Callable[[str], None] = lambda path: None
        self.most_at_once = 0
        self.requests: dict[str, _Request] = {}
        self._report = report
        self._provider = provider
        self._auxblob = auxblob
        self._lock = threading.Lock()

    def fail(self, operation: str, *numbers: int) -> None:
        """Let the next calls of ``operation`` fail with these."""
        self.errors[operation] = deque(numbers)

    def make_directory(self, path: str) -> None:
        self._maybe_fail("mkdir", path)
        if self._provider is None:
            raise failure(errno.ENXIO, path)
        with self._lock:
            if path in self.requests:
                raise failure(errno.EEXIST, path)
            self.requests[path] = _Request()
            self.most_at_once = max(self.most_at_once, len(self.requests))

    def remove_directory(self, path: str) -> None:
        if self.requests.pop(path, None) is None:
            raise failure(errno.ENOENT, path)

    def write(self, path: str, data: bytes) -> None:
        directory, _, name = path.rpartition("/")
        request = self._request(directory)
        self._maybe_fail(f"write {name}", path)
        if name != "inblob":
            raise failure(errno.EACCES, path)
        if len(data) > MAX_INBLOB:
            raise failure(errno.EFBIG, path)
        request.inblob = data
        request.generation += 1
        self.intrude(directory)

    def read(self, path: str) -> bytes:
        directory, _, name = path.rpartition("/")
        if directory not in self.requests:
            return super().read(path)
        request = self._request(directory)
        self._maybe_fail(f"read {name}", path)
        match name:
            case "provider":
                return f"{self._provider}\n".encode()
            case "generation":
                return f"{request.generation}\n".encode()
            case "outblob":
                return self._answered(request, path).outblob
            case "auxblob" if self._auxblob is not None:
                self._answered(request, path)
                return self._auxblob
            case _:
                raise failure(errno.ENOENT, path)

    def _answered(self, request: _Request, path: str) -> _Request:
        if request.inblob is None or (self._provider == "sev_guest" and len(request.inblob) != MAX_INBLOB):
            raise failure(errno.EINVAL, path)
        if request.answered != request.generation:
            request.outblob = self._report(request.inblob)
            request.answered = request.generation
        return request

    def _request(self, directory: str) -> _Request:
        if directory not in self.requests:
            raise failure(errno.ENOENT, directory)
        return self.requests[directory]

    def _maybe_fail(self, operation: str, path: str) -> None:
        if self.errors.get(operation):
            raise failure(self.errors[operation].popleft(), path)


def table(entries: dict[str, bytes]) -> bytes:
    """A GHCB certificate table of certificates by GUID."""
    offset = 24 * (len(entries) + 1)
    head, body = b"", b""
    for guid, content in entries.items():
        head += UUID(guid).bytes_le + (offset + len(body)).to_bytes(4, "little")
        head += len(content).to_bytes(4, "little")
        body += content
    return head + bytes(24) + body
