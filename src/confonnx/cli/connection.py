"""The options that say which server to ask and what to demand of it: shared by the verbs that talk to one.

Each option is declared once, here, as an annotated type; the verbs list the ones they take.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.policy import Policy
from confonnx.client.options import IngressAuth
from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_info import parse_enclave_info, policy_of

SERVER = "Server"
TRUST = "What to accept"
CREDENTIALS = "Credentials"
LINKABILITY = "Linkable or not"

Url = Annotated[
    str,
    typer.Option(
        help="Address of the server, with its path prefix if it has one.",
        envvar="CONFONNX_URL",
        rich_help_panel=SERVER,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(help="CA certificates for an https:// address (PEM).", rich_help_panel=SERVER),
]
Timeout = Annotated[
    float, typer.Option(help="Seconds to wait for an answer.", min=0.001, rich_help_panel=SERVER)
]

EnclaveHash = Annotated[
    str | None,
    typer.Option(
        help="Measurement of the code that may answer, in hex, as `confonnx measure` and `confonnx inspect` "
        "print it.",
        rich_help_panel=TRUST,
    ),
]
EnclaveSigningKeyFile = Annotated[
    Path | None,
    typer.Option(help="Public key (PEM) of whoever signed the code that may answer.", rich_help_panel=TRUST),
]
EnclaveInfoFile = Annotated[
    Path | None,
    typer.Option(
        "--enclave-info",
        help="enclave_info.txt of a build: accept that enclave, or that simulated server, and its model.",
        rich_help_panel=TRUST,
    ),
]
EnclaveModelHash = Annotated[
    str | None,
    typer.Option(
        help="SHA-256 of the model that may answer, in hex (`confonnx hash-model`).", rich_help_panel=TRUST
    ),
]
EnclaveModelHashFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the hash of the model that may answer.", rich_help_panel=TRUST),
]
EnclaveAllowDebug = Annotated[
    bool,
    typer.Option(
        "--enclave-allow-debug",
        help="Accept code that its host can debug, and so read.",
        rich_help_panel=TRUST,
    ),
]
AllowSimulated = Annotated[
    bool,
    typer.Option(
        "--allow-simulated",
        help="Accept a simulated TEE, which protects nothing. For tests.",
        rich_help_panel=TRUST,
    ),
]
DangerousAnyModel = Annotated[
    bool,
    typer.Option(
        "--dangerous-any-model",
        help="Accept an answer from whatever model the server runs.",
        rich_help_panel=TRUST,
    ),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", help="Appraisal policy (TOML) instead of the options above.", rich_help_panel=TRUST
    ),
]

AuthKey = Annotated[
    str | None,
    typer.Option(
        help="API key for the server; travels sealed.",
        envvar="CONFONNX_CLIENT_AUTH_KEY",
        rich_help_panel=CREDENTIALS,
    ),
]
AuthUser = Annotated[
    str,
    typer.Option(
        help="User name for the server, with --auth-pass; travels sealed.", rich_help_panel=CREDENTIALS
    ),
]
AuthPass = Annotated[
    str | None,
    typer.Option(
        help="Password for the server; travels sealed.",
        envvar="CONFONNX_CLIENT_AUTH_PASS",
        rich_help_panel=CREDENTIALS,
    ),
]
IngressUser = Annotated[
    str,
    typer.Option(
        help="User name for an ingress before the server, with --ingress-pass; its operator can read it.",
        rich_help_panel=CREDENTIALS,
    ),
]
IngressPass = Annotated[
    str | None,
    typer.Option(
        help="Password for an ingress before the server.",
        envvar="CONFONNX_INGRESS_PASS",
        rich_help_panel=CREDENTIALS,
    ),
]
IngressKey = Annotated[
    str | None,
    typer.Option(
        help="Bearer token for an ingress before the server.",
        envvar="CONFONNX_INGRESS_KEY",
        rich_help_panel=CREDENTIALS,
    ),
]

RelayUrl = Annotated[
    str | None,
    typer.Option(
        help="Oblivious HTTP relay (RFC 9458) that takes the sealed requests to the server, so that the "
        "server's host does not see who asks. Evidence is still fetched from --url.",
        envvar="CONFONNX_RELAY",
        rich_help_panel=LINKABILITY,
    ),
]
Sessions = Annotated[
    bool | None,
    typer.Option(
        "--sessions/--no-sessions",
        help="Whether requests share one key exchange, by which whoever carries them sees that they are one "
        "client's. By default they do where there is no --relay, with which they cannot.",
        rich_help_panel=LINKABILITY,
    ),
]
RelayUser = Annotated[
    str,
    typer.Option(
        help="User name for the relay, with --relay-pass; its operator can read it.",
        rich_help_panel=CREDENTIALS,
    ),
]
RelayPass = Annotated[
    str | None,
    typer.Option(help="Password for the relay.", envvar="CONFONNX_RELAY_PASS", rich_help_panel=CREDENTIALS),
]
RelayKey = Annotated[
    str | None,
    typer.Option(
        help="Bearer token for the relay.", envvar="CONFONNX_RELAY_KEY", rich_help_panel=CREDENTIALS
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the command line says about whom to trust, before it becomes a policy."""

    enclave_hash: str | None
    enclave_signing_key_file: Path | None
    enclave_model_hash: str | None
    enclave_model_hash_file: Path | None
    enclave_allow_debug: bool
    allow_simulated: bool
    dangerous_any_model: bool
    policy_file: Path | None
    enclave_info_file: Path | None = None

    def policy(self) -> Policy:
        """The appraisal policy. Raises :class:`ConfigurationError` for options that contradict each other, or
        that are missing or name an unreadable file."""
        if self.policy_file is not None:
            if others := list(self._given()):
                raise ConfigurationError(
                    f"--policy says everything about trust, so leave out {', '.join(others)}"
                )
            return Policy.from_toml(read_text(self.policy_file, "--policy"))
        if self.enclave_info_file is not None:
            return self._policy_of_build(self.enclave_info_file)
        if self.enclave_model_hash is not None and self.enclave_model_hash_file is not None:
            raise ConfigurationError("give --enclave-model-hash or --enclave-model-hash-file, not both")
        model_hash = self.enclave_model_hash
        if self.enclave_model_hash_file is not None:
            model_hash = read_text(self.enclave_model_hash_file, "--enclave-model-hash-file")
        signing_key = None
        if self.enclave_signing_key_file is not None:
            signing_key = read_text(self.enclave_signing_key_file, "--enclave-signing-key-file")
        return Policy.simple(
            enclave_hash=self.enclave_hash,
            enclave_signing_key=signing_key,
            enclave_model_hash=model_hash,
            allow_debug=self.enclave_allow_debug,
            allow_simulated=self.allow_simulated,
            dangerous_any_model=self.dangerous_any_model,
        )

    def _policy_of_build(self, file: Path) -> Policy:
        dangers = ("--enclave-allow-debug", "--allow-simulated")
        if others := [name for name in self._given() if name not in ("--enclave-info", *dangers)]:
            raise ConfigurationError(
                f"--enclave-info says which enclave and model to accept, so leave out {', '.join(others)}"
            )
        return policy_of(
            parse_enclave_info(read_text(file, "--enclave-info")),
            allow_debug=self.enclave_allow_debug,
            allow_simulated=self.allow_simulated,
        )

    def _given(self) -> Iterable[str]:
        options: tuple[tuple[str, object], ...] = (
            ("--enclave-hash", self.enclave_hash),
            ("--enclave-signing-key-file", self.enclave_signing_key_file),
            ("--enclave-info", self.enclave_info_file),
            ("--enclave-model-hash", self.enclave_model_hash),
            ("--enclave-model-hash-file", self.enclave_model_hash_file),
            ("--enclave-allow-debug", self.enclave_allow_debug or None),
            ("--allow-simulated", self.allow_simulated or None),
            ("--dangerous-any-model", self.dangerous_any_model or None),
        )
        return (name for name, value in options if value is not None)


def ingress_auth(user: str, password: str | None, key: str | None) -> IngressAuth | None:
    """The credentials for an ingress, as :class:`~confonnx.client.Client` takes them."""
    return _outer_auth("ingress", user, password, key)


def relay_auth(relay: str | None, user: str, password: str | None, key: str | None) -> IngressAuth | None:
    """The credentials for ``relay``, as :class:`~confonnx.client.Client` takes them. Raises
    :class:`ConfigurationError` if there are some and no relay."""
    auth = _outer_auth("relay", user, password, key)
    if auth is not None and relay is None:
        raise ConfigurationError("--relay-pass and --relay-key are for a relay: give --relay too")
    return auth


def _outer_auth(whose: str, user: str, password: str | None, key: str | None) -> IngressAuth | None:
    if password is not None and key is not None:
        raise ConfigurationError(f"give --{whose}-pass or --{whose}-key, not both")
    return (user, password) if password is not None else key


def read_text(path: Path, option: str) -> str:
    """The text of a small file named by ``option``."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{option}: cannot read {path}: {error}") from error
