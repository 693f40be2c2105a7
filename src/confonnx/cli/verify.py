"""``confonnx verify``: is this server what the policy accepts, step by step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from confonnx.attestation.verify.appraise import Outcome, Step, appraise
from confonnx.cli import connection as options
from confonnx.cli import evidence_source as source
from confonnx.cli.outcome import exit_status
from confonnx.errors import BundleError, VerificationError


def verify(
    url: source.UrlOrNone = None,
    bundle: source.SavedBundle = None,
    nonce: source.Nonce = None,
    now: source.Instant = None,
    enclave_hash: options.EnclaveHash = None,
    enclave_signing_key_file: options.EnclaveSigningKeyFile = None,
    enclave_model_hash: options.EnclaveModelHash = None,
    enclave_model_hash_file: options.EnclaveModelHashFile = None,
    enclave_allow_debug: options.EnclaveAllowDebug = False,
    allow_simulated: options.AllowSimulated = False,
    dangerous_any_model: options.DangerousAnyModel = False,
    policy_file: options.PolicyFile = None,
    ingress_user: options.IngressUser = "api",
    ingress_pass: options.IngressPass = None,
    ingress_key: options.IngressKey = None,
    ca_file: options.CaFile = None,
    timeout: options.Timeout = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify a server, or a saved attestation bundle, and show every step.

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
    ).policy()
    source.only_one(url, bundle)
    if url is not None:
        ingress = options.ingress_auth(ingress_user, ingress_pass, ingress_key)
        found = source.from_server(url, ingress=ingress, ca_file=ca_file, timeout=timeout)
    else:
        assert bundle is not None
        found = source.from_file(bundle, nonce=nonce)
    steps: list[Step] = []
    refusal: VerificationError | BundleError | None = None
    try:
        appraise(
            found.bundle,
            policy,
            nonce=found.nonce,
            now=found.now if now is None else source.parse_instant(now),
            trace=steps.append,
        )
    except (VerificationError, BundleError) as error:
        refusal = error
    typer.echo(_as_json(steps, refusal) if as_json else _as_text(steps, refusal))
    if refusal is not None:
        raise typer.Exit(exit_status(refusal))


def _as_text(steps: Sequence[Step], refusal: Exception | None) -> str:
    width = max(len(step.id) for step in steps)
    lines = []
    for step in steps:
        lines.append(f"{step.outcome:4}  {step.id:{width}}  {step.title}")
        if step.reason:
            lines.append(f"      why: {step.reason}")
        if step.remedy:
            lines.append(f"      do:  {step.remedy}")
    failed = sum(step.outcome is Outcome.FAIL for step in steps)
    lines.append("ACCEPTED" if refusal is None else f"REFUSED ({failed} of {len(steps)} steps failed)")
    return "\n".join(lines)


def _as_json(steps: Sequence[Step], refusal: VerificationError | BundleError | None) -> str:
    document = {
        "accepted": refusal is None,
        "code": None if refusal is None else refusal.code,
        "steps": [
            {
                "id": step.id,
                "outcome": step.outcome.value,
                "title": step.title,
                "reason": step.reason,
                "remedy": step.remedy,
            }
            for step in steps
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)
