"""Where ``verify`` and ``inspect`` get evidence from: a server, a saved bundle or a file of bare evidence."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.bundle import Bundle, parse_bundle
from confonnx.cli.connection import SERVER
from confonnx.client.flows import NONCE_BYTES, attestation_request, read_bundle
from confonnx.client.options import Connection, IngressAuth, ingress_authorization, parse_url
from confonnx.client.transport import HttpTransport
from confonnx.errors import ConfigurationError
from confonnx.models.documents import read_bytes

UrlOrNone = Annotated[
    str | None,
    typer.Option("--url", help="Address of the server.", envvar="CONFONNX_URL", rich_help_panel=SERVER),
]
SavedBundle = Annotated[
    Path | None,
    typer.Option("--bundle", help="Saved attestation bundle instead of a server.", rich_help_panel=SERVER),
]
Nonce = Annotated[
    str | None,
    typer.Option(help="Nonce that the saved bundle must answer, in hex.", rich_help_panel=SERVER),
]
Instant = Annotated[
    str | None,
    typer.Option(
        "--now",
        metavar="TIME",
        help="Judge as of this time, such as 2026-02-01T00:00:00Z, instead of the clock's.",
    ),
]


@dataclass(frozen=True, slots=True)
class Source:
    """A bundle, the nonce it should answer (None: not known) and the time to judge it at."""

    bundle: Bundle
    nonce: bytes | None
    now: datetime


def from_server(url: str, *, ingress: IngressAuth | None, ca_file: Path | None, timeout: float) -> Source:
    """Ask the server at ``url`` for evidence that answers a fresh nonce."""
    connection = Connection(
        url=parse_url(url), ingress_authorization=ingress_authorization(ingress), ca_file=ca_file
    )
    transport = HttpTransport(connection)
    nonce = secrets.token_bytes(NONCE_BYTES)
    request = attestation_request(nonce)
    try:
        response = transport.send(request, timeout=timeout)
    finally:
        transport.close()
    return Source(read_bundle(request, response), nonce, response.received_at)


def from_file(path: Path, *, nonce: str | None) -> Source:
    """The bundle that ``confonnx inspect --save`` wrote."""
    wanted = None if nonce is None else parse_hex(nonce, "--nonce")
    return Source(parse_bundle(read_bytes(path)), wanted, datetime.now(UTC))


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant. Raises :class:`ConfigurationError`."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ConfigurationError(
            f"--now takes a time with its zone, such as 2026-02-01T00:00:00Z; found {text!r}"
        )
    return instant.astimezone(UTC)


def parse_hex(text: str, option: str) -> bytes:
    """The bytes that ``option`` gives in hexadecimal. Raises :class:`ConfigurationError`."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigurationError(f"{option} takes hexadecimal digits; found {text!r}") from None


def only_one(context: typer.Context, url: str | None, **files: Path | None) -> str | None:
    """The server's address, or None where one of ``files`` (by option name) is the source.

    An address from the environment gives way to a file. Raises :class:`ConfigurationError` unless exactly one
    source is given.
    """
    given = [name for name, path in files.items() if path is not None]
    origin = context.get_parameter_source("url")
    if given and origin is not None and origin.name == "ENVIRONMENT":
        url = None
    if len(given) + (url is not None) != 1:
        names = ", ".join(["--url", *("FILE" if name == "file" else f"--{name}" for name in files)])
        raise ConfigurationError(f"give exactly one of {names}")
    return url
