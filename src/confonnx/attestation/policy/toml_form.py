"""The TOML form of a policy: one text for one policy, and no key that is silently ignored.

::

    version = 1
    deployment = ["production"]                   # or "any"

    [models]
    sha256 = ["<64 hex digits>"]                  # or dangerous_any = true

    [freshness]                                   # each with a default
    max_statement_age_seconds = 86400

    [[server]]                                    # one or more alternatives
    tee = "sgx"
    label = "release 7"
    mrenclave = ["<64 hex digits>"]               # any field of the TEE; "any" accepts every value
    attributes = { mask = "0x33", value = "0x1" }
    min_isv_svn = 3
    allow_debug = false
    tcb_statuses = ["UpToDate"]                   # these five for SGX and TDX alone
    tcb_grace_statuses = ["OutOfDate"]
    tcb_grace_days = 30
    refused_advisories = ["INTEL-SA-00837"]
    min_tcb_evaluation_data_number = 18
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final, TypeAlias, assert_never

from confonnx.attestation.claims import TcbStatus, Tee
from confonnx.attestation.policy.fields import Field, Kind, fields_of, has_dcap_tcb
from confonnx.attestation.policy.matchers import (
    ANY,
    AnyValue,
    AtLeast,
    AtLeastEach,
    Masked,
    Matcher,
    OneOf,
    OneOfNumbers,
    OneOfTexts,
)
from confonnx.attestation.policy.parts import DangerousAnyModel, Freshness, ModelDigests, parse_model_hash
from confonnx.attestation.policy.reference import ReferenceValues, reference_values, unknown_key
from confonnx.attestation.policy.rules import DcapTcb
from confonnx.errors import ConfigurationError

VERSION: Final = 1
_ANY_TEXT: Final = "any"
_SECOND: Final = timedelta(seconds=1)
_MAX_TEXT: Final = 2**20
_MAX_INTEGER: Final = 2**31 - 1
_MAX_GRACE_DAYS: Final = 3650

Table: TypeAlias = Mapping[str, object]

_TOP_KEYS = ("version", "deployment", "models", "freshness", "server")
_FRESHNESS_KEYS = (
    "max_statement_age_seconds",
    "max_clock_skew_seconds",
    "max_key_age_seconds",
    "max_verification_age_seconds",
)
_SERVER_KEYS = ("tee", "label", "allow_debug")
_TCB_KEYS = (
    "tcb_statuses",
    "tcb_grace_statuses",
    "tcb_grace_days",
    "refused_advisories",
    "min_tcb_evaluation_data_number",
)


Parts: TypeAlias = tuple[
    tuple[ReferenceValues, ...], ModelDigests | DangerousAnyModel, tuple[str, ...] | AnyValue, Freshness
]


def read(text: str) -> Parts:
    """The fields of the ``Policy`` in ``text``, in their order. Raises ``ConfigurationError`` naming the
    key, what was expected and what was found.
    """
    if len(text) > _MAX_TEXT:
        raise ConfigurationError(f"the policy has {len(text)} characters, the limit is {_MAX_TEXT}")
    try:
        top: Table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"the policy is not TOML: {error}") from error
    _check_keys(top, _TOP_KEYS, "policy")
    if top.get("version") != VERSION:
        raise ConfigurationError(f"policy: expected version = {VERSION}, found {top.get('version')!r}")
    for key in ("deployment", "models", "server"):
        if key not in top:
            raise ConfigurationError(f"policy: {key} is missing, and has no default")
    servers = top["server"]
    if not isinstance(servers, list):
        raise ConfigurationError(f"policy: expected [[server]] tables, found {servers!r}")
    return (
        tuple(_read_server(_table(item, "server"), index) for index, item in enumerate(servers)),
        _read_models(_table(top["models"], "models")),
        ANY if top["deployment"] == _ANY_TEXT else _strings(top["deployment"], "deployment"),
        _read_freshness(_table(top.get("freshness", {}), "freshness")),
    )


def write(
    accepted: tuple[ReferenceValues, ...],
    models: ModelDigests | DangerousAnyModel,
    deployments: tuple[str, ...] | AnyValue,
    freshness: Freshness,
) -> str:
    """The text of the policy with these fields; ``read`` gives them back."""
    deployment = _ANY_TEXT if isinstance(deployments, AnyValue) else list(deployments)
    lines = [f"version = {VERSION}", f"deployment = {_value(deployment)}", "", "[models]"]
    if isinstance(models, DangerousAnyModel):
        lines.append("dangerous_any = true")
    else:
        lines.append(f"sha256 = {_value(list(models.digests))}")
    lines += ["", "[freshness]"]
    bounds = (
        freshness.max_statement_age,
        freshness.max_clock_skew,
        freshness.max_key_age,
        freshness.max_verification_age,
    )
    lines += [f"{key} = {bound // _SECOND}" for key, bound in zip(_FRESHNESS_KEYS, bounds, strict=True)]
    for server in accepted:
        lines += ["", "[[server]]", *_write_server(server)]
    return "\n".join(lines) + "\n"


def _read_server(table: Table, index: int) -> ReferenceValues:
    where = f"server {index + 1}"
    try:
        tee = Tee(_string(table.get("tee", ""), f"{where}, tee"))
    except ValueError:
        known = ", ".join(Tee)
        raise ConfigurationError(
            f"{where}: expected tee to be one of {known}, found {table.get('tee')!r}"
        ) from None
    fields = {field.key: field for field in fields_of(tee)}
    own = (*_SERVER_KEYS, *_TCB_KEYS) if has_dcap_tcb(tee) else _SERVER_KEYS
    _check_keys(table, (*own, *fields), f"{where} ({tee})")
    return reference_values(
        tee,
        {key: _read_matcher(field, table[key], where) for key, field in fields.items() if key in table},
        label=_string(table.get("label", ""), f"{where}, label"),
        allow_debug=_boolean(table.get("allow_debug", False), f"{where}, allow_debug"),
        tcb=_read_tcb(table, where) if has_dcap_tcb(tee) else None,
    )


def _read_matcher(field: Field, value: object, where: str) -> Matcher:
    where = f"{where}, {field.key} ({field.name})"
    if value == _ANY_TEXT:
        return ANY
    match field.kind:
        case Kind.DIGESTS:
            texts = (value,) if isinstance(value, str) else _strings(value, where)
            return OneOf(tuple(_hex(text, field.size, where) for text in texts))
        case Kind.NUMBERS:
            numbers = (value,) if isinstance(value, int) else value
            if not isinstance(numbers, tuple | list):
                raise _wrong(where, field.kind.expected, value)
            return OneOfNumbers(tuple(_integer(number, where) for number in numbers))
        case Kind.TEXTS:
            return OneOfTexts((value,) if isinstance(value, str) else _strings(value, where))
        case Kind.MINIMUM:
            return AtLeast(_integer(value, where))
        case Kind.MINIMUM_EACH:
            return AtLeastEach(_hex(_string(value, where), field.size, where))
        case Kind.BITS:
            bits = _table(value, where)
            if set(bits) != {"mask", "value"}:
                raise _wrong(where, 'a table { mask = "0x…", value = "0x…" }', sorted(bits))
            return Masked(mask=_bits(bits["mask"], where), value=_bits(bits["value"], where))
        case _:
            assert_never(field.kind)


def _read_tcb(table: Table, where: str) -> DcapTcb:
    default = DcapTcb()
    return DcapTcb(
        statuses=_statuses(table, "tcb_statuses", default.statuses, where),
        grace_statuses=_statuses(table, "tcb_grace_statuses", (), where),
        grace=timedelta(
            days=_integer(table.get("tcb_grace_days", 0), f"{where}, tcb_grace_days", maximum=_MAX_GRACE_DAYS)
        ),
        refused_advisories=_strings(table.get("refused_advisories", []), f"{where}, refused_advisories"),
        min_tcb_evaluation_data_number=_integer(
            table.get("min_tcb_evaluation_data_number", default.min_tcb_evaluation_data_number),
            f"{where}, min_tcb_evaluation_data_number",
        ),
    )


def _statuses(table: Table, key: str, default: tuple[TcbStatus, ...], where: str) -> tuple[TcbStatus, ...]:
    if key not in table:
        return default
    try:
        return tuple(TcbStatus(text) for text in _strings(table[key], f"{where}, {key}"))
    except ValueError as error:
        raise ConfigurationError(f"{where}, {key}: {error}; known are {', '.join(TcbStatus)}") from None


def _read_models(table: Table) -> ModelDigests | DangerousAnyModel:
    _check_keys(table, ("sha256", "dangerous_any"), "models")
    if _boolean(table.get("dangerous_any", False), "models, dangerous_any"):
        if "sha256" in table:
            raise ConfigurationError("models: give either sha256 or dangerous_any, not both")
        return DangerousAnyModel()
    return ModelDigests(
        tuple(parse_model_hash(text) for text in _strings(table.get("sha256", []), "models, sha256"))
    )


def _read_freshness(table: Table) -> Freshness:
    _check_keys(table, _FRESHNESS_KEYS, "freshness")
    default = Freshness()
    defaults = (
        default.max_statement_age,
        default.max_clock_skew,
        default.max_key_age,
        default.max_verification_age,
    )
    return Freshness(
        *(
            timedelta(seconds=_integer(table[key], f"freshness, {key}")) if key in table else age
            for key, age in zip(_FRESHNESS_KEYS, defaults, strict=True)
        )
    )


def _write_server(server: ReferenceValues) -> list[str]:
    lines = [f"tee = {_value(str(server.tee))}"]
    if server.label:
        lines.append(f"label = {_value(server.label)}")
    lines += [f"{key} = {_write_matcher(matcher)}" for key, matcher in server.values]
    lines.append(f"allow_debug = {_value(server.allow_debug)}")
    if (tcb := server.tcb) is not None:
        lines.append(f"tcb_statuses = {_value([str(status) for status in tcb.statuses])}")
        if tcb.grace_statuses:
            lines.append(f"tcb_grace_statuses = {_value([str(status) for status in tcb.grace_statuses])}")
            lines.append(f"tcb_grace_days = {tcb.grace.days}")
        lines.append(f"refused_advisories = {_value(list(tcb.refused_advisories))}")
        lines.append(f"min_tcb_evaluation_data_number = {tcb.min_tcb_evaluation_data_number}")
    return lines


def _write_matcher(matcher: Matcher) -> str:
    match matcher:
        case AnyValue():
            return _value(_ANY_TEXT)
        case OneOf(values):
            return _value([value.hex() for value in values])
        case OneOfNumbers(values):
            return _value(list(values))
        case OneOfTexts(values):
            return _value(list(values))
        case AtLeast(minimum):
            return str(minimum)
        case AtLeastEach(minimum):
            return _value(minimum.hex())
        case Masked(mask, value):
            return f'{{ mask = "{mask:#x}", value = "{value:#x}" }}'
        case _:
            assert_never(matcher)


def _value(value: str | bool | list[str] | list[int]) -> str:
    # TOML basic strings have JSON's escapes, arrays and booleans JSON's syntax; DEL is the one character
    # that JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_keys(table: Table, known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigurationError(f"{where}: {unknown_key(key, known)}")


def _table(value: object, where: str) -> Table:
    if not isinstance(value, Mapping):
        raise _wrong(where, "a table", value)
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    return value


def _strings(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list of strings", value)
    return tuple(_string(item, where) for item in value)


def _integer(value: object, where: str, *, maximum: int = _MAX_INTEGER) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise _wrong(where, f"an integer from 0 to {maximum}", value)
    return value


def _boolean(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def _hex(value: object, size: int, where: str) -> bytes:
    try:
        data = bytes.fromhex(_string(value, where))
    except ValueError:
        data = b""
    if len(data) != size:
        raise _wrong(where, f"{2 * size} hex digits", value)
    return data


def _bits(value: object, where: str) -> int:
    try:
        number = int(_string(value, where), 16)
    except ValueError:
        number = -1
    if not 0 <= number < 2**64:
        raise _wrong(where, "hex digits of a 64-bit number", value)
    return number


def _wrong(where: str, expected: str, found: object) -> ConfigurationError:
    return ConfigurationError(f"{where}: expected {expected}, found {str(found)[:100]!r}")
