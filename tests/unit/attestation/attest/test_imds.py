"""What IMDS says, and what it should not."""

from __future__ import annotations

import socket

import pytest

from confonnx.attestation.attest import imds
from confonnx.errors import TeeError
from tests.support.fake_imds import FakeImds, certification, fake_imds


def test_certificates_of_an_amd_processor() -> None:
    with fake_imds(FakeImds(certification(b"VCEK\n", b"ASK\nARK\n"))) as service:
        assert imds.get_amd_certificates(service.url) == b"VCEK\nASK\nARK\n"
    assert service.asked == ["GET /metadata/THIM/amd/certification"]


@pytest.mark.parametrize("size", range(1, 5))
def test_a_td_quote(size: int) -> None:
    with fake_imds(FakeImds(td_quote=lambda report: report + b"\xfb\xff")) as service:
        assert imds.get_td_quote(service.url, b"\xff" * size) == b"\xff" * size + b"\xfb\xff"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"vcekCert": 1, "certificateChain": ""}', b"\xff"])
def test_answers_that_are_none(body: bytes) -> None:
    with fake_imds(FakeImds(body=body)) as service:
        with pytest.raises(TeeError, match="no certificates"):
            imds.get_amd_certificates(service.url)
        with pytest.raises(TeeError, match="no TD quote"):
            imds.get_td_quote(service.url, bytes(1024))


@pytest.mark.parametrize("quote", ['"x"', '"!!!!"', '"\u00e4"', "null"])
def test_a_quote_that_is_not_base64url(quote: str) -> None:
    body = f'{{"quote": {quote}}}'.encode()
    with fake_imds(FakeImds(body=body)) as service, pytest.raises(TeeError, match="no TD quote"):
        imds.get_td_quote(service.url, bytes(1024))


@pytest.mark.parametrize("status", [204, 302, 404, 429, 500])
def test_statuses(status: int) -> None:
    with (
        fake_imds(FakeImds(b"{}", status=status)) as service,
        pytest.raises(TeeError, match=rf"THIM/amd/certification answered with status {status}"),
    ):
        imds.get_amd_certificates(service.url)


def test_too_much() -> None:
    with (
        fake_imds(FakeImds(body=bytes(256 * 1024 + 1))) as service,
        pytest.raises(TeeError, match="262145 bytes"),
    ):
        imds.get_amd_certificates(service.url)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(TeeError, match="cannot be asked"):
        imds.get_amd_certificates(url)
