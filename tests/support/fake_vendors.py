"""AMD's KDS and Intel's PCS on loopback: they serve what a test puts at a path, and note what was asked."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


@dataclass
class Page:
    """An answer. ``delay`` is in seconds, before the body; the first ``busy`` answers have status 429."""

    body: bytes = b""
    status: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    busy: int = 0
    length: int | None = None
    """The announced length, where it shall not be the body's."""


@dataclass
class FakeVendors:
    """``pages`` by path with query; ``asked`` are the paths that were asked for, in order."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    heard: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"
    otherwise: Page = field(default_factory=lambda: Page(b"not found", 404))
    """What every other path gets."""

    @property
    def url(self) -> str:
        """The base address of both services."""
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextmanager
def fake_vendors(
    pages: Mapping[str, Page] | None = None, *, tls: ssl.SSLContext | None = None
) -> Iterator[FakeVendors]:
    """A server in a thread, over TLS if so wanted."""
    vendors = FakeVendors(dict(pages or {}), scheme="http" if tls is None else "https")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            vendors.asked.append(self.path)
            vendors.heard.append({name.lower(): value for name, value in self.headers.items()})
            page = vendors.pages.get(self.path, vendors.otherwise)
            if page.busy:
                page.busy -= 1
                page = Page(b"", 429, page.fields)
            self.send_response(page.status)
            for name, value in page.fields.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(page.body) if page.length is None else page.length))
            self.end_headers()
            time.sleep(page.delay)
            try:
                self.wfile.write(page.body)
            except OSError:
                return  # the client had enough

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        vendors.port = server.server_address[1]
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield vendors
        finally:
            server.shutdown()
            thread.join()


def pcs_pages(
    collateral: bytes, *, tee: str, fmspc: str, pck_ca: str = "platform", update: str = "standard"
) -> dict[str, Page]:
    """What Intel's PCS (here a PCCS, which has the root's CRL too) serves for this collateral."""
    parts = json.loads(collateral)
    chain = {"TCB-Info-Issuer-Chain": quote(parts["tcb_info_issuer_chain"])}
    qe_chain = {"SGX-Enclave-Identity-Issuer-Chain": quote(parts["qe_identity_issuer_chain"])}
    crl_chain = {"SGX-PCK-CRL-Issuer-Chain": quote(parts["pck_crl_issuer_chain"])}
    service = f"/{tee}/certification/v4"
    return {
        f"{service}/tcb?fmspc={fmspc}&update={update}": Page(
            _signed("tcbInfo", parts["tcb_info"], parts["tcb_info_signature"]), fields=chain
        ),
        f"{service}/qe/identity?update={update}": Page(
            _signed("enclaveIdentity", parts["qe_identity"], parts["qe_identity_signature"]), fields=qe_chain
        ),
        f"/sgx/certification/v4/pckcrl?ca={pck_ca}&encoding=der": Page(
            bytes.fromhex(parts["pck_crl"]), fields=crl_chain
        ),
        # A PCCS serves this one as hexadecimal text.
        "/sgx/certification/v4/rootcacrl": Page(parts["root_ca_crl"].encode()),
    }


def kds_pages(
    vcek_path: str, vek: x509.Certificate, chain: bytes, crl: x509.CertificateRevocationList, product: str
) -> dict[str, Page]:
    """What AMD's KDS serves for a chip and its product."""
    return {
        vcek_path: Page(vek.public_bytes(Encoding.DER)),
        f"/vcek/v1/{product}/cert_chain": Page(chain),
        f"/vcek/v1/{product}/crl": Page(crl.public_bytes(Encoding.DER)),
    }


def _signed(member: str, document: str, signature: str) -> bytes:
    return f'{{"{member}":{document},"signature":"{signature}"}}'.encode()
