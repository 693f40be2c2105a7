"""enclave.conf: every key, every range, and errors that name line, key and fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_conf import RANGES, EnclaveConf, parse_enclave_conf
from confonnx.measure.heap import MODEL_FACTOR, SERVER_BYTES, check_heap, needed_heap
from tests.support.enclave_confs import conf_text


def test_every_value() -> None:
    conf = parse_enclave_conf(conf_text(Debug="1"))
    assert conf == EnclaveConf(
        debug=True, threads=32, heap_pages=507904, stack_pages=512, product_id=1, security_version=7
    )
    assert conf.heap_bytes == 507904 * 4096
    assert conf.stack_bytes == 2 << 20


@pytest.mark.parametrize(
    ("heap", "size"), [("507904", 2 << 30), ("507905", 4 << 30), ("1", 128 << 20), ("491520", 2 << 30)]
)
def test_the_enclave_is_heap_and_stacks_rounded_up(heap: str, size: int) -> None:
    assert parse_enclave_conf(conf_text(NumHeapPages=heap)).enclave_bytes == size


def test_comments_and_blank_lines() -> None:
    text = "# a comment\n\n" + conf_text().replace("NumTCS=32", "  NumTCS = 32   # threads")
    assert parse_enclave_conf(text).threads == 32


def test_the_one_of_the_repository_is_valid_and_not_for_debugging() -> None:
    root = Path(__file__).parents[3]
    conf = parse_enclave_conf((root / "enclave.conf").read_text("utf-8"))
    assert not conf.debug
    assert conf.enclave_bytes == 2 << 30


@pytest.mark.parametrize("key", RANGES)
def test_a_missing_key(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"e.conf: {key} missing"):
        parse_enclave_conf(conf_text(**{key: None}), source="e.conf")


@pytest.mark.parametrize("key", RANGES)
@pytest.mark.parametrize("value", ["", "-1", "0x10", "1.5", "yes", "٣", "9" * 11, "9" * 99])
def test_a_value_that_is_no_number_in_range(key: str, value: str) -> None:
    low, high = RANGES[key]
    with pytest.raises(ConfigurationError, match=rf"line \d+: {key} must be .* from {low} to {high}, found "):
        parse_enclave_conf(conf_text(**{key: value}))


@pytest.mark.parametrize("key", RANGES)
def test_the_limits_of_each_range(key: str) -> None:
    low, high = RANGES[key]
    parse_enclave_conf(conf_text(**{key: str(low)}))
    parse_enclave_conf(conf_text(**{key: str(high)}))
    for outside in (low - 1, high + 1):
        with pytest.raises(ConfigurationError, match=key):
            parse_enclave_conf(conf_text(**{key: str(outside)}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("NumHeapPage=1", "line 7: unknown key 'NumHeapPage'; did you mean NumHeapPages?"),
        ("debug=1", "unknown key 'debug'; did you mean Debug?"),
        ("Colour=1", "unknown key 'Colour'; known are Debug, NumTCS"),
        ("Debug 1", "line 7: expected Key=number, found 'Debug 1'"),
        ("Debug=0", "line 7: Debug is given twice"),
    ],
)
def test_a_line_that_is_wrong(line: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_enclave_conf(conf_text() + line)
    assert message in str(caught.value)


def test_a_heap_that_is_too_small_is_named_with_the_number_that_would_do() -> None:
    conf = parse_enclave_conf(conf_text(NumHeapPages="131072"))  # 512 MiB
    check_heap(conf, 0)
    with pytest.raises(ConfigurationError) as caught:
        check_heap(conf, 100 << 20)
    pages = (SERVER_BYTES + MODEL_FACTOR * (100 << 20)) // 4096
    assert f"a model of 100 MiB is estimated to need 912 MiB: set NumHeapPages={pages} or more" in str(
        caught.value
    )
    check_heap(parse_enclave_conf(conf_text(NumHeapPages=str(pages))), 100 << 20)
    with pytest.raises(ConfigurationError):
        check_heap(parse_enclave_conf(conf_text(NumHeapPages=str(pages - 1))), 100 << 20)


def test_the_default_heap_serves_what_its_comment_says() -> None:
    assert needed_heap(368 << 20) <= 507904 * 4096 < needed_heap(369 << 20)
