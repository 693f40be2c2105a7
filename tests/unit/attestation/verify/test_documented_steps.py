"""Every check that a verifier can raise stands in its table ``CHECKS``, nothing else does, a test provokes
it, and ``docs/spec/attestation.md`` names it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from confonnx.attestation.claims import Tee
from confonnx.attestation.verify import azure_cvm, dcap, nitro, sev_snp, sgx, simulated, tcb, tdx, tpm, x509
from confonnx.attestation.verify.dispatch import checks_of

# What a verifier raises through modules that it shares with others, which put its own prefix before it.
CHAIN = {"root", "chain", "validity"}
REVOCATION = {"crl", "revoked"}
QUOTE = {"key", "signature", "pcrs", "event-log"}

RAISED = r"(?<!run\()(?<!skip\(){}(?!: \()"  # an identifier where it is neither traced nor listed

VERIFIERS: dict[str, tuple[tuple[ModuleType, ...], str, set[str], str]] = {
    "sev-snp": ((sev_snp,), "sev-snp", {"endorsements"} | CHAIN | REVOCATION, "test_sev_snp.py"),
    "dcap": ((dcap, tcb), "dcap", {"endorsements"} | CHAIN | REVOCATION, "test_dcap.py"),
    "sgx": ((sgx,), "sgx", set(), "test_dcap.py"),
    "tdx": ((tdx, tcb), "tdx", set(), "test_dcap.py"),
    "nitro": ((nitro,), "nitro", {"endorsements"} | CHAIN, "test_nitro.py"),
    "tpm": ((tpm,), "tpm", {"endorsements"} | CHAIN | REVOCATION | QUOTE, "test_tpm.py"),
    "simulated": ((simulated,), "simulated", set(), "../test_simulated.py"),
    "azure": ((azure_cvm,), "azure", {"endorsements"} | QUOTE, "test_azure_cvm.py"),
}


def listed(prefix: str) -> set[str]:
    ids = {check for tee in Tee for check in checks_of(tee) if check.startswith(f"{prefix}.")}
    return ids - {f"{prefix}.format"}  # EvidenceFormatError, which has no identifier of its own


def raised(modules: tuple[ModuleType, ...], prefix: str, shared: set[str]) -> set[str]:
    pattern = RAISED.format(f'"({prefix}\\.[a-z-]+)"')
    own = {check for module in modules for check in re.findall(pattern, source(module))}
    return own | {f"{prefix}.{check}" for check in shared}


def source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text("utf-8")


@pytest.mark.parametrize("name", VERIFIERS)
def test_the_table_lists_every_check(name: str) -> None:
    modules, prefix, shared, _ = VERIFIERS[name]
    assert listed(prefix) == raised(modules, prefix, shared)


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_test_provokes_every_check(name: str) -> None:
    modules, prefix, shared, test = VERIFIERS[name]
    text = (Path(__file__).parent / test).read_text("utf-8")
    missing = {check for check in raised(modules, prefix, shared) if f'"{check}"' not in text}
    assert missing <= {"azure.endorsements"}  # bundle entries are read before; test_x509.py has that step


def test_the_shared_modules_have_the_shared_checks() -> None:
    pattern = RAISED.format(r'f"\{step\}\.([a-z-]+)"')
    shared = set(re.findall(pattern, source(x509) + source(tpm)))
    assert shared == {"endorsements"} | CHAIN | REVOCATION | QUOTE


def test_the_specification_has_every_check() -> None:
    text = (Path(__file__).parents[4] / "docs/spec/attestation.md").read_text("utf-8")
    rows = re.findall(r"^\| [A-Za-z][^|]* \| `([a-z-]+\.[a-z-]+)` \| (.+) \|$", text, re.M)
    checks = {check: title for tee in Tee for check, (title, _) in checks_of(tee).items()}
    assert dict(rows) == checks
    assert len(rows) == len(checks)
