"""Every check that a verifier can raise stands in its docstring, nothing else does, and a test provokes
it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from confonnx.attestation.verify import azure_cvm, dcap, nitro, sev_snp, sgx, tcb, tdx, tpm, x509

# What a verifier raises through modules that it shares with others, which put its own prefix before it.
CHAIN = {"root", "chain", "validity"}
REVOCATION = {"crl", "revoked"}
QUOTE = {"key", "signature", "pcrs", "event-log"}

VERIFIERS: dict[str, tuple[tuple[ModuleType, ...], str, set[str], str]] = {
    "sev-snp": ((sev_snp,), "sev-snp", {"endorsements"} | CHAIN | REVOCATION, "test_sev_snp.py"),
    "dcap": ((dcap, tcb), "dcap", {"endorsements"} | CHAIN | REVOCATION, "test_dcap.py"),
    "sgx": ((sgx,), "sgx", set(), "test_dcap.py"),
    "tdx": ((tdx,), "tdx", set(), "test_dcap.py"),
    "nitro": ((nitro,), "nitro", {"endorsements"} | CHAIN, "test_nitro.py"),
    "tpm": ((tpm,), "tpm", {"endorsements"} | CHAIN | REVOCATION | QUOTE, "test_tpm.py"),
    "azure": ((azure_cvm,), "azure", {"endorsements"} | QUOTE, "test_azure_cvm.py"),
}


def documented(module: ModuleType, prefix: str) -> set[str]:
    return set(re.findall(rf"``({prefix}\.[a-z-]+)``", module.__doc__ or ""))


def raised(modules: tuple[ModuleType, ...], prefix: str, shared: set[str]) -> set[str]:
    own = {check for module in modules for check in re.findall(rf'"({prefix}\.[a-z-]+)"', source(module))}
    return own | {f"{prefix}.{check}" for check in shared}


def source(module: ModuleType) -> str:
    assert module.__file__ is not None
    return Path(module.__file__).read_text("utf-8")


@pytest.mark.parametrize("name", VERIFIERS)
def test_the_docstring_lists_every_check(name: str) -> None:
    modules, prefix, shared, _ = VERIFIERS[name]
    assert documented(modules[0], prefix) == raised(modules, prefix, shared)


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_test_provokes_every_check(name: str) -> None:
    modules, prefix, shared, test = VERIFIERS[name]
    text = Path(__file__).with_name(test).read_text("utf-8")
    missing = {check for check in raised(modules, prefix, shared) if f'"{check}"' not in text}
    assert missing <= {"azure.endorsements"}  # bundle entries are read before; test_x509.py has that step


def test_the_shared_modules_have_the_shared_checks() -> None:
    shared = set(re.findall(r'f"\{step\}\.([a-z-]+)"', source(x509) + source(tpm)))
    assert shared == {"endorsements"} | CHAIN | REVOCATION | QUOTE
