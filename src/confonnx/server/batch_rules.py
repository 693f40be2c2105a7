"""Which models are batched, as people write it.

On a command line and in a variable ``NAME:max_batch_size=32,max_queue_delay_us=500``, several separated by
``;``; in a TOML file a table for each model::

    [batch.NAME]
    max_batch_size = 32
    max_queue_delay_us = 500
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from confonnx.runtime.batching import BatchOptions

_FORM = "expected NAME:max_batch_size=32,max_queue_delay_us=500, several separated by ;"
_MOST = {"max_batch_size": 1 << 16, "max_queue_delay_us": 10_000_000}


@dataclass(frozen=True, slots=True)
class BatchRule:
    """One model by its name, all versions of it."""

    model: str
    options: BatchOptions

    def __str__(self) -> str:
        """As on a command line, where the name allows it."""
        options = self.options
        return (
            f"{self.model}:max_batch_size={options.max_batch_size},"
            f"max_queue_delay_us={options.max_queue_delay_us}"
        )


def table(rules: tuple[BatchRule, ...]) -> dict[str, dict[str, int]]:
    """As in a TOML file."""
    return {
        rule.model: {
            "max_batch_size": rule.options.max_batch_size,
            "max_queue_delay_us": rule.options.max_queue_delay_us,
        }
        for rule in rules
    }


def parse_rules(value: object) -> tuple[BatchRule, ...]:
    """Rules in either form, sorted by model. Raises ValueError."""
    if isinstance(value, tuple) and all(isinstance(rule, BatchRule) for rule in value):
        return value
    if isinstance(value, str):
        pairs = [_split(part) for part in value.split(";") if part.strip()]
    elif isinstance(value, Mapping):
        pairs = [(str(name), options) for name, options in value.items()]
    else:
        raise ValueError(_FORM)  # noqa: TRY004  what pydantic reports
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("expected each model once")
    return tuple(BatchRule(name, _options(name, options)) for name, options in sorted(pairs, key=_name))


def _name(pair: tuple[str, object]) -> str:
    return pair[0]


def _split(text: str) -> tuple[str, object]:
    name, colon, rest = text.strip().rpartition(":")
    if not (name and colon):
        raise ValueError(_FORM)
    items = [item.partition("=") for item in rest.split(",")]
    return name, {key.strip(): number.strip() for key, _, number in items}


def _options(name: str, given: object) -> BatchOptions:
    if not isinstance(given, Mapping) or "max_batch_size" not in given:
        raise ValueError(f"model {name!r} needs max_batch_size; {_FORM}")
    if unknown := sorted(set(map(str, given)) - _MOST.keys()):
        raise ValueError(f"model {name!r} has the unknown setting {unknown[0]!r}; {_FORM}")
    numbers = {key: _number(name, key, given[key]) for key in _MOST if key in given}
    return BatchOptions(**numbers)


def _number(name: str, key: str, value: object) -> int:
    least = 2 if key == "max_batch_size" else 0
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"model {name!r}: {key} is no number")
    if not least <= int(text) <= _MOST[key]:
        raise ValueError(f"model {name!r}: {key} is {text}, expected {least} to {_MOST[key]}")
    return int(text)


BatchRules = Annotated[tuple[BatchRule, ...], NoDecode, BeforeValidator(parse_rules)]
