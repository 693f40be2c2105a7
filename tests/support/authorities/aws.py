"""An AWS of our own: a root, the certificates below it, and a Nitro security module that signs documents."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.authorities.pki import NOW, Template, ec_key

ROOT = Template("aws.nitro-enclaves", ec_key("aws-root", "P-384"), ca=True)
REGION = Template("region", ec_key("aws-region", "P-384"), ROOT, ca=True, path_length=1)
INSTANCE = Template("instance", ec_key("aws-instance", "P-384"), REGION, ca=True, path_length=0)
MODULE = Template("module", ec_key("nsm", "P-384"), INSTANCE)

REPORT_DATA = bytes(range(64))
PCR0, PCR8 = bytes([0xA0]) * 48, bytes([0xA8]) * 48


@dataclass(frozen=True)
class Document:
    """How to make a document; ``encode`` makes and signs it. Every part can be made to lie."""

    changes: dict[str, Any] = field(default_factory=dict)  # of the payload
    leaf: Template = MODULE
    bundle: tuple[Template, ...] = (ROOT, REGION, INSTANCE)
    key: ec.EllipticCurvePrivateKey | None = None
    protected: Any = field(default_factory=lambda: {1: -35})
    unprotected: Any = field(default_factory=dict)
    signature: bytes | None = None
    tagged: bool = False

    def but(self, **changes: Any) -> Document:
        """The same, with some parts changed."""
        return replace(self, **changes)

    def encode(self) -> bytes:
        """The document's bytes."""
        payload = cbor2.dumps(self.fields())
        protected = cbor2.dumps(self.protected)
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        message = [protected, self.unprotected, payload, self.signature or self._sign(signed)]
        encoded: bytes = cbor2.dumps(cbor2.CBORTag(18, message) if self.tagged else message)
        return encoded

    def fields(self) -> dict[str, Any]:
        """The payload."""
        fields = {
            "module_id": "i-1234-enc5678",
            "digest": "SHA384",
            "timestamp": round(NOW.timestamp() * 1000),
            "pcrs": {index: bytes(48) for index in range(16)} | {0: PCR0, 8: PCR8},
            "certificate": self.leaf.build().public_bytes(Encoding.DER),
            "cabundle": [template.build().public_bytes(Encoding.DER) for template in self.bundle],
            "public_key": None,
            "user_data": REPORT_DATA,
            "nonce": None,
        } | self.changes
        return {name: value for name, value in fields.items() if value is not ...}

    def _sign(self, message: bytes) -> bytes:
        key = self.key or ec_key("nsm", "P-384")
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
        return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def roots() -> frozenset[bytes]:
    """The pinned root of this AWS."""
    return frozenset({ROOT.root_digest()})
