"""Strict JSON: one reader that refuses what parsers disagree about, one writer with a single output for a
value.

The writer gives RFC 8785 (JCS) bytes for the values that confonnx uses: objects with ASCII names, arrays,
strings, booleans, null and integers below 2^53. There are no floating point numbers anywhere in an
attestation, so JCS's hard part does not arise. The reader refuses duplicate names (RFC 8259 §4 leaves their
meaning open, so two readers could see two documents), floating point numbers, ``NaN``, numbers that other
readers would round, and nesting deeper than a limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias, cast

from confonnx.errors import BundleError

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"

MAX_INTEGER = 2**53 - 1  # RFC 8259 §6: the largest integer that every reader keeps exact
MAX_DEPTH = 16


def encode(value: Json) -> bytes:
    """The canonical bytes of ``value``: names sorted, no white space, UTF-8 unescaped.

    Raises ``BundleError`` for what has no canonical form here: a floating point number, an integer beyond
    ±(2^53 - 1), a lone surrogate.
    """
    _check(value, MAX_DEPTH, "value")
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except UnicodeEncodeError as error:
        raise BundleError(
            f"a string has a lone surrogate at position {error.start}, which UTF-8 cannot carry"
        ) from error


def parse(data: bytes, *, what: str) -> Json:
    """The value of one JSON text; ``what`` names the text in errors. Raises ``BundleError``."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_exact,
        )
    except UnicodeDecodeError as error:
        raise BundleError(f"{what} is not UTF-8: byte {error.start} is wrong") from error
    except RecursionError as error:
        raise BundleError(f"{what} nests deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise BundleError(f"{what} is not the JSON that confonnx accepts: {error}") from error
    _check(value, MAX_DEPTH, what)
    return cast("Json", value)


def parse_object(data: bytes, *, what: str) -> Mapping[str, Json]:
    """As ``parse``, and the value is an object."""
    return as_object(parse(data, what=what), what)


def as_object(value: Json, what: str) -> Mapping[str, Json]:
    """``value``, which is an object; ``what`` names it in the ``BundleError`` raised otherwise."""
    if not isinstance(value, Mapping):
        raise BundleError(f"{what}: expected an object, found {_kind(value)}")
    return value


def as_array(value: Json, what: str) -> Sequence[Json]:
    """``value``, which is an array."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BundleError(f"{what}: expected an array, found {_kind(value)}")
    return value


def as_string(value: Json, what: str) -> str:
    """``value``, which is a string."""
    if not isinstance(value, str):
        raise BundleError(f"{what}: expected a string, found {_kind(value)}")
    return value


def as_integer(value: Json, what: str, *, minimum: int = 0) -> int:
    """``value``, which is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BundleError(f"{what}: expected an integer, found {_kind(value)}")
    if value < minimum:
        raise BundleError(f"{what}: expected at least {minimum}, found {value}")
    return value


def as_boolean(value: Json, what: str) -> bool:
    """``value``, which is a boolean."""
    if not isinstance(value, bool):
        raise BundleError(f"{what}: expected true or false, found {_kind(value)}")
    return value


def check_names(value: Mapping[str, Json], expected: frozenset[str], what: str) -> None:
    """The object has exactly the ``expected`` names: a name that nobody reads is a claim that nobody
    checked.
    """
    if missing := sorted(expected - value.keys()):
        raise BundleError(f"{what} lacks {', '.join(map(repr, missing))}")
    if unknown := sorted(value.keys() - expected):
        raise BundleError(f"{what} has unknown members: {', '.join(map(repr, unknown))}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {repeated!r} occurs twice in one object")
    return result


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not an integer")


def _exact(text: str) -> int:
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {text[:20]} is beyond ±(2^53 - 1)")
    return int(text)


def _check(value: object, depth: int, what: str) -> None:
    if depth < 0:
        raise BundleError(f"{what} nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        raise BundleError(f"{what}: {value!r} is not an integer within ±(2^53 - 1)")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not (isinstance(name, str) and name.isascii()):
                raise BundleError(f"{what}: the member name {name!r} is not ASCII text")
            _check(item, depth - 1, what)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _check(item, depth - 1, what)


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            return "an object"
        case _:
            return "an array"
