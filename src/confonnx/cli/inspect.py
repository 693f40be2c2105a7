"""``confonnx inspect``: what a server says about itself. Says nothing about whether it is true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation import claims as media_types
from confonnx.attestation.bundle import Bundle
from confonnx.attestation.formats import snp_report
from confonnx.attestation.statement import Statement, parse_statement
from confonnx.attestation.verify import simulated
from confonnx.cli import connection as options
from confonnx.cli import evidence_source as source
from confonnx.errors import VerificationError
from confonnx.models.files import write_file
from confonnx.oip.datatypes import ValueSpec


def inspect(
    url: source.UrlOrNone = None,
    bundle: source.SavedBundle = None,
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
    """Show what a server, or a saved bundle, says about itself: code, keys, models. Verifies nothing."""
    source.only_one(url, bundle)
    if url is not None:
        ingress = options.ingress_auth(ingress_user, ingress_pass, ingress_key)
        found = source.from_server(url, ingress=ingress, ca_file=ca_file, timeout=timeout)
    else:
        assert bundle is not None
        found = source.from_file(bundle, nonce=None)
    if save is not None:
        write_file(save, found.bundle.encode())
    document = {
        "verified": False,
        "evidence": _evidence(found.bundle),
        "statement": _statement(parse_statement(found.bundle.statement)),
    }
    if as_json:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        typer.echo("NOT VERIFIED: this is what the server says. `confonnx verify` checks it.")
        typer.echo("\n".join(_outline(document)))


def _evidence(bundle: Bundle) -> dict[str, object]:
    described: dict[str, object] = {"type": bundle.evidence_type, "bytes": len(bundle.evidence)}
    try:
        match bundle.evidence_type:
            case simulated.SIMULATED_EVIDENCE:
                described |= _plain_members(simulated.verify(bundle.evidence))
            case media_types.SEV_SNP_REPORT:
                described |= _plain_members(snp_report.parse(bundle.evidence))
            case _:
                pass  # the size and type say what can be said
    except VerificationError as error:
        described["unreadable"] = str(error)
    if bundle.endorsements:
        described["endorsements"] = [f"{kind} ({len(data)} bytes)" for kind, data in bundle.endorsements]
    return described


def _statement(statement: Statement) -> dict[str, object]:
    return _plain_members(statement)


def _plain_members(value: object) -> dict[str, object]:
    plain = _plain(value)
    assert isinstance(plain, dict)
    return plain


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
                text = str(value)
                lines.append(
                    f"{indent}{name}: {text if len(text) <= 140 else f'{text[:128]}… ({len(text)})'}"
                )
    return lines
