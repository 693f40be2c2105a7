"""Options: three sources, one precedence; errors that name the source; nothing misspelt is silent."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from confonnx.attestation import canonical_json
from confonnx.attestation.claims import Tee
from confonnx.cli.server_options import cli_options
from confonnx.errors import ConfigurationError
from confonnx.runtime.options import ExecutionMode
from confonnx.server.logs import LogFormat, LogLevel
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings

SECRET = "canary-key-48a1"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("CONFONNX_") and name.upper() != "CONFONNX_SHARED":
            monkeypatch.delenv(name)


def load(**options: object) -> Settings:
    return load_settings(options)[0]


def test_the_ancestors_options_keep_their_names_and_defaults() -> None:
    settings = load(
        model_path="m.onnx",
        auth_key="k",
        key_sync_interval="10s",
        key_error_retry_interval=5,
        num_http_threads="4",
    )
    assert (settings.address, settings.http_port) == ("0.0.0.0", 8888)
    assert settings.key_rollover_interval == timedelta(hours=24)
    assert settings.log_level is LogLevel.INFO
    assert settings.model_path == Path("m.onnx")
    assert (settings.metrics_port, settings.replay_window) == (8082, timedelta(minutes=2))


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "f.toml"
    config.write_text('http_port = 1\nmetrics_port = 1\naddress = "a"\nlog_format = "json"\n')
    monkeypatch.setenv("CONFONNX_HTTP_PORT", "2")
    monkeypatch.setenv("confonnx_metrics_port", "2")
    settings, warnings = load_settings({"http_port": "3", "log_level": None}, config=config)
    assert (settings.http_port, settings.metrics_port, settings.address) == (3, 2, "a")
    assert settings.log_format is LogFormat.JSON
    assert settings.max_queue == 256
    assert warnings == ()
    monkeypatch.setenv("CONFONNX_CONFIG", str(config))
    assert load().address == "a"


def test_every_field_can_come_from_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {
        "model_path": "m.onnx",
        "operator_libraries": os.pathsep.join(["a.so", "b.so"]),
        "metrics": False,
        "tee": "simulated",
        "execution_mode": "parallel",
        "max_request_bytes": "1MiB",
        "drain_timeout": "1m",
        "auth_key": SECRET,
        "require_tee": False,
    }
    config = tmp_path / "f.toml"
    config.write_text(
        "\n".join(
            f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
            for name, value in given.items()
        )
    )
    from_file = load_settings({}, config=config)[0]
    from_command = load(**given)
    for name, value in given.items():
        monkeypatch.setenv(f"CONFONNX_{name.upper()}", str(value))
    from_environment = load()
    assert from_file == from_command == from_environment
    assert from_file.operator_libraries == (Path("a.so"), Path("b.so"))
    assert from_file.execution_mode is ExecutionMode.PARALLEL
    assert (from_file.tee, from_file.max_request_bytes) == (Tee.SIMULATED, 1 << 20)
    assert from_file.drain_timeout == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"http_port": "x"}, r"--http-port: .*integer.*'x'"),
        ({"http_port": 65536}, "--http-port: expected a port"),
        ({"max_queue": -1}, "--max-queue: expected 0 or more"),
        ({"max_connections": 0}, "--max-connections: expected at least 1"),
        ({"intra_op_threads": "0"}, "--intra-op-threads: expected at least 1"),
        ({"replay_window": 0}, "--replay-window: expected more than 0"),
        ({"drain_timeout": "soon"}, "--drain-timeout: expected a duration"),
        ({"max_request_bytes": "1 Mio"}, "--max-request-bytes: expected a number of bytes"),
        ({"tee": "enclave"}, "--tee: .*'sev-snp'.*'enclave'"),
        ({"url_prefix": "mymodel"}, "--url-prefix: expected a path"),
        ({"url_prefix": "/a?b"}, "--url-prefix: expected a path"),
        ({"deployment": "x" * 257}, "--deployment: expected at most 256"),
        ({"deployment": "a\nb"}, "--deployment: expected"),
        ({"nothing": 1}, "nothing"),
        ({"model_path": "a", "model_repository": "b"}, "exclude each other"),
        ({"model_name": "a"}, "--model-name"),
        ({"max_buffered_bytes": 5}, "--max-buffered-bytes is 5"),
        ({"require_tee": True, "tee": "simulated"}, "contradict"),
        ({"key_grace": "2h", "key_rollover_interval": "1h"}, "--key-grace"),
    ],
)
def test_errors_name_the_option(options: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        load(**options)


def test_errors_name_variable_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFONNX_HTTP_PORT", "x")
    with pytest.raises(ConfigurationError, match=r"^CONFONNX_HTTP_PORT: .*found 'x'"):
        load()
    monkeypatch.delenv("CONFONNX_HTTP_PORT")
    config = tmp_path / "f.toml"
    for content, text in (
        ("http_port = 'x'", r"^http_port in .*f\.toml: .*found 'x'"),
        ("http_prt = 5", r"unknown key 'http_prt'; did you mean 'http_port'\?"),
        ("zzzzzzzz = 5", r"unknown key 'zzzzzzzz'$"),
        ("http_port", "is not TOML"),
    ):
        config.write_text(content)
        with pytest.raises(ConfigurationError, match=text):
            load_settings({}, config=config)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        load_settings({}, config=tmp_path / "none.toml")


def test_unknown_and_retired_variables_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFONNX_AUTH_KYE", SECRET)
    monkeypatch.setenv("CONFONNX_USE_AKV", "1")
    monkeypatch.setenv("CONFONNX_AKV_APP_PWD", SECRET)
    monkeypatch.setenv("CONFONNX_URL", "http://client")
    monkeypatch.setenv("CONFONNX_INGRESS_KEY", "x")
    for name in ("RELAY", "RELAY_PASS", "RELAY_KEY"):
        monkeypatch.setenv(f"CONFONNX_{name}", "x")
    warnings = load_settings({})[1]
    assert len(warnings) == 3
    assert "CONFONNX_AUTH_KYE: unknown variable, ignored; did you mean CONFONNX_AUTH_KEY?" in warnings
    assert all("not supported yet" in warning for warning in warnings if "AKV" in warning)
    assert SECRET not in repr(warnings)


def test_options_without_effect_are_warned_of() -> None:
    warnings = load_settings({"key_sync_interval": 5, "key_error_retry_interval": 5, "num_http_threads": 2})[
        1
    ]
    assert [warning.partition(" ")[0] for warning in warnings] == [
        "--key-sync-interval",
        "--key-error-retry-interval",
        "--num-http-threads",
    ]


def test_the_key_is_never_shown_and_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(auth_key=SECRET)
    assert SECRET not in repr(settings) + str(settings) + str(settings.model_dump())
    assert settings.auth_key is not None
    assert settings.auth_key.get_secret_value() == SECRET
    with pytest.raises(ConfigurationError) as caught:
        load(auth_key=SECRET, http_port="x")
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        load(auth_key=[SECRET])
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("CONFONNX_AUTH_KEY", "")
    with pytest.raises(ConfigurationError, match="CONFONNX_AUTH_KEY: is empty"):
        load()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().http_port = 5


def test_measured_is_what_decides_about_security() -> None:
    measured = load().measured()
    assert set(measured) == {
        "metrics",
        "simulated_debug",
        "key_rollover_interval",
        "key_grace",
        "replay_window",
        "batch",
        "dangerous_no_padding",
    }
    assert canonical_json.encode(measured) == canonical_json.encode(
        load(http_port=1, auth_key=SECRET).measured()
    )
    changed: dict[str, object] = {
        "metrics": False,
        "simulated_debug": True,
        "key_rollover_interval": "30m",
        "key_grace": "0",
        "replay_window": "1.5s",
        "dangerous_no_padding": True,
    }
    for name, value in changed.items():
        assert load(**{name: value}).measured()[name] != measured[name], name


def test_grace_follows_a_short_interval() -> None:
    assert load().grace == timedelta(hours=1)
    assert load(key_rollover_interval="10m").grace == timedelta(minutes=10)
    assert load(key_grace="5m").grace == timedelta(minutes=5)


def test_prefix_is_normal() -> None:
    assert load(url_prefix="/").url_prefix == ""
    assert load(url_prefix="/a/b/").url_prefix == "/a/b"


def test_cli_options_are_the_fields() -> None:
    parameters = {parameter.name: parameter for parameter in cli_options()}
    assert set(parameters) == {*Settings.model_fields, "config"}
    for name, parameter in parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is None
        option = get_args(parameter.annotation)[1]
        assert f"--{name.replace('_', '-')}" in option.default
        assert option.help, name


def test_cli_options_make_a_typer_command() -> None:
    taken: dict[str, object] = {}

    def command(**options: object) -> None:
        taken.update(load_settings(options)[0])

    command.__signature__ = inspect.Signature(cli_options())  # type: ignore[attr-defined]
    app = typer.Typer()
    app.command()(command)
    arguments = ["--http-port", "5", "--no-metrics", "--require-tee", "--max-request-bytes", "2MiB"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (taken["http_port"], taken["metrics"], taken["require_tee"]) == (5, False, True)
    assert taken["max_request_bytes"] == 2 << 20
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for text in ("--key-rollover-interval", "1d", "128MiB", "8888", "--no-metrics"):
        assert text in shown


def test_a_rare_rollover_outlives_what_clients_accept() -> None:
    assert load_settings({"key_rollover_interval": "48h"})[1] == ()
    (warning,) = load_settings({"key_rollover_interval": "72h"})[1]
    assert "--key-rollover-interval is 3 days" in warning
    assert "max_key_age_seconds" in warning


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "[::1]"),
        ("10.0.0.1", "10.0.0.1"),
        ("host", "host"),
    ],
)
def test_url_of_an_address(address: str, shown: str) -> None:
    assert load(address=address, url_prefix="/m").url(81) == f"http://{shown}:81/m/"
