"""Every option of the server, once: as command line option, environment variable and key of a TOML file.

The field ``http_port`` is the option ``--http-port``, the variable ``CONFONNX_HTTP_PORT`` and the TOML key
``http_port``. The command line wins over the environment, that over the file, that over the default.
``settings_sources`` reads all three; ``cli.server_options`` makes the command line's options from the fields,
so that no option is ever listed twice.

Fields marked ``measured`` decide about security. They enter the simulated measurement (``--enclave-hash``),
and a hardware TEE's manifest or measured command line has to hold them just so.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from confonnx.attestation.attest.tpm import AK_HANDLE
from confonnx.attestation.attest.tpm_transport import DEFAULT_DEVICE
from confonnx.attestation.canonical_json import Json
from confonnx.attestation.claims import Tee
from confonnx.attestation.endorse.options import AMD_KDS, INTEL_PCS
from confonnx.attestation.statement import MAX_TEXT
from confonnx.runtime.options import ExecutionMode, GraphOptimization
from confonnx.server.batch_rules import BatchRule, BatchRules, table
from confonnx.server.logs import LogFormat, LogLevel
from confonnx.server.quantities import ByteSize, Duration
from confonnx.server.sessions import MAX_SESSIONS

T = TypeVar("T")

PREFIX = "CONFONNX_"

_PERSISTENT = 0x81  # TPM_HT_PERSISTENT, the first byte of such a handle (TPM 2.0 part 2, §7.2)

_POSITIVE = (
    *("max_request_bytes", "max_response_bytes", "max_buffered_bytes", "max_connections", "max_header_bytes"),
    *("min_transfer_rate", "replay_capacity", "max_sessions", "attestation_rate", "attestation_burst"),
    *("inference_threads", "intra_op_threads", "inter_op_threads", "processes"),
)
_LONGER_THAN_ZERO = (
    *("header_timeout", "idle_timeout", "transfer_grace", "request_timeout", "replay_window"),
    *("key_rollover_interval", "max_queue_wait"),
)

_ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104  compared, not bound

Panel = Literal["Models", "Network", "Access", "TEE", "Keys", "Limits", "Runtime", "Operation"]


def _option(default: T, text: str, panel: Panel, *, measured: bool = False) -> T:
    """A field. ``measured``: its value is part of what evidence shows."""
    extra: dict[str, object] = {"panel": panel, "measured": measured}
    result: T = Field(default, description=text, json_schema_extra=extra, validate_default=False)  # type: ignore[call-overload]
    return result


def _parse_handle(value: object) -> object:
    """Handles are written in hexadecimal, as tpm2-tools write them."""
    if isinstance(value, str):
        try:
            value = int(value, 0)
        except ValueError:
            value = None
    if not isinstance(value, int) or value >> 24 != _PERSISTENT:
        raise ValueError(f"expected a persistent handle such as {AK_HANDLE:#x}")
    return value


def _split_paths(value: object) -> object:
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


class Settings(BaseSettings):
    """The options of one server. Made by ``settings_sources.load_settings``; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    model_path: Path | None = _option(
        None, "The ONNX file to serve, or a directory that holds it with its external data.", "Models"
    )
    model_repository: Path | None = _option(
        None, "A directory of models, NAME/VERSION/model.onnx or NAME.onnx; all are served.", "Models"
    )
    model_name: str | None = _option(
        None, "Name of the model of --model-path; default: the file's name.", "Models"
    )
    operator_libraries: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_paths)] = _option(
        (),
        f"Custom operator libraries, separated by {os.pathsep!r}: native code that runs inside the TEE. They "
        "count in the models' digests.",
        "Models",
    )

    address: str = _option("0.0.0.0", "Address to listen on.", "Network")  # noqa: S104  the ancestor's default
    http_port: int = _option(8888, "Port to listen on; 0 lets the system choose.", "Network")
    url_prefix: str = _option(
        "", "Path prefix under which an ingress shows this server, such as /mymodel.", "Network"
    )
    metrics: bool = _option(
        True,
        "Offer Prometheus metrics. They tell the host which model is asked how often.",
        "Network",
        measured=True,
    )
    metrics_port: int = _option(8082, "Port of /metrics; 0 lets the system choose.", "Network")
    metrics_address: str | None = _option(None, "Address of /metrics; default: that of --address.", "Network")

    auth_key: SecretStr | None = _option(
        None,
        "One API key that clients must know. Better in CONFONNX_AUTH_KEY, or as a hash in --auth-file.",
        "Access",
    )
    auth_file: Path | None = _option(
        None, "File with hashes of API keys and passwords, made by `confonnx hash-credential`.", "Access"
    )

    tee: Tee | None = _option(None, "The TEE to attest with; default: the one that is found.", "TEE")
    require_tee: bool = _option(False, "Refuse to start without a hardware TEE.", "TEE")
    simulated_debug: bool = _option(
        False, "Mark simulated evidence as that of a debug TEE.", "TEE", measured=True
    )
    simulated_signing_key_file: Path | None = _option(
        None, "Public key (PEM) that simulated evidence shows as the signer of the code.", "TEE"
    )
    tpm: str = _option(
        DEFAULT_DEVICE, "The TPM, for --tee tpm and on Azure: a device, or swtpm:host=HOST,port=PORT.", "TEE"
    )
    tpm_ak_handle: Annotated[int | None, BeforeValidator(_parse_handle)] = _option(
        None,
        f"Where the TPM keeps the attestation key, made there if there is none; default: {AK_HANDLE:#x}.",
        "TEE",
    )
    tpm_ak_certificate: Path | None = _option(
        None, "Certificate of that key and of the CAs above it (PEM), for --tee tpm.", "TEE"
    )
    fetch_endorsements: bool = _option(
        False,
        "Fetch what vouches for the CPU from its vendor, so that clients need no network; else this server "
        "makes no connection.",
        "TEE",
    )
    endorsement_cache: Path | None = _option(
        None, "Where to keep what was fetched; default: ~/.cache/confonnx/endorsements.", "TEE"
    )
    endorsement_ca_file: Path | None = _option(
        None, "More certificate authorities (PEM) for --intel-pcs-url and --amd-kds-url.", "TEE"
    )
    intel_pcs_url: str = _option(INTEL_PCS, "Intel's PCS, or a PCCS.", "TEE")
    amd_kds_url: str = _option(AMD_KDS, "AMD's KDS, or what stands in for it.", "TEE")
    deployment: str = _option(
        "", "Identity of this deployment; attested, and clients' policies may ask for it.", "TEE"
    )

    key_rollover_interval: Duration = _option(
        timedelta(hours=24), "How long a key is used before the next one takes over.", "Keys", measured=True
    )
    key_grace: Duration | None = _option(
        None,
        "How long the previous key still opens requests; default: 1h, or the interval if shorter.",
        "Keys",
        measured=True,
    )
    key_sync_interval: Duration | None = _option(
        None,
        "How often keys are fetched from a shared key source. No effect yet: there is no such source.",
        "Keys",
    )
    key_error_retry_interval: Duration | None = _option(
        None, "How soon a failed fetch from a shared key source is repeated. No effect yet.", "Keys"
    )

    max_request_bytes: ByteSize = _option(128 << 20, "Largest sealed request.", "Limits")
    max_response_bytes: ByteSize = _option(128 << 20, "Largest sealed response.", "Limits")
    max_buffered_bytes: ByteSize = _option(
        512 << 20, "All requests together that are held in memory.", "Limits"
    )
    max_connections: int = _option(1000, "Open connections.", "Limits")
    max_header_bytes: ByteSize = _option(16 << 10, "Largest head of a request.", "Limits")
    header_timeout: Duration = _option(timedelta(seconds=10), "Time for the head of a request.", "Limits")
    idle_timeout: Duration = _option(
        timedelta(seconds=75), "Time between requests of one connection.", "Limits"
    )
    transfer_grace: Duration = _option(
        timedelta(seconds=20), "Time after which a body must keep --min-transfer-rate.", "Limits"
    )
    min_transfer_rate: ByteSize = _option(
        64 << 10, "Bytes a second that a client must send and read at least, on average.", "Limits"
    )
    request_timeout: Duration = _option(timedelta(seconds=60), "Time for the answer to a request.", "Limits")
    max_queue: int = _option(
        256,
        "Requests that may wait for an inference thread; more are refused, and so are those that would miss "
        "their --request-timeout.",
        "Limits",
    )
    max_queue_wait: Duration | None = _option(
        None,
        "Longest time that a request may wait for an inference thread; what would wait longer is refused at "
        "once. Default: --request-timeout.",
        "Limits",
    )
    replay_window: Duration = _option(
        timedelta(minutes=2),
        "How far a request's date may be from the server's clock.",
        "Limits",
        measured=True,
    )
    replay_capacity: int = _option(
        1_000_000,
        "Requests remembered against replay, some 100 bytes each; when full, requests are refused.",
        "Limits",
    )
    max_sessions: int = _option(
        MAX_SESSIONS,
        "Clients' sessions kept open, 14 to 30 KiB each; one more evicts the oldest, which then costs a key "
        "exchange again.",
        "Limits",
    )
    attestation_rate: int = _option(20, "Fresh attestations a second.", "Limits")
    attestation_burst: int = _option(50, "Fresh attestations at once.", "Limits")
    dangerous_no_padding: bool = _option(
        False, "Do not pad answers: their exact sizes show on the network.", "Limits", measured=True
    )

    processes: int = _option(
        1,
        "Processes that serve, each with the models in its memory; they share the limits and the processors. "
        "Linux only, and not in an SGX enclave, which is one process.",
        "Runtime",
    )
    inference_threads: int | None = _option(
        None, "Requests that run at once; default: by the processors.", "Runtime"
    )
    intra_op_threads: int | None = _option(
        None, "Threads of one operator; default: by the processors.", "Runtime"
    )
    inter_op_threads: int = _option(1, "Threads for branches of a graph, with parallel execution.", "Runtime")
    execution_mode: ExecutionMode = _option(
        ExecutionMode.SEQUENTIAL, "How branches of a graph run.", "Runtime"
    )
    graph_optimization: GraphOptimization = _option(
        GraphOptimization.ALL, "How far onnxruntime rewrites graphs.", "Runtime"
    )
    mem_arena: bool = _option(True, "Keep freed memory for the next run.", "Runtime")
    mem_arena_shrinkage: bool = _option(False, "Give unused memory back after each run.", "Runtime")
    spinning: bool = _option(False, "Let idle threads of onnxruntime spin.", "Runtime")
    batch: BatchRules = _option(
        (),
        "Models whose requests run together: NAME:max_batch_size=32,max_queue_delay_us=500, several "
        "separated by a semicolon. It puts the tensors of different clients into one.",
        "Runtime",
        measured=True,
    )
    num_http_threads: int | None = _option(
        None, "Has no effect: one event loop serves all connections. See --inference-threads.", "Runtime"
    )

    log_level: LogLevel = _option(LogLevel.INFO, "From which severity on to log.", "Operation")
    log_format: LogFormat = _option(LogFormat.TEXT, "How to log, on standard error.", "Operation")
    drain_timeout: Duration = _option(
        timedelta(seconds=30),
        "Time for requests in flight to finish when the server is told to stop.",
        "Operation",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor's arguments, then the environment; nothing is read that nobody named."""
        return init_settings, env_settings

    @field_validator("http_port", "metrics_port")
    @classmethod
    def _check_port(cls, value: int) -> int:
        if not 0 <= value <= 65535:
            raise ValueError("expected a port from 0 to 65535")
        return value

    @field_validator(*_POSITIVE)
    @classmethod
    def _check_positive(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("expected at least 1")
        return value

    @field_validator(*_LONGER_THAN_ZERO)
    @classmethod
    def _check_duration(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta(0):
            raise ValueError("expected more than 0")
        return value

    @field_validator("max_queue")
    @classmethod
    def _check_queue(cls, value: int) -> int:
        if value < 0:
            raise ValueError("expected 0 or more")
        return value

    @field_validator("auth_key")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value():
            raise ValueError("is empty: give a key, or leave it out to serve everybody")
        return value

    @field_validator("deployment")
    @classmethod
    def _check_deployment(cls, value: str) -> str:
        if len(value) > MAX_TEXT or not value.isprintable():
            raise ValueError(f"expected at most {MAX_TEXT} printable characters")
        return value

    @field_validator("url_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        prefix = value.rstrip("/")
        if prefix and (not prefix.startswith("/") or not prefix.isascii() or set(prefix) & set("?#% ")):
            raise ValueError("expected a path such as /mymodel")
        return prefix

    def url(self, port: int) -> str:
        """Where people find a server of these settings that listens on ``port``."""
        host = "127.0.0.1" if self.address in _ANY_ADDRESS else self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self.url_prefix}/"

    @property
    def grace(self) -> timedelta:
        """``key_grace``, or its default."""
        return (
            min(timedelta(hours=1), self.key_rollover_interval) if self.key_grace is None else self.key_grace
        )

    def measured(self) -> dict[str, Json]:
        """The security-relevant options, for ``attest.simulated.measure_installation``."""
        values: dict[str, object] = {
            name: getattr(self, name)
            for name, info in type(self).model_fields.items()
            if marks(info)["measured"]
        }
        values["key_grace"] = self.grace
        return {name: _json(value) for name, value in values.items()}


def marks(info: FieldInfo) -> dict[str, object]:
    """What a field says of itself beside its type: ``panel`` and ``measured``."""
    assert isinstance(info.json_schema_extra, dict)
    return dict(info.json_schema_extra)


def _json(value: object) -> Json:
    if isinstance(value, timedelta):
        return int(value.total_seconds() * 1000)  # milliseconds: canonical JSON has no fractions
    if isinstance(value, tuple) and all(isinstance(rule, BatchRule) for rule in value):
        return {name: {**options} for name, options in table(value).items()}
    assert isinstance(value, bool | int | str)
    return value
