"""What is compared, and how each of them writes a prediction."""

from __future__ import annotations

from enum import StrEnum

from confonnx.ohttp.hpke import Kem


class Form(StrEnum):
    """How a variant writes a prediction."""

    NONE = "none"  # it goes over no wire
    BINARY = "binary"  # Open Inference Protocol with the binary tensor extension
    JSON = "json"  # Open Inference Protocol
    PLAIN_JSON = "plain json"  # {"x": …}
    ALONE = "alone"  # Oblivious HTTP, a key encapsulation for each request
    SESSION = "session"  # docs/spec/sessions.md: one for them all


class Variant(StrEnum):
    """What is compared. The value is its name in a report."""

    IN_PROCESS = "in process"  # limit.py
    MINIMAL = "minimal"  # plain_server.py
    PLAIN = "plain"  # confonnx with the seal bypassed: open_door.py
    SESSION_X25519 = "session X25519"
    SESSION_XWING = "session X-Wing"
    X25519 = "X25519"
    XWING = "X-Wing"
    FASTAPI = "FastAPI"
    BENTOML = "BentoML"
    KSERVE = "KServe"
    MLSERVER = "MLServer"
    TRITON = "Triton py"  # its python backend: the onnxruntime backend is not on PyPI

    @property
    def kem(self) -> Kem | None:
        """The KEM of a sealed variant; None for the others."""
        if self in (Variant.X25519, Variant.SESSION_X25519):
            return Kem.X25519
        return Kem.MLKEM768_X25519 if self in (Variant.XWING, Variant.SESSION_XWING) else None

    @property
    def form(self) -> Form:
        """How its requests and answers are written."""
        return _FORMS.get(self, Form.BINARY)


_FORMS = {
    Variant.IN_PROCESS: Form.NONE,
    Variant.SESSION_X25519: Form.SESSION,
    Variant.SESSION_XWING: Form.SESSION,
    Variant.X25519: Form.ALONE,
    Variant.XWING: Form.ALONE,
    Variant.BENTOML: Form.PLAIN_JSON,
    Variant.MLSERVER: Form.JSON,
}


OURS = (Variant.PLAIN, Variant.SESSION_X25519, Variant.SESSION_XWING, Variant.X25519, Variant.XWING)
"""What one confonnx server answers."""

PEERS = (Variant.FASTAPI, Variant.BENTOML, Variant.KSERVE, Variant.MLSERVER, Variant.TRITON)
"""Other model servers, all of them in the clear."""
