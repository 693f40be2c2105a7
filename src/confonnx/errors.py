"""Every error that confonnx raises on purpose, in one tree.

::

    ConfonnxError
    ├── ConfigurationError            an option, a variable, a file of settings or a policy is wrong
    ├── ProtocolError                 bytes do not follow the protocol
    │   ├── BhttpError                Binary HTTP, RFC 9292
    │   ├── KeyConfigError            an OHTTP key configuration, RFC 9458 §3
    │   ├── EncapsulationError        a sealed message that does not open, for whatever reason
    │   │   └── UnknownKeyError       … because its key identifier is not ours
    │   ├── OipError                  Open Inference Protocol v2
    │   ├── BundleError               an attestation bundle (CMW) or the statement in it
    │   └── NotConfonnxError          what answered is no confonnx server
    ├── VerificationError             the server is not proven to be what the policy accepts
    │   ├── EvidenceFormatError       evidence that cannot be parsed
    │   ├── EvidenceError             evidence whose signature, chain or vendor rules do not hold
    │   ├── EndorsementError          certificates, CRLs or collateral missing, expired or wrong
    │   ├── BindingError              genuine evidence for another statement, key or nonce
    │   ├── PolicyError               genuine evidence of something that the policy does not accept
    │   └── AttestationExpiredError   keys used after the verification that vouched for them ran out
    ├── ModelError                    a model file or repository
    │   ├── ModelFormatError          not ONNX, truncated, or not supported by this runtime
    │   └── ModelNotFoundError        no model of that name and version
    ├── InvalidInputError             a tensor is missing, extra, or of the wrong type or shape
    ├── InferenceError                the runtime refused or failed
    ├── AuthenticationError           the server, or an ingress before it, wants other credentials
    ├── OverloadedError               a queue or rate limit is full; try again later
    ├── TooLargeError                 a message is over a size limit
    ├── DeadlineExceededError         the answer did not come in time
    ├── ReplayError                   a sealed request that was seen before, or is too old or too new
    ├── ServerError                   the server answered with an error that has no kind of its own
    ├── TransportError                the network: no connection, a broken one, or no answer
    └── TeeError                      a TEE device is missing or failed

``code`` is stable and meant for programs; the text is for people: it says what was expected, what was found
and, where that is not obvious, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class ConfonnxError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "confonnx"


class ConfigurationError(ConfonnxError):
    """An option, an environment variable, a settings file or a policy is wrong."""

    code = "configuration"


class ProtocolError(ConfonnxError):
    """Bytes do not follow the protocol."""

    code = "protocol"


class BhttpError(ProtocolError):
    """Malformed Binary HTTP (RFC 9292)."""

    code = "protocol.bhttp"


class KeyConfigError(ProtocolError):
    """Malformed or unusable OHTTP key configuration (RFC 9458 §3)."""

    code = "protocol.key-config"


class EncapsulationError(ProtocolError):
    """A sealed message that does not open. The text never says why: the reason would be an oracle."""

    code = "protocol.encapsulation"


class UnknownKeyError(EncapsulationError):
    """The key identifier is not one of ours (RFC 9458 §5.3)."""

    code = "protocol.unknown-key"


class OipError(ProtocolError):
    """Malformed Open Inference Protocol message."""

    code = "protocol.oip"


class BundleError(ProtocolError):
    """Malformed attestation bundle or statement."""

    code = "protocol.bundle"


class NotConfonnxError(ProtocolError):
    """What answered is no confonnx server."""

    code = "protocol.not-confonnx"


class VerificationError(ConfonnxError):
    """The server is not proven to be what the policy accepts; nothing was sent to it."""

    code = "verification"


class EvidenceFormatError(VerificationError):
    """Evidence that cannot be parsed."""

    code = "verification.evidence-format"


@dataclass(frozen=True, slots=True)
class Failure:
    """One check that did not hold: ``code`` is its stable identifier, ``text`` is for people."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"


class CheckError(VerificationError):
    """A verification error that names the check that failed. Raised through its subclasses only."""

    def __init__(self, check: str, text: str) -> None:
        """``check`` is the stable identifier of the step, such as ``sev-snp.signature``."""
        super().__init__(f"{text} [{check}]")
        self.check = check


class EvidenceError(CheckError):
    """A signature, a chain or a vendor rule does not hold."""

    code = "verification.evidence"


class EndorsementError(CheckError):
    """A certificate, a CRL or collateral is missing, expired, revoked or wrong."""

    code = "verification.endorsement"


class BindingError(CheckError):
    """Genuine evidence, but for another statement, key or nonce."""

    code = "verification.binding"


class PolicyError(VerificationError):
    """Genuine evidence of something that the policy does not accept; ``failures`` lists every reason."""

    code = "verification.policy"

    def __init__(self, failures: Sequence[Failure]) -> None:
        """``failures`` must not be empty: an error without a reason would be no help."""
        if not failures:
            raise ValueError("PolicyError needs at least one failure")
        self.failures = tuple(failures)
        lines = "".join(f"\n  - {failure}" for failure in self.failures)
        super().__init__(f"the policy does not accept this server:{lines}")


class AttestationExpiredError(VerificationError):
    """The verification that vouched for a key has run out."""

    code = "verification.expired"


class ModelError(ConfonnxError):
    """A model file or a model repository is wrong."""

    code = "model"


class ModelFormatError(ModelError):
    """Not an ONNX model, truncated, or not supported by this runtime."""

    code = "model.format"


class ModelNotFoundError(ModelError):
    """No model of that name and version."""

    code = "model.not-found"


class InvalidInputError(ConfonnxError):
    """A tensor is missing, extra, or of the wrong type or shape."""

    code = "inference.invalid-input"


class InferenceError(ConfonnxError):
    """The runtime refused or failed; the text is the runtime's."""

    code = "inference"


class AuthenticationError(ConfonnxError):
    """Credentials are missing or wrong."""

    code = "authentication"


class OverloadedError(ConfonnxError):
    """A queue or a rate limit is full. ``retry_after`` is in seconds."""

    code = "overloaded"

    def __init__(self, text: str, *, retry_after: int = 1) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class TooLargeError(ConfonnxError):
    """A message is over a size limit."""

    code = "too-large"


class DeadlineExceededError(ConfonnxError):
    """The answer did not come in time."""

    code = "deadline-exceeded"


class ReplayError(ConfonnxError):
    """A sealed request that was seen before, or whose date is outside the window (RFC 9458 §6.5)."""

    code = "replay"


class ServerError(ConfonnxError):
    """The server answered with an error that has no kind of its own. ``status`` is the HTTP status."""

    code = "server"

    def __init__(self, text: str, *, status: int) -> None:
        super().__init__(text)
        self.status = status


class TransportError(ConfonnxError):
    """The network: no connection, a broken one, or no answer."""

    code = "transport"


class TeeError(ConfonnxError):
    """A TEE device is missing or failed."""

    code = "tee"
