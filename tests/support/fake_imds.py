"""Azure's instance metadata service on loopback."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeImds:
    """``certificates`` answers for AMD, ``td_quote`` for Intel; ``asked`` are method and path."""

    certificates: bytes = b""
    td_quote: Callable[[bytes], bytes] = bytes
    status: int = 200
    body: bytes | None = None  # instead of any other
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The body for a request that is right; else it fails the test in the server's thread, with 500."""
        self.asked.append(f"{method} {path}")
        if self.body is not None:
            return self.body
        if (method, path) == ("GET", "/metadata/THIM/amd/certification"):
            return self.certificates
        assert (method, path) == ("POST", "/acc/tdquote")
        report = json.loads(body)["report"]
        assert "=" not in report
        quote = self.td_quote(base64.urlsafe_b64decode(report + "=" * (-len(report) % 4)))
        return json.dumps({"quote": base64.urlsafe_b64encode(quote).decode()}).encode()


@contextmanager
def fake_imds(imds: FakeImds) -> Iterator[FakeImds]:
    """``imds`` in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Metadata"] == "true"
            self._answer("GET", b"")

        def do_POST(self) -> None:
            self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, method: str, body: bytes) -> None:
            answer = imds.answer(method, self.path, body)
            self.send_response(imds.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        imds.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield imds
        finally:
            server.shutdown()
            thread.join()


def certification(vcek: bytes, chain: bytes) -> bytes:
    """What IMDS says of an AMD processor; both are PEM."""
    return json.dumps(
        {"vcekCert": vcek.decode(), "tcbm": "DB18000000000004", "certificateChain": chain.decode()}
    ).encode()
