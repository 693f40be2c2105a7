"""Which models are batched, as people write it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from confonnx.errors import ConfigurationError
from confonnx.runtime.batching import BatchOptions
from confonnx.server.batch_rules import BatchRule, parse_rules, table
from confonnx.server.control import Start
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings

RULES = (BatchRule("a", BatchOptions(32, 500)), BatchRule("b:c", BatchOptions(4)))
TEXT = "b:c:max_batch_size=4; a:max_batch_size=32,max_queue_delay_us=500"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("CONFONNX_"):
            monkeypatch.delenv(name)


def load(**options: object) -> Settings:
    return load_settings(options)[0]


def test_a_line_and_a_table_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "f.toml"
    config.write_text(
        '[batch.a]\nmax_batch_size = 32\nmax_queue_delay_us = 500\n[batch."b:c"]\nmax_batch_size = 4\n'
    )
    monkeypatch.setenv("CONFONNX_BATCH", TEXT)
    from_environment = load()
    monkeypatch.delenv("CONFONNX_BATCH")
    assert (
        load(batch=TEXT).batch == load_settings({}, config=config)[0].batch == from_environment.batch == RULES
    )


def test_it_is_off_unless_it_is_given() -> None:
    assert load().batch == ()
    assert load(batch="").batch == ()


def test_what_is_written_is_read_again() -> None:
    assert parse_rules(";".join(map(str, RULES))) == RULES
    assert parse_rules(table(RULES)) == RULES
    assert parse_rules(RULES) == RULES


def test_it_is_measured() -> None:
    plain, batched = load().measured(), load(batch=TEXT).measured()
    assert batched["batch"] == {
        "a": {"max_batch_size": 32, "max_queue_delay_us": 500},
        "b:c": {"max_batch_size": 4, "max_queue_delay_us": 0},
    }
    assert plain["batch"] == {}
    assert {**plain, "batch": batched["batch"]} == batched


def test_it_reaches_a_worker() -> None:
    start = Start(0, 2, datetime(2026, 11, 24, tzinfo=UTC), bytearray(32), load(batch=TEXT))
    assert Start.parse(start.encode()).settings.batch == RULES


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "expected NAME:max_batch_size=32"),
        (":max_batch_size=2", "expected NAME:max_batch_size=32"),
        ("a:max_queue_delay_us=5", "model 'a' needs max_batch_size"),
        ("a:max_batch_size=2,size=3", "model 'a' has the unknown setting 'size'"),
        ("a:max_batch_size=x", "model 'a': max_batch_size is no number"),
        ("a:max_batch_size=", "model 'a': max_batch_size is no number"),
        ("a:max_batch_size=1", "model 'a': max_batch_size is 1, expected 2 to 65536"),
        ("a:max_batch_size=65537", "expected 2 to 65536"),
        ("a:max_batch_size=2,max_queue_delay_us=10000001", "expected 0 to 10000000"),
        ("a:max_batch_size=2;a:max_batch_size=3", "each model once"),
        ({"a": 5}, "model 'a' needs max_batch_size"),
        ({"a": {"max_batch_size": True}}, "max_batch_size is no number"),
        (5, "expected NAME:max_batch_size=32"),
    ],
)
def test_errors_name_the_option_and_what_to_write(value: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match="--batch: ") as caught:
        load(batch=value)
    assert text in str(caught.value)
