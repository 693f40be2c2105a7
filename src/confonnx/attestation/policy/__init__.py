"""The appraisal policy of a client (RFC 9334 §8.5): what a server must prove before anything is sealed to it.

A :class:`Policy` lists alternatives of :class:`ReferenceValues`, the accepted models, the accepted
deployments and bounds on age. It has no default that trusts anybody: what a field accepts is said, ``ANY``
included. The simple options compile to one (:meth:`Policy.simple`), a TOML text is one
(:meth:`Policy.from_toml`), :func:`describe` and :func:`diff` put it in words. ``verify.appraise`` applies
it; nothing else does.
"""

from confonnx.attestation.policy.fields import Field, Kind, Role, fields_of, has_dcap_tcb
from confonnx.attestation.policy.matchers import (
    ANY,
    AnyValue,
    AtLeast,
    AtLeastEach,
    Masked,
    Matcher,
    OneOf,
    OneOfNumbers,
    OneOfTexts,
)
from confonnx.attestation.policy.parts import DangerousAnyModel, Freshness, ModelDigests, parse_model_hash
from confonnx.attestation.policy.policy import Policy, parse_enclave_hash
from confonnx.attestation.policy.reference import ReferenceValues, reference_values
from confonnx.attestation.policy.rules import AllOf, AnyOf, DcapTcb, DebugRule, FieldRule, Rule
from confonnx.attestation.policy.signing_key import signers, simulated_signer
from confonnx.attestation.policy.words import describe, diff

__all__ = [
    "ANY",
    "AllOf",
    "AnyOf",
    "AnyValue",
    "AtLeast",
    "AtLeastEach",
    "DangerousAnyModel",
    "DcapTcb",
    "DebugRule",
    "Field",
    "FieldRule",
    "Freshness",
    "Kind",
    "Masked",
    "Matcher",
    "ModelDigests",
    "OneOf",
    "OneOfNumbers",
    "OneOfTexts",
    "Policy",
    "ReferenceValues",
    "Role",
    "Rule",
    "describe",
    "diff",
    "fields_of",
    "has_dcap_tcb",
    "parse_enclave_hash",
    "parse_model_hash",
    "reference_values",
    "signers",
    "simulated_signer",
]
