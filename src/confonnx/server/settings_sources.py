"""Where the server's options come from: command line, environment and TOML file, in this order.

Nothing misspelt is silent: an unknown key is an error, an unknown variable a warning.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import Freshness
from confonnx.errors import ConfigurationError
from confonnx.server.settings import PREFIX, Settings

CONFIG_VARIABLE = "CONFONNX_CONFIG"
# Variables of the client's commands and of the tests, which may well be set beside ours.
_OTHER_VARIABLES = frozenset({CONFIG_VARIABLE, "CONFONNX_URL", "CONFONNX_SHARED"})
_OTHER_PREFIXES = ("CONFONNX_CLIENT_", "CONFONNX_INGRESS_", "CONFONNX_RELAY")
_VAULT_HINT = "keys from Azure Key Vault are not supported yet, so this server makes its own"
_RETIRED = frozenset({f"{PREFIX}USE_AKV", f"{PREFIX}USE_MODEL_KEY_PROVISIONING"})
_NO_SHARED_KEYS = "has no effect until a shared key source is configured"
_IDLE = {
    "key_sync_interval": _NO_SHARED_KEYS,
    "key_error_retry_interval": _NO_SHARED_KEYS,
    "num_http_threads": "has no effect: one event loop serves all connections (see --inference-threads)",
}


def load_settings(
    options: Mapping[str, object], *, config: Path | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """The settings, and warnings for their user.

    ``options`` are the command line's, by field name; ``None`` means not given. ``config`` is a TOML file, by
    default the one that ``CONFONNX_CONFIG`` names. Raises ConfigurationError that says which option, variable
    or key is wrong, and never shows a secret.
    """
    given = {name: value for name, value in options.items() if value is not None}
    path = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    table = _read_toml(path) if path is not None else {}
    in_environment = {name.upper() for name in os.environ}
    below = {name: value for name, value in table.items() if _variable(name) not in in_environment}
    try:
        settings = Settings(**{**below, **given})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError(_explain(error, given, below, path)) from None
    _check_together(settings)
    return settings, (*_environment_warnings(), *_idle_options(settings), *_rare_rollover(settings))


def _read_toml(path: Path) -> dict[str, object]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"settings file {path} is not TOML: {error}") from error
    for name in table:
        if name not in Settings.model_fields:
            raise ConfigurationError(f"settings file {path} has the unknown key {name!r}{_near(name)}")
    return table


def _explain(
    error: ValidationError, given: Mapping[str, object], below: Mapping[str, object], path: Path | None
) -> str:
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else "?"
        if name in given:
            source = f"--{name.replace('_', '-')}"
        elif name in below:
            source = f"{name} in {path}"
        else:
            source = _variable(name)
        lines.append(f"{source}: {item['msg'].removeprefix('Value error, ')}{_found(name, given, below)}")
    return "\n".join(lines)


def _found(name: str, given: Mapping[str, object], below: Mapping[str, object]) -> str:
    if name == "auth_key":
        return ""
    environment = {key.upper(): value for key, value in os.environ.items()}
    value = given.get(name, below.get(name, environment.get(_variable(name))))
    return f"; found {value!r}"


def _check_together(settings: Settings) -> None:
    """Rules about more than one option."""
    if settings.model_path is not None and settings.model_repository is not None:
        raise ConfigurationError("--model-path and --model-repository exclude each other; give one of them")
    if settings.model_name is not None and settings.model_path is None:
        raise ConfigurationError("--model-name names the model of --model-path, which is not given")
    if settings.max_buffered_bytes < settings.max_request_bytes:
        raise ConfigurationError(
            f"--max-buffered-bytes is {settings.max_buffered_bytes}, less than --max-request-bytes, "
            f"{settings.max_request_bytes}"
        )
    if settings.max_buffered_bytes // settings.processes < settings.max_request_bytes:
        raise ConfigurationError(
            f"--max-buffered-bytes is {settings.max_buffered_bytes}, which --processes {settings.processes} "
            f"divide: less for each than --max-request-bytes, {settings.max_request_bytes}; give "
            f"{settings.max_request_bytes * settings.processes} at least"
        )
    if settings.require_tee and settings.tee is Tee.SIMULATED:
        raise ConfigurationError("--require-tee and --tee simulated contradict each other")
    if settings.grace > settings.key_rollover_interval:
        raise ConfigurationError(
            "--key-grace is longer than --key-rollover-interval; make it as long at most"
        )


def _environment_warnings() -> list[str]:
    """A word for each CONFONNX_ variable that nothing reads: a misspelt one would silently do nothing."""
    known = {_variable(name) for name in Settings.model_fields} | _OTHER_VARIABLES
    warnings = []
    for name in sorted(name.upper() for name in os.environ if name.upper().startswith(PREFIX)):
        if name in _RETIRED or name.startswith(f"{PREFIX}AKV_"):
            warnings.append(f"{name}: {_VAULT_HINT}")
        elif name not in known and not name.startswith(_OTHER_PREFIXES):
            hint = _near(name.removeprefix(PREFIX).lower(), variable=True)
            warnings.append(f"{name}: unknown variable, ignored{hint}")
    return warnings


def _idle_options(settings: Settings) -> list[str]:
    """A word for each option that was given and does nothing."""
    return [
        f"--{name.replace('_', '-')} {reason}"
        for name, reason in _IDLE.items()
        if getattr(settings, name) is not None
    ]


def _rare_rollover(settings: Settings) -> list[str]:
    """A client stops sealing to a key at the age that its policy allows, whatever the server says of it."""
    accepted = Freshness().max_key_age
    if settings.key_rollover_interval <= accepted:
        return []
    return [
        f"--key-rollover-interval is {settings.key_rollover_interval}: clients use a key for {accepted} at "
        "most unless their policy says otherwise (max_key_age_seconds), and find no valid key after that"
    ]


def _near(name: str, *, variable: bool = False) -> str:
    matches = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.7)
    if not matches:
        return ""
    return f"; did you mean {_variable(matches[0]) if variable else repr(matches[0])}?"


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"
