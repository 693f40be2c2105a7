"""Whatever a file of a build holds, reading it gives a value, or the one error that people are shown."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confonnx.errors import ConfigurationError, ModelFormatError
from confonnx.measure.enclave_conf import RANGES, parse_enclave_conf
from confonnx.measure.enclave_info import EnclaveInfo, encode_enclave_info, parse_enclave_info
from confonnx.measure.manifest_rules import find_faults
from confonnx.measure.onnx_file import check_onnx
from confonnx.measure.sigstruct import SIZE, parse_sigstruct
from tests.support.enclave_confs import conf_text

CONF = parse_enclave_conf(conf_text())
DIGEST = st.binary(min_size=32, max_size=32)
NUMBER = st.integers(0, 65535)
KEYS = st.sampled_from(
    (
        "loader",
        "sgx",
        "fs",
        "sys",
        "argv",
        "env",
        "mounts",
        "trusted_files",
        "uri",
        "sha256",
        "path",
        "debug",
        "x.y",
        "type",
    )
)
TREES = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(("file:/a", "tmpfs", "--config"))
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from(sorted(RANGES)), st.integers(-2, 2**30)))
def test_enclave_conf_is_in_range_or_refused(values: dict[str, int]) -> None:
    text = conf_text(**{key: str(value) for key, value in values.items()})
    if all(low <= values.get(key, low) <= high for key, (low, high) in RANGES.items()):
        conf = parse_enclave_conf(text)
        needed = conf.heap_bytes + conf.threads * conf.stack_bytes
        assert needed <= conf.enclave_bytes < 2 * needed
        assert conf.enclave_bytes & (conf.enclave_bytes - 1) == 0
    else:
        with pytest.raises(ConfigurationError):
            parse_enclave_conf(text)


@given(st.text())
def test_any_text_is_enclave_conf_and_info_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        parse_enclave_conf(text)
    with suppress(ConfigurationError):
        parse_enclave_info(text)


@given(DIGEST, DIGEST, NUMBER, NUMBER, st.booleans(), DIGEST)
def test_enclave_info_there_and_back(
    mrenclave: bytes, mrsigner: bytes, product: int, version: int, debug: bool, model: bytes
) -> None:
    info = EnclaveInfo(mrenclave, mrsigner, product, version, debug, model.hex())
    assert parse_enclave_info(encode_enclave_info(info)) == info


@given(st.one_of(st.binary(max_size=64), st.binary(min_size=SIZE, max_size=SIZE)))
def test_no_bytes_are_a_sigstruct_by_chance(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_sigstruct(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_file_is_looked_at(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(data)
    with suppress(ModelFormatError):
        check_onnx(file)


@given(st.dictionaries(KEYS, TREES))
def test_any_tree_is_a_manifest_with_faults(tree: dict[str, Any]) -> None:
    assert find_faults(tree, CONF)


@given(st.text(max_size=40))
def test_quoted_keys_hide_nothing(suffix: str) -> None:
    key = f"sgx.debug{suffix}".replace("\\", "").replace('"', "")
    with suppress(tomllib.TOMLDecodeError):
        faults = find_faults(tomllib.loads(f'"{key}" = false'), CONF)
        assert "sgx.debug is missing" in faults
