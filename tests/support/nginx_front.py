"""nginx, as Debian has it, before servers on loopback: TLS by its own authority, and what a test adds."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.authorities.pki import Template, ec_key

_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NginxFront:
    """A running nginx. ``url`` ends with a slash; ``plain_url`` is the one without TLS."""

    url: str
    plain_url: str
    ca_file: Path
    access_log: Path


@contextmanager
def nginx_front(
    directory: Path, *, servers: Sequence[int], locations: str, upstream: str = ""
) -> Iterator[NginxFront]:
    """nginx with these ``location`` blocks, which find the ``servers`` (ports) as ``http://model``;
    ``upstream``: directives about how to choose among them. The plain port redirects, as ingresses do."""
    secure, plain = _free_ports(2)
    ca_file = _certificates(directory)
    config = directory / "nginx.conf"
    config.write_text(_config(directory, servers, locations, upstream, secure, plain), "utf-8")
    process = subprocess.Popen(
        [_nginx(), "-p", str(directory), "-c", str(config), "-e", str(directory / "error.log")],
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_for(secure, process, directory / "error.log")
        yield NginxFront(
            f"https://localhost:{secure}/", f"http://localhost:{plain}/", ca_file, directory / "access.log"
        )
    finally:
        process.terminate()
        process.wait(10)


def need_nginx() -> None:
    """Skip without nginx, with a reason; fail in CI."""
    if not os.path.exists(_nginx()):
        message = "nginx is not installed (`make test` installs it where it can)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def write_passwords(path: Path, users: dict[str, str]) -> Path:
    """A file as ``htpasswd -s`` writes it."""
    lines = (
        f"{user}:{{SHA}}{base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()}\n"
        for user, password in users.items()
    )
    path.write_text("".join(lines), "utf-8")
    return path


def _nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"  # not on the PATH of every user


def _config(
    directory: Path, servers: Sequence[int], locations: str, upstream: str, secure: int, plain: int
) -> str:
    members = "\n".join(f"        server 127.0.0.1:{port};" for port in servers)
    temporary = "\n".join(
        f"    {kind}_temp_path {directory / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off;
pid {directory / "nginx.pid"};
worker_processes 1;
{"user root;" if os.getuid() == 0 else ""}
events {{ }}
http {{
    access_log {directory / "access.log"};
{temporary}
    upstream model {{
{upstream}
{members}
    }}
    server {{
        listen 127.0.0.1:{plain};
        return 308 https://localhost:{secure}$request_uri;
    }}
    server {{
        listen 127.0.0.1:{secure} ssl;
        server_name localhost;
        ssl_certificate {directory / "server.pem"};
        ssl_certificate_key {directory / "server.key"};
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Request-ID $request_id;
{locations}
    }}
}}
"""


def _certificates(directory: Path) -> Path:
    """Writes ``server.pem`` and ``server.key``; returns the file of the authority that vouches for them."""
    now = datetime.now(UTC)
    days = {"not_before": now - timedelta(days=1), "not_after": now + timedelta(days=1)}
    authority_key, key = ec_key("nginx authority"), ec_key("nginx server")
    known_as = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    by = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_as)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    authority = Template("nginx authority", authority_key, ca=True, extensions=((known_as, False),)).but(
        **days
    )
    server = Template(
        "localhost",
        key,
        issuer=authority,
        serial=8,
        extensions=((x509.SubjectAlternativeName(names), False), (by, False)),
    ).but(**days)
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(authority.build().public_bytes(Encoding.PEM))
    (directory / "server.pem").write_bytes(server.build().public_bytes(Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return ca_file


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(item.getsockname()[1]) for item in held]
    for item in held:
        item.close()
    return ports


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    context = ssl._create_unverified_context()  # only to see whether it listens
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as plain, context.wrap_socket(plain):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nginx did not start: {log.read_text('utf-8')}")
