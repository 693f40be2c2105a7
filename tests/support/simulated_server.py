"""A simulated server without a server: keys, statement, evidence, bundle, any field exchanged on demand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from confonnx.attestation.bundle import Bundle
from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import ModelDigests, OneOf, Policy, reference_values
from confonnx.attestation.statement import ModelDescription, Statement, StatementLimits, report_data
from confonnx.attestation.verify.simulated import SIMULATED_EVIDENCE, SimulatedReport, sign
from confonnx.keys.ring import KeyRing
from confonnx.oip.datatypes import Datatype, TensorType, ValueSpec

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
NONCE = bytes(range(32))
MEASUREMENT = bytes.fromhex("a1" * 32)
SIGNER = bytes.fromhex("b2" * 32)
MODEL_DIGEST = "c3" * 32
SECRET = bytes(range(32))
LIFETIME = timedelta(hours=24)
GRACE = timedelta(minutes=10)


def ring(*, secret: bytes = SECRET, started_at: datetime = NOW, epoch: int = 7) -> KeyRing:
    """A key ring that never differs."""
    return KeyRing(secret, epoch=epoch, started_at=started_at, lifetime=LIFETIME, grace=GRACE)


def model(name: str = "digits", version: str = "1", digest: str = MODEL_DIGEST) -> ModelDescription:
    """A model of one input and one output."""
    return ModelDescription(
        name=name,
        version=version,
        digest=digest,
        inputs=(ValueSpec("image", TensorType(Datatype.FP32, ("batch", 64))),),
        outputs=(ValueSpec("digit", TensorType(Datatype.INT64, ("batch",))),),
    )


def statement() -> Statement:
    """A statement that `policy` accepts at `NOW` with `NONCE`."""
    return Statement(
        issued_at=NOW,
        nonce=NONCE,
        keys=ring().attested_keys(NOW),
        models=(model(),),
        deployment="production",
        server_version="0.1.0",
        authentication=("bearer",),
        limits=StatementLimits(2**26, 2**26, timedelta(minutes=2)),
    )


def report(statement_bytes: bytes) -> SimulatedReport:
    """A report that binds the statement."""
    return SimulatedReport(
        measurement=MEASUREMENT,
        signer=SIGNER,
        debug=False,
        report_data=report_data(statement_bytes),
        product_id=3,
        security_version=5,
    )


def bundle(of: Statement | None = None) -> Bundle:
    """A bundle with evidence that binds the statement."""
    encoded = (of or statement()).encode()
    return Bundle(statement=encoded, evidence_type=SIMULATED_EVIDENCE, evidence=sign(report(encoded)))


def bundle_with(**changes: object) -> Bundle:
    """A bundle whose evidence was signed with these fields of the report exchanged."""
    encoded = statement().encode()
    changed = replace(report(encoded), **changes)  # type: ignore[arg-type]
    return Bundle(statement=encoded, evidence_type=SIMULATED_EVIDENCE, evidence=sign(changed))


def policy() -> Policy:
    """Accepts exactly `bundle`."""
    return Policy(
        accepted=(
            reference_values(
                Tee.SIMULATED, {"measurement": OneOf((MEASUREMENT,)), "signer": OneOf((SIGNER,))}
            ),
        ),
        models=ModelDigests((MODEL_DIGEST,)),
        deployments=("production",),
    )
