"""The appraisal policy: which servers a client trusts, with no default that trusts any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from confonnx.attestation.claims import Claims, Tee
from confonnx.attestation.policy import toml_form
from confonnx.attestation.policy.fields import Field, Kind, Role, fields_of
from confonnx.attestation.policy.matchers import ANY, AnyValue, AtLeast, Matcher, OneOf
from confonnx.attestation.policy.parts import DangerousAnyModel, Freshness, ModelDigests, parse_model_hash
from confonnx.attestation.policy.reference import ReferenceValues, reference_values
from confonnx.attestation.policy.rules import AnyOf
from confonnx.attestation.policy.signing_key import signers
from confonnx.attestation.statement import ModelDescription
from confonnx.errors import ConfigurationError, Failure

_ENCLAVE_HASH_SIZES: Final = (32, 48)  # bytes: SHA-256 measurements and PCR identities, SHA-384 measurements


@dataclass(frozen=True, slots=True)
class Policy:
    """What a client accepts. ``accepted`` are alternatives, one or more; ``models`` and ``deployments``
    must be stated.

    ``deployments`` are the accepted values of the statement's deployment, one or more, or ``ANY``. Raises
    ``ConfigurationError``.
    """

    accepted: tuple[ReferenceValues, ...]
    models: ModelDigests | DangerousAnyModel
    deployments: tuple[str, ...] | AnyValue
    freshness: Freshness = field(default_factory=Freshness)

    def __post_init__(self) -> None:
        if not self.accepted:
            raise ConfigurationError(
                "a policy that names no TEE accepts no server; give at least one [[server]]"
            )
        if self.deployments == ():
            raise ConfigurationError(
                'a policy with no deployment accepts no server; give at least one, or "any"'
            )

    @staticmethod
    def from_toml(text: str) -> Policy:
        """The policy in ``text``, see ``toml_form``. Raises ``ConfigurationError`` naming the key, the
        expected and the found.
        """
        return Policy(*toml_form.read(text))

    def to_toml(self) -> str:
        """A text of which ``from_toml`` makes an equal policy."""
        return toml_form.write(self.accepted, self.models, self.deployments, self.freshness)

    @staticmethod
    def simple(
        *,
        enclave_hash: str | Sequence[str] | None = None,
        enclave_signing_key: str | bytes | None = None,
        enclave_model_hash: str | Sequence[str] | None = None,
        allow_debug: bool = False,
        allow_simulated: bool = False,
        dangerous_any_model: bool = False,
    ) -> Policy:
        """The policy of the simple options, for every TEE that can show what they name.

        ``enclave_hash``: one or several measurements, 64 or 96 hex digits. ``enclave_signing_key``: PEM,
        see ``signing_key.signers``. Given both, a server must match both. ``enclave_model_hash``: one or
        several model digests, as ``hash-model`` or ``sha256sum`` prints them. A TPM alone is never accepted
        by these options, as it protects no memory.

        Raises ``ConfigurationError`` without an enclave hash or signing key, and without a model hash.
        """
        models = _simple_models(enclave_model_hash, dangerous_any_model=dangerous_any_model)
        if enclave_hash is None and enclave_signing_key is None:
            raise ConfigurationError(
                "nothing says which server code to trust: give enclave_hash (--enclave-hash, what "
                "`confonnx measure` prints) or enclave_signing_key (--enclave-signing-key-file), or a "
                "policy"
            )
        hashes = (
            None if enclave_hash is None else [parse_enclave_hash(text) for text in _several(enclave_hash)]
        )
        by_tee = None if enclave_signing_key is None else signers(enclave_signing_key)
        accepted = tuple(
            reference_values(tee, values, allow_debug=allow_debug)
            for tee in Tee
            if tee is not Tee.TPM
            and (tee is not Tee.SIMULATED or allow_simulated)
            and (values := _simple_values(tee, hashes, by_tee)) is not None
        )
        if not accepted:
            raise ConfigurationError(
                "no TEE can show what the options name: the enclave hash and the signing key are for "
                "different TEEs, or the key is of a kind that only simulated evidence takes (SGX takes "
                "RSA-3072, SEV-SNP P-384, Nitro a certificate), or the hash is of simulated evidence "
                "(--allow-simulated)"
            )
        return Policy(accepted=accepted, models=models, deployments=ANY)

    @property
    def tpm_roots(self) -> frozenset[bytes]:
        """SHA-256 of the public keys of the roots that may vouch for a TPM's attestation key."""
        matchers = [matcher for server in self.accepted for key, matcher in server.values if key == "root"]
        return frozenset(
            value for matcher in matchers if isinstance(matcher, OneOf) for value in matcher.values
        )

    def check_claims(self, claims: Claims, *, now: datetime) -> tuple[Failure, ...]:
        """Every reason to refuse what the evidence says; empty when one of ``accepted`` matches."""
        candidates = tuple(server for server in self.accepted if server.tee is claims.tee)
        if not candidates:
            tees = ", ".join(dict.fromkeys(str(server.tee) for server in self.accepted))
            hint = "; simulated evidence proves nothing and must be named (--allow-simulated)" * (
                claims.tee is Tee.SIMULATED
            )
            return (Failure("policy.tee", f"TEE: expected {tees}, found {claims.tee}{hint}"),)
        return AnyOf(candidates).check(claims, now=now)

    def accepted_models(self, models: Sequence[ModelDescription]) -> tuple[ModelDescription, ...]:
        """Those of ``models`` that the policy accepts, in their order."""
        if isinstance(self.models, DangerousAnyModel):
            return tuple(models)
        return tuple(model for model in models if model.digest in self.models.digests)

    def check_models(self, models: Sequence[ModelDescription]) -> tuple[Failure, ...]:
        """A failure when the server has no model that is accepted."""
        if self.accepted_models(models):
            return ()
        expected = " or ".join(self.models.digests) if isinstance(self.models, ModelDigests) else "any model"
        found = (
            ", ".join(f"{model.name} version {model.version}: {model.digest}" for model in models)
            or "no model"
        )
        return (Failure("policy.models", f"model digest: expected {expected}, found {found}"),)

    def check_deployment(self, deployment: str) -> tuple[Failure, ...]:
        """A failure when the deployment is another one."""
        if isinstance(self.deployments, AnyValue) or deployment in self.deployments:
            return ()
        expected = " or ".join(map(repr, self.deployments))
        return (Failure("policy.deployment", f"deployment: expected {expected}, found {deployment!r}"),)


def parse_enclave_hash(text: str) -> bytes:
    """The 32 or 48 bytes of a measurement in hex."""
    try:
        value = bytes.fromhex(text.strip().lower().removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) not in _ENCLAVE_HASH_SIZES:
        raise ConfigurationError(
            "the enclave hash must be 64 hex digits (SGX, Azure, simulated) or 96 (TDX, SEV-SNP, Nitro), "
            f"as `confonnx measure` prints; found {text.strip()[:100]!r}"
        )
    if not any(value):
        raise ConfigurationError(
            "the enclave hash is all zeros, which measures nothing; `confonnx measure` prints the right one"
        )
    return value


def _simple_models(
    texts: str | Sequence[str] | None, *, dangerous_any_model: bool
) -> ModelDigests | DangerousAnyModel:
    if dangerous_any_model:
        if texts is not None:
            raise ConfigurationError("give either a model hash or dangerous_any_model, not both")
        return DangerousAnyModel()
    if texts is None:
        raise ConfigurationError(
            "nothing says which model to trust: give enclave_model_hash (--enclave-model-hash, what "
            "`confonnx hash-model model.onnx` prints), or accept every model with dangerous_any_model"
        )
    return ModelDigests(tuple(dict.fromkeys(parse_model_hash(text) for text in _several(texts))))


def _simple_values(
    tee: Tee, hashes: list[bytes] | None, by_tee: dict[Tee, bytes] | None
) -> dict[str, Matcher] | None:
    """The reference values that the options mean for ``tee``; None when it cannot show them."""
    fields = fields_of(tee)
    whole = fields[0]
    values: dict[str, Matcher] = {}
    if hashes is not None:
        fitting = tuple(value for value in hashes if len(value) == whole.size)
        if not fitting:
            return None
        values[whole.key] = OneOf(fitting)
    if by_tee is not None:
        if tee not in by_tee:
            return None
        values[_SIGNER_KEYS[tee]] = OneOf((by_tee[tee],))
    if hashes is None:
        # The signer alone: any program and version of theirs.
        values = {
            item.key: _unrestricted(item) for item in fields if item.role in (Role.PART, Role.CONTEXT)
        } | values
    return values


_SIGNER_KEYS: Final = {
    Tee.SGX: "mrsigner",
    Tee.SEV_SNP: "id_key_digest",
    Tee.NITRO: "pcr8",
    Tee.SIMULATED: "signer",
}


def _unrestricted(item: Field) -> Matcher:
    return AtLeast(0) if item.kind is Kind.MINIMUM else ANY


def _several(texts: str | Sequence[str]) -> Sequence[str]:
    several = (texts,) if isinstance(texts, str) else texts
    if not several:
        raise ConfigurationError("an empty list of hashes accepts nothing; give at least one")
    return several
