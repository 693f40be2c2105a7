"""The statement: what a server says of itself, in the exact bytes that its evidence binds.

The evidence's report data is ``SHA-512("confonnx attestation v1" ‖ 00 ‖ statement)``, so everything that a
client relies on is in here: the keys it will seal to, the models that will answer, the limits it may count
on. The bytes are canonical JSON (``canonical_json``)::

    {"authentication":["bearer"],
     "deployment":"production",
     "issued_at":"2026-11-24T08:00:00Z",
     "keys":[{"config":"<base64url>","epoch":7,"not_after":"…","not_before":"…"}],
     "limits":{"max_request_bytes":67108864,"max_response_bytes":67108864,"replay_window_seconds":120},
     "models":[{"digest":"<64 hex>","inputs":[…],"name":"digits","outputs":[…],"version":"1"}],
     "nonce":"<base64url>" or null,
     "server_version":"0.1.0",
     "version":1}

A statement of another version, with a member that this version lacks, or in any other spelling of the same
value is refused: a verifier that skipped a member would vouch for something that it did not read.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from confonnx.attestation import base64url, canonical_json
from confonnx.attestation.canonical_json import Json
from confonnx.errors import BundleError, KeyConfigError, OipError
from confonnx.ohttp.key_config import KeyConfig, parse_key_config
from confonnx.oip.datatypes import ValueSpec

VERSION: Final = 1
REPORT_DATA_LABEL: Final = b"confonnx attestation v1"
NONCE_SIZES: Final = range(16, 65)  # bytes
AUTHENTICATION_SCHEMES: Final = ("basic", "bearer")  # RFC 9110 §11.1 names, inside the seal
MAX_KEYS: Final = 16
MAX_MODELS: Final = 4096
MAX_TEXT: Final = 256  # characters of a name, a version, a deployment

_DIGEST = re.compile(r"[0-9a-f]{64}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class AttestedKey:
    """One key configuration (RFC 9458 §3), the key epoch it belongs to, and when a client may seal to it.

    The instants are aware and in UTC; ``not_before`` ≤ t < ``not_after``. The wire carries whole seconds.
    """

    config: KeyConfig
    epoch: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model that the server answers for. ``digest`` is 64 lower-case hex digits (SHA-256, what
    ``hash-model`` prints).
    """

    name: str
    version: str
    digest: str
    inputs: tuple[ValueSpec, ...]
    outputs: tuple[ValueSpec, ...]


@dataclass(frozen=True, slots=True)
class StatementLimits:
    """What the server holds requests to: sizes in bytes of the sealed messages, and how old a sealed
    ``Date`` may be.
    """

    max_request_bytes: int
    max_response_bytes: int
    replay_window: timedelta


@dataclass(frozen=True, slots=True)
class Statement:
    """See the module. ``nonce`` is the client's, 16 to 64 bytes, or None; ``authentication`` is empty when
    the server asks for none.
    """

    issued_at: datetime
    nonce: bytes | None
    keys: tuple[AttestedKey, ...]
    models: tuple[ModelDescription, ...]
    deployment: str
    server_version: str
    authentication: tuple[str, ...]
    limits: StatementLimits

    def encode(self) -> bytes:
        """The canonical bytes. Instants and durations lose their fractions of a second.

        Raises ``BundleError`` for a value that ``parse_statement`` would not take back.
        """
        data = _canonical(self)
        _read(data)
        return data


def parse_statement(data: bytes) -> Statement:
    """The statement in ``data``, which are its canonical bytes and nothing else. Raises ``BundleError``.

    Nothing in it is to be believed before ``verify.appraise`` found evidence that binds these bytes.
    """
    statement = _read(data)
    # One spelling for one value: no second reader can find another meaning in the bytes that were hashed.
    if _canonical(statement) != data:
        raise BundleError("the statement is not in canonical form: white space, order or escapes differ")
    return statement


def report_data(statement: bytes) -> bytes:
    """The 64 bytes that evidence must carry to vouch for ``statement``, the exact bytes (D3)."""
    return hashlib.sha512(REPORT_DATA_LABEL + b"\0" + statement).digest()


def _canonical(statement: Statement) -> bytes:
    return canonical_json.encode(
        {
            "authentication": statement.authentication,
            "deployment": statement.deployment,
            "issued_at": _write_instant(statement.issued_at),
            "keys": [_write_key(key) for key in statement.keys],
            "limits": {
                "max_request_bytes": statement.limits.max_request_bytes,
                "max_response_bytes": statement.limits.max_response_bytes,
                "replay_window_seconds": statement.limits.replay_window // timedelta(seconds=1),
            },
            "models": [_write_model(model) for model in statement.models],
            "nonce": None if statement.nonce is None else base64url.encode(statement.nonce),
            "server_version": statement.server_version,
            "version": VERSION,
        }
    )


def _read(data: bytes) -> Statement:
    members = canonical_json.parse_object(data, what="the statement")
    # The version first: the members of another version would only give a confusing error.
    if members.get("version") != VERSION:
        raise BundleError(
            f"the statement has version {members.get('version')!r}, expected {VERSION}: client and server "
            "do not speak the same version; upgrade the older one"
        )
    canonical_json.check_names(members, _STATEMENT_MEMBERS, "the statement")
    keys = tuple(
        _read_key(key, f"keys[{index}]") for index, key in enumerate(_bounded(members, "keys", 1, MAX_KEYS))
    )
    models = tuple(
        _read_model(model, f"models[{index}]")
        for index, model in enumerate(_bounded(members, "models", 0, MAX_MODELS))
    )
    _check_unique([str(key.config.key_id) for key in keys], "keys: key identifier")
    _check_unique([f"{model.name} version {model.version}" for model in models], "models:")
    return Statement(
        issued_at=_read_instant(members["issued_at"], "issued_at"),
        nonce=_read_nonce(members["nonce"]),
        keys=keys,
        models=models,
        deployment=_read_text(members["deployment"], "deployment", minimum=0),
        server_version=_read_text(members["server_version"], "server_version"),
        authentication=_read_authentication(members["authentication"]),
        limits=_read_limits(members["limits"]),
    )


_STATEMENT_MEMBERS = frozenset(
    [
        "authentication",
        "deployment",
        "issued_at",
        "keys",
        "limits",
        "models",
        "nonce",
        "server_version",
        "version",
    ]
)
_KEY_MEMBERS = frozenset({"config", "epoch", "not_before", "not_after"})
_MODEL_MEMBERS = frozenset({"digest", "inputs", "name", "outputs", "version"})
_LIMIT_MEMBERS = frozenset({"max_request_bytes", "max_response_bytes", "replay_window_seconds"})


def _write_key(key: AttestedKey) -> dict[str, Json]:
    return {
        "config": base64url.encode(key.config.encode()),
        "epoch": key.epoch,
        "not_before": _write_instant(key.not_before),
        "not_after": _write_instant(key.not_after),
    }


def _read_key(value: Json, what: str) -> AttestedKey:
    members = canonical_json.as_object(value, what)
    canonical_json.check_names(members, _KEY_MEMBERS, what)
    encoded = base64url.decode(
        canonical_json.as_string(members["config"], f"{what}.config"), what=f"{what}.config"
    )
    try:
        config = parse_key_config(encoded)
    except KeyConfigError as error:
        raise BundleError(f"{what}.config: {error}") from error
    key = AttestedKey(
        config=config,
        epoch=canonical_json.as_integer(members["epoch"], f"{what}.epoch"),
        not_before=_read_instant(members["not_before"], f"{what}.not_before"),
        not_after=_read_instant(members["not_after"], f"{what}.not_after"),
    )
    if key.not_before >= key.not_after:
        raise BundleError(
            f"{what}: not_before {members['not_before']} is not before not_after {members['not_after']}"
        )
    return key


def _write_model(model: ModelDescription) -> dict[str, Json]:
    return {
        "digest": model.digest,
        "inputs": [cast("Json", spec.to_json()) for spec in model.inputs],
        "name": model.name,
        "outputs": [cast("Json", spec.to_json()) for spec in model.outputs],
        "version": model.version,
    }


def _read_model(value: Json, what: str) -> ModelDescription:
    members = canonical_json.as_object(value, what)
    canonical_json.check_names(members, _MODEL_MEMBERS, what)
    digest = canonical_json.as_string(members["digest"], f"{what}.digest")
    if not _DIGEST.fullmatch(digest):
        raise BundleError(f"{what}.digest: expected 64 lower-case hex digits, found {digest[:80]!r}")
    return ModelDescription(
        name=_read_text(members["name"], f"{what}.name"),
        version=_read_text(members["version"], f"{what}.version"),
        digest=digest,
        inputs=_read_specs(members["inputs"], f"{what}.inputs"),
        outputs=_read_specs(members["outputs"], f"{what}.outputs"),
    )


def _read_specs(value: Json, what: str) -> tuple[ValueSpec, ...]:
    try:
        return tuple(ValueSpec.from_json(item) for item in canonical_json.as_array(value, what))
    except OipError as error:
        raise BundleError(f"{what}: {error}") from error


def _read_limits(value: Json) -> StatementLimits:
    members = canonical_json.as_object(value, "limits")
    canonical_json.check_names(members, _LIMIT_MEMBERS, "limits")
    seconds = canonical_json.as_integer(
        members["replay_window_seconds"], "limits.replay_window_seconds", minimum=1
    )
    if seconds > _MAX_REPLAY_WINDOW_SECONDS:
        raise BundleError(f"limits.replay_window_seconds: {seconds} is more than a day")
    return StatementLimits(
        max_request_bytes=canonical_json.as_integer(
            members["max_request_bytes"], "limits.max_request_bytes", minimum=1
        ),
        max_response_bytes=canonical_json.as_integer(
            members["max_response_bytes"], "limits.max_response_bytes", minimum=1
        ),
        replay_window=timedelta(seconds=seconds),
    )


_MAX_REPLAY_WINDOW_SECONDS = 86_400


def _read_authentication(value: Json) -> tuple[str, ...]:
    schemes = tuple(
        canonical_json.as_string(item, "authentication")
        for item in canonical_json.as_array(value, "authentication")
    )
    if unknown := [scheme for scheme in schemes if scheme not in AUTHENTICATION_SCHEMES]:
        raise BundleError(
            f"authentication: {unknown[0][:80]!r} is none of {', '.join(AUTHENTICATION_SCHEMES)}"
        )
    _check_unique(list(schemes), "authentication:")
    return schemes


def _read_nonce(value: Json) -> bytes | None:
    if value is None:
        return None
    nonce = base64url.decode(canonical_json.as_string(value, "nonce"), what="nonce")
    if len(nonce) not in NONCE_SIZES:
        raise BundleError(f"nonce: expected {NONCE_SIZES[0]} to {NONCE_SIZES[-1]} bytes, found {len(nonce)}")
    return nonce


def _read_text(value: Json, what: str, *, minimum: int = 1) -> str:
    text = canonical_json.as_string(value, what)
    if not minimum <= len(text) <= MAX_TEXT:
        raise BundleError(f"{what}: expected {minimum} to {MAX_TEXT} characters, found {len(text)}")
    if not text.isprintable():  # an error or a report that shows it must show all of it
        raise BundleError(f"{what}: has characters that cannot be printed")
    return text


def _bounded(members: Mapping[str, Json], name: str, minimum: int, maximum: int) -> list[Json]:
    items = list(canonical_json.as_array(members[name], name))
    if not minimum <= len(items) <= maximum:
        raise BundleError(f"{name}: expected {minimum} to {maximum} entries, found {len(items)}")
    return items


def _check_unique(names: list[str], what: str) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise BundleError(f"{what} {repeated[0]} occurs twice")


def _write_instant(value: datetime) -> str:
    if value.utcoffset() != timedelta(0):
        raise BundleError(f"the instant {value.isoformat()} is not in UTC")
    return value.astimezone(UTC).strftime(_INSTANT_FORMAT)


def _read_instant(value: Json, what: str) -> datetime:
    """An RFC 3339 instant of whole seconds, in UTC."""
    text = canonical_json.as_string(value, what)
    if not _INSTANT.fullmatch(text):
        raise BundleError(f"{what}: expected an instant like 2026-11-24T08:00:00Z, found {text[:40]!r}")
    try:
        return datetime.strptime(text, _INSTANT_FORMAT).replace(tzinfo=UTC)
    except ValueError as error:
        raise BundleError(f"{what}: {text} is no date") from error
