"""``confonnx predict``, and ``python3 -m confonnx.main``: one confidential prediction."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from confonnx.attestation.endorse.options import (
    AMD_KDS,
    INTEL_PCS,
    EndorsementOptions,
    Mode,
    TcbUpdate,
)
from confonnx.cli import connection as options
from confonnx.cli import endorsement_source as endorse
from confonnx.client import Client
from confonnx.errors import ConfigurationError
from confonnx.models.documents import format_json, read_json, write_json
from confonnx.models.tensor_files import read_npz, read_pb, write_npz, write_pb
from confonnx.oip.values import Value

#: Options that take several values behind one name, as in ``--pb-in a.pb b.pb``; see :func:`spread_values`.
MULTIPLE: Final = ("--pb-in", "--pb-in-names")
_DATA: Final = "Inputs and outputs"


def predict(
    url: options.Url = "http://localhost:8888/",
    json_in: Annotated[
        Path | None, typer.Option(help="Inputs: .json or .npz.", rich_help_panel=_DATA)
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            help="File for the outputs: .json or .npz; standard output without it.", rich_help_panel=_DATA
        ),
    ] = None,
    pb_in: Annotated[
        list[Path] | None, typer.Option(help="Inputs as TensorProto files.", rich_help_panel=_DATA)
    ] = None,
    pb_in_names: Annotated[
        list[str] | None, typer.Option(help="Input name for each --pb-in.", rich_help_panel=_DATA)
    ] = None,
    pb_out: Annotated[
        Path | None, typer.Option(help="Directory for the outputs as TensorProto.", rich_help_panel=_DATA)
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option(help="Output wanted; all without it. Repeatable.", rich_help_panel=_DATA),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model name, where the server has several.", rich_help_panel=options.SERVER),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(help="Model version; the highest without it.", rich_help_panel=options.SERVER),
    ] = None,
    enclave_hash: options.EnclaveHash = None,
    enclave_signing_key_file: options.EnclaveSigningKeyFile = None,
    enclave_info: options.EnclaveInfoFile = None,
    enclave_model_hash: options.EnclaveModelHash = None,
    enclave_model_hash_file: options.EnclaveModelHashFile = None,
    enclave_allow_debug: options.EnclaveAllowDebug = False,
    allow_simulated: options.AllowSimulated = False,
    dangerous_any_model: options.DangerousAnyModel = False,
    policy_file: options.PolicyFile = None,
    endorsements: endorse.ModeName = Mode.BUNDLED,
    endorsements_cache: endorse.CacheDirectory = None,
    amd_kds_url: endorse.AmdKdsUrl = AMD_KDS,
    intel_pcs_url: endorse.IntelPcsUrl = INTEL_PCS,
    tcb_update: endorse.Update = TcbUpdate.STANDARD,
    auth_key: options.AuthKey = None,
    auth_user: options.AuthUser = "api",
    auth_pass: options.AuthPass = None,
    ingress_user: options.IngressUser = "api",
    ingress_pass: options.IngressPass = None,
    ingress_key: options.IngressKey = None,
    relay: options.RelayUrl = None,
    sessions: options.Sessions = None,
    relay_user: options.RelayUser = "api",
    relay_pass: options.RelayPass = None,
    relay_key: options.RelayKey = None,
    ca_file: options.CaFile = None,
    timeout: options.Timeout = 60.0,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what happens, and the shapes of tensors.")
    ] = False,
) -> None:
    """Verify a server, then send it inputs, sealed, and get the model's outputs.

    Nothing is sent to a server that is not proven to run the code (--enclave-hash) and the model
    (--enclave-model-hash) that you name.
    """
    inputs = _read_inputs(json_in, pb_in or [], pb_in_names or [])
    demands = options.Demands(
        enclave_hash=enclave_hash,
        enclave_signing_key_file=enclave_signing_key_file,
        enclave_model_hash=enclave_model_hash,
        enclave_model_hash_file=enclave_model_hash_file,
        enclave_allow_debug=enclave_allow_debug,
        allow_simulated=allow_simulated,
        dangerous_any_model=dangerous_any_model,
        policy_file=policy_file,
        enclave_info_file=enclave_info,
    )
    with Client(
        url,
        policy=demands.policy(),
        endorsements=EndorsementOptions(
            endorsements, endorsements_cache, amd_kds_url, intel_pcs_url, tcb_update
        ),
        auth_key=auth_key,
        auth_user=auth_user if auth_pass is not None else None,
        auth_pass=auth_pass,
        ingress_auth=options.ingress_auth(ingress_user, ingress_pass, ingress_key),
        relay=relay,
        relay_auth=options.relay_auth(relay, relay_user, relay_pass, relay_key),
        sessions=sessions,
        ca_file=ca_file,
        timeout=timeout,
    ) as client:
        if verbose:
            keys = client.verify()
            _say(f"Verified until {keys.valid_until:%Y-%m-%d %H:%M:%S} UTC: {keys.claims.tee}")
            _say("Inputs:", inputs)
        outputs = client.predict(inputs, model=model, version=version, outputs=output)
    if verbose:
        _say("Outputs:", outputs)
    _write_outputs(outputs, json_out, pb_out)


def spread_values(arguments: list[str]) -> list[str]:
    """``--pb-in a b`` as ``--pb-in a --pb-in b``, for every option in :data:`MULTIPLE`."""
    spread: list[str] = []
    option = None
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in MULTIPLE else None
            if option is None:
                spread.append(argument)
        elif option is not None:
            spread += [option, argument]
        else:
            spread.append(argument)
    return spread


def _read_inputs(document: Path | None, pb_files: list[Path], pb_names: list[str]) -> dict[str, Value]:
    if (document is None) == (not pb_files):
        raise ConfigurationError("give the inputs by --json-in or by --pb-in: one of them")
    if document is None:
        return read_pb(pb_files, pb_names)
    return read_npz(document) if document.suffix == ".npz" else read_json(document)


def _write_outputs(outputs: Mapping[str, Value], document: Path | None, pb_directory: Path | None) -> None:
    if pb_directory is not None:
        for path in write_pb(pb_directory, outputs):
            _say(f"Output written to {path}")
    if document is not None:
        if document.suffix == ".npz":
            write_npz(document, outputs)
        else:
            write_json(document, outputs)
        _say(f"Outputs written to {document}: {', '.join(outputs)}")
    if document is None and pb_directory is None:
        typer.echo(format_json(outputs))


def _say(text: str, values: Mapping[str, Value] | None = None) -> None:
    """Write progress to standard error: names, types and shapes, never values."""
    typer.echo(text, err=True)
    for name, value in (values or {}).items():
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        typer.echo(f"  {name}: {what}", err=True)
