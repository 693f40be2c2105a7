"""``confonnx inspect``: what evidence of any kind says, field by field; nothing about whether it is true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.bundle import Bundle, parse_bundle
from confonnx.attestation.statement import parse_statement
from confonnx.cli import connection as options
from confonnx.cli import evidence_source as source
from confonnx.cli.recognise import ENDORSEMENT_TYPES, Kind, as_endorsement, kind_of, recognise
from confonnx.cli.vendor_fields import describe
from confonnx.errors import BundleError, ConfigurationError, VerificationError
from confonnx.models.documents import read_bytes
from confonnx.models.files import write_file
from confonnx.oip.datatypes import ValueSpec

_CUT = 192  # characters of one value in the outline; every digest fits


def inspect(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Evidence (a quote, a report, a document, a bundle) or endorsements (collateral, "
            "certificates, a CRL, an event log)."
        ),
    ] = None,
    url: source.UrlOrNone = None,
    bundle: source.SavedBundle = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--type",
            metavar="KIND",
            help=f"What FILE is, where its content does not tell: {', '.join(Kind)}.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the bundle to this file, for `confonnx verify --bundle`.")
    ] = None,
    ingress_user: options.IngressUser = "api",
    ingress_pass: options.IngressPass = None,
    ingress_key: options.IngressKey = None,
    ca_file: options.CaFile = None,
    timeout: options.Timeout = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a server, a saved bundle or a file of evidence says, field by field. Verifies nothing."""
    url = source.only_one(context, url, file=file, bundle=bundle)
    if url is not None:
        ingress = options.ingress_auth(ingress_user, ingress_pass, ingress_key)
        found = source.from_server(url, ingress=ingress, ca_file=ca_file, timeout=timeout).bundle
        if save is not None:
            write_file(save, found.encode())
        document = _of_bundle(found)
    else:
        if save is not None:
            raise ConfigurationError("--save goes with --url: a file is there already")
        path = file or bundle
        assert path is not None
        document = _of_file(path, Kind.BUNDLE if bundle is not None else kind)
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        typer.echo("NOT VERIFIED: this is what the evidence says. `confonnx verify` checks it.")
        typer.echo("\n".join(_outline(document)))


def _of_file(path: Path, kind: Kind | None) -> dict[str, object]:
    data = read_bytes(path)
    kind = kind or recognise(data, str(path))
    if kind is Kind.BUNDLE:
        return _of_bundle(parse_bundle(data))
    if kind in ENDORSEMENT_TYPES:
        data = as_endorsement(data, str(path), kind)[1]
    return {"verified": False, "type": str(kind), "bytes": len(data), **describe(kind, data)}


def _of_bundle(bundle: Bundle) -> dict[str, object]:
    return {
        "verified": False,
        "evidence": _record(bundle.evidence_type, bundle.evidence),
        "endorsements": [_record(media_type, data) for media_type, data in bundle.endorsements],
        "statement": _statement(bundle.statement),
    }


def _record(media_type: str, data: bytes) -> dict[str, object]:
    described: dict[str, object] = {"type": media_type, "bytes": len(data)}
    kind = kind_of(media_type)
    if kind is None:
        return described | {"unreadable": "this media type is unknown here"}
    try:
        return described | describe(kind, data)
    except VerificationError as error:
        return described | {"unreadable": str(error)}


def _statement(data: bytes) -> object:
    try:
        return _plain(parse_statement(data))
    except BundleError as error:
        return {"bytes": len(data), "unreadable": str(error)}


def _plain(value: object) -> object:
    """``value`` as JSON would have it: bytes in hex, instants and durations as text."""
    match value:
        case ValueSpec():
            return value.to_json()
        case Enum():
            return value.name
        case bytes():
            return value.hex()
        case datetime():
            return value.isoformat()
        case timedelta():
            return f"{value.total_seconds():g} s"
        case tuple() | list():
            return [_plain(item) for item in value]
        case _ if is_dataclass(value):
            return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
        case _:
            return value


def _outline(document: Mapping[str, object], indent: str = "") -> list[str]:
    """Nested members as indented lines; long values are cut."""
    lines = []
    for name, value in document.items():
        match value:
            case dict():
                lines += [f"{indent}{name}:", *_outline(value, f"{indent}  ")]
            case list() if any(isinstance(item, dict) for item in value):
                for number, item in enumerate(value):
                    lines += [f"{indent}{name}[{number}]:", *_outline(item, f"{indent}  ")]
            case list():
                lines.append(f"{indent}{name}: {', '.join(map(str, value)) or '(none)'}")
            case _:
                lines.append(f"{indent}{name}: {_cut(str(value))}")
    return lines


def _cut(text: str) -> str:
    # What the evidence says may be anybody's text, and this is a terminal.
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return text if len(text) <= _CUT else f"{text[:_CUT]}… ({len(text)} characters)"
