"""Oblivious HTTP against RFC 9458 appendix A, bit for bit, and against a request that ohttp-js made."""

from __future__ import annotations

from confonnx.ohttp.bhttp import Request, Response, parse_request, parse_response
from confonnx.ohttp.encapsulation import encapsulate_request, open_request
from confonnx.ohttp.hpke import Aead, Kem, PrivateKey
from confonnx.ohttp.key_config import KeyConfig, parse_key_config
from tests.support.shared import vector
from tests.unit.ohttp.single_key import SingleKey

RFC: dict[str, str] = vector("vectors-protocol/ohttp/rfc9458-appendix-a.json")
OHTTP_JS = vector("vectors-protocol/ohttp/ohttp-ts-ohttp-js.json")["vectors"]


def unhex(name: str) -> bytes:
    return bytes.fromhex(RFC[name])


def config() -> KeyConfig:
    return parse_key_config(unhex("keyConfig"))


def gateway() -> SingleKey:
    return SingleKey(1, PrivateKey.from_bytes(Kem.X25519, unhex("skR")))


def test_key_configuration() -> None:
    assert config().public_key == gateway().key.public_key
    assert config().encode() == unhex("keyConfig")


def test_client() -> None:
    message, opener = encapsulate_request(
        config(), [unhex("request_bhttp")], aead=Aead.AES_128_GCM, pad=False, randomness=unhex("skE")
    )
    assert message.hex() == RFC["encapsulatedRequest"]
    response = opener.open(unhex("encapsulatedResponse"))
    assert response.hex() == RFC["response_bhttp"]
    assert parse_response(response) == Response(200)


def test_gateway() -> None:
    opened = open_request(gateway(), bytearray(unhex("encapsulatedRequest")))
    assert opened.plaintext.hex() == RFC["request_bhttp"]
    assert opened.enc.hex() == RFC["enc"]
    assert parse_request(opened.plaintext) == Request("GET", "https", "example.com", "/")
    response = opened.sealer.seal([unhex("response_bhttp")], pad=False, randomness=unhex("responseNonce"))
    assert response.hex() == RFC["encapsulatedResponse"]


def test_request_of_ohttp_js() -> None:
    (entry,) = OHTTP_JS
    keys = SingleKey(entry["keyId"], PrivateKey.derive(Kem(entry["kemId"]), bytes.fromhex(entry["seed"])))
    opened = open_request(keys, bytes.fromhex(entry["encapsulatedRequest"]))
    path = "/oblivious-http/draft-ietf-ohai-ohttp.html"
    assert parse_request(opened.plaintext) == Request("POST", "https", "ietf-wg-ohai.github.io", path)
