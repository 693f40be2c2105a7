"""``confonnx verify``: is this server, or this evidence, what the policy accepts, step by step."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from confonnx.attestation.endorse.options import AMD_KDS, INTEL_PCS, TcbUpdate
from confonnx.attestation.policy import Policy
from confonnx.attestation.verify.appraise import Step, appraise, appraise_evidence
from confonnx.cli import connection as options
from confonnx.cli import endorsement_source as endorse
from confonnx.cli import evidence_source as source
from confonnx.cli.outcome import exit_status
from confonnx.cli.recognise import EVIDENCE_TYPES, Kind, recognise
from confonnx.cli.verdict import Verdict
from confonnx.errors import BundleError, ConfigurationError, VerificationError
from confonnx.models.documents import read_bytes


def verify(
    context: typer.Context,
    url: source.UrlOrNone = None,
    bundle: source.SavedBundle = None,
    evidence: Annotated[
        Path | None,
        typer.Option(
            help="Bare evidence (a quote, a report, a document) instead of a server.",
            rich_help_panel=options.SERVER,
        ),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--type",
            metavar="KIND",
            help=f"What --evidence is, where its content does not tell: {', '.join(EVIDENCE_TYPES)}.",
            rich_help_panel=options.SERVER,
        ),
    ] = None,
    report_data: Annotated[
        str | None,
        typer.Option(
            help="What --evidence must bind, in hex, whole. Without it the evidence may be anybody's.",
            rich_help_panel=options.SERVER,
        ),
    ] = None,
    nonce: source.Nonce = None,
    now: source.Instant = None,
    enclave_hash: options.EnclaveHash = None,
    enclave_signing_key_file: options.EnclaveSigningKeyFile = None,
    enclave_info: options.EnclaveInfoFile = None,
    enclave_model_hash: options.EnclaveModelHash = None,
    enclave_model_hash_file: options.EnclaveModelHashFile = None,
    enclave_allow_debug: options.EnclaveAllowDebug = False,
    allow_simulated: options.AllowSimulated = False,
    dangerous_any_model: options.DangerousAnyModel = False,
    policy_file: options.PolicyFile = None,
    endorsements: endorse.Sources = None,
    endorsements_cache: endorse.CacheDirectory = None,
    amd_kds_url: endorse.AmdKdsUrl = AMD_KDS,
    intel_pcs_url: endorse.IntelPcsUrl = INTEL_PCS,
    tcb_update: endorse.Update = TcbUpdate.STANDARD,
    ingress_user: options.IngressUser = "api",
    ingress_pass: options.IngressPass = None,
    ingress_key: options.IngressKey = None,
    ca_file: options.CaFile = None,
    timeout: options.Timeout = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify a server, a saved attestation bundle or bare evidence, and show every step.

    Exits with 0 when the policy accepts it, with 3 when it does not.
    """
    policy = options.Demands(
        enclave_hash=enclave_hash,
        enclave_signing_key_file=enclave_signing_key_file,
        enclave_model_hash=enclave_model_hash,
        enclave_model_hash_file=enclave_model_hash_file,
        enclave_allow_debug=enclave_allow_debug,
        allow_simulated=allow_simulated,
        dangerous_any_model=dangerous_any_model,
        policy_file=policy_file,
        enclave_info_file=enclave_info,
    ).policy()
    choice = endorse.choice(
        endorsements,
        cache_directory=endorsements_cache,
        amd_kds_url=amd_kds_url,
        intel_pcs_url=intel_pcs_url,
        tcb_update=tcb_update,
        ca_file=ca_file,
        timeout=timeout,
    )
    url = source.only_one(context, url, bundle=bundle, evidence=evidence)
    _check_belongings(evidence is not None, bundle is not None, kind, report_data, nonce)
    instant = None if now is None else source.parse_instant(now)
    if evidence is not None:
        data = read_bytes(evidence)
        expected = None if report_data is None else source.parse_hex(report_data, "--report-data")
        verdict = _of_evidence(
            _evidence_type(evidence, data, kind),
            data,
            policy,
            expected,
            instant or datetime.now(UTC),
            choice,
        )
    else:
        if url is not None:
            ingress = options.ingress_auth(ingress_user, ingress_pass, ingress_key)
            found = source.from_server(url, ingress=ingress, ca_file=ca_file, timeout=timeout)
        else:
            assert bundle is not None
            found = source.from_file(bundle, nonce=nonce)
        verdict = _of_bundle(found, policy, instant or found.now, choice)
    typer.echo(verdict.as_json() if as_json else verdict.as_text())
    if verdict.refusal is not None:
        raise typer.Exit(exit_status(verdict.refusal))


def _of_bundle(found: source.Source, policy: Policy, now: datetime, choice: endorse.Choice) -> Verdict:
    steps: list[Step] = []
    bundle = found.bundle
    try:
        own = choice.collect(steps, bundle.evidence_type, bundle.evidence, bundle.endorsements, now)
        appraise(bundle, policy, nonce=found.nonce, now=now, endorsements=own, trace=steps.append)
    except (VerificationError, BundleError) as error:
        return Verdict(tuple(steps), error, None)
    return Verdict(tuple(steps), None, None)


def _of_evidence(
    evidence_type: str,
    evidence: bytes,
    policy: Policy,
    report_data: bytes | None,
    now: datetime,
    choice: endorse.Choice,
) -> Verdict:
    steps: list[Step] = []
    refusal = None
    try:
        own = choice.collect(steps, evidence_type, evidence, (), now)
        appraise_evidence(
            evidence_type,
            evidence,
            policy,
            expected_report_data=report_data,
            now=now,
            endorsements=own,
            trace=steps.append,
        )
    except VerificationError as error:
        refusal = error
    return Verdict(tuple(steps), refusal, report_data is not None)


def _evidence_type(path: Path, data: bytes, kind: Kind | None) -> str:
    kind = kind or recognise(data, f"--evidence {path}")
    if kind not in EVIDENCE_TYPES:
        hint = " (give it as --bundle)" if kind is Kind.BUNDLE else ", which proves nothing by itself"
        raise ConfigurationError(
            f"--evidence {path} is of the kind {kind}{hint}; expected one of {', '.join(EVIDENCE_TYPES)}"
        )
    return EVIDENCE_TYPES[kind]


def _check_belongings(
    is_evidence: bool, is_bundle: bool, kind: Kind | None, report_data: str | None, nonce: str | None
) -> None:
    if not is_evidence and (kind is not None or report_data is not None):
        raise ConfigurationError("--type and --report-data go with --evidence")
    if not is_bundle and nonce is not None:
        raise ConfigurationError("--nonce goes with --bundle; a server is always asked with a fresh one")
