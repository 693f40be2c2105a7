"""Confidential ONNX inference: sealed requests to attested servers in Trusted Execution Environments.

::

    from confonnx import Client

    with Client("https://example.org/", enclave_hash="…", enclave_model_hash="…") as client:
        digit = client.predict({"image": array})["digit"]

Here are the public names and nothing else. The errors come with the package; the rest is imported when it is
first used, so that ``import confonnx`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from confonnx.errors import (
    AttestationExpiredError,
    AuthenticationError,
    BhttpError,
    BindingError,
    BundleError,
    CheckError,
    ConfigurationError,
    ConfonnxError,
    DeadlineExceededError,
    EncapsulationError,
    EndorsementError,
    EvidenceError,
    EvidenceFormatError,
    Failure,
    InferenceError,
    InvalidInputError,
    KeyConfigError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    NotConfonnxError,
    OipError,
    OverloadedError,
    PolicyError,
    ProtocolError,
    ReplayError,
    ServerError,
    TeeError,
    TooLargeError,
    TransportError,
    UnknownKeyError,
    VerificationError,
)

if TYPE_CHECKING:
    from confonnx.attestation.policy import Policy
    from confonnx.attestation.result import AttestedKeys
    from confonnx.client.aio import AsyncClient
    from confonnx.client.sync import Client

__all__ = [
    "AsyncClient",
    "AttestationExpiredError",
    "AttestedKeys",
    "AuthenticationError",
    "BhttpError",
    "BindingError",
    "BundleError",
    "CheckError",
    "Client",
    "ConfigurationError",
    "ConfonnxError",
    "DeadlineExceededError",
    "EncapsulationError",
    "EndorsementError",
    "EvidenceError",
    "EvidenceFormatError",
    "Failure",
    "InferenceError",
    "InvalidInputError",
    "KeyConfigError",
    "ModelError",
    "ModelFormatError",
    "ModelNotFoundError",
    "NotConfonnxError",
    "OipError",
    "OverloadedError",
    "Policy",
    "PolicyError",
    "ProtocolError",
    "ReplayError",
    "ServerError",
    "TeeError",
    "TooLargeError",
    "TransportError",
    "UnknownKeyError",
    "VerificationError",
]

_LAZY = {
    "AsyncClient": "confonnx.client.aio",
    "AttestedKeys": "confonnx.attestation.result",
    "Client": "confonnx.client.sync",
    "Policy": "confonnx.attestation.policy",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value  # the next look-up finds it without this function
    return value


def __dir__() -> list[str]:
    return __all__
