"""Where a client's endorsements come from: the server, unless the caller chose otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from confonnx import AsyncClient, Client
from confonnx.attestation import bundle
from confonnx.attestation.claims import SEV_SNP_REPORT
from confonnx.attestation.endorse.options import EndorsementOptions, Mode
from confonnx.attestation.result import AttestedKeys
from confonnx.attestation.statement import report_data
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.errors import ConfigurationError, EndorsementError, OverloadedError
from tests.support.authorities import amd
from tests.support.authorities.pki import crl, pem
from tests.support.fake_server import BASE_URL, AsyncFakeServer, FakeServer, policy
from tests.support.fake_vendors import FakeVendors, Page, fake_vendors, kds_pages

VCEK = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
PAGES = kds_pages(
    VCEK,
    amd.Chip().vek().but(not_after=datetime(2046, 1, 1, tzinfo=UTC)).build(),
    pem(amd.ASK.build(), amd.ARK.build()),
    crl(amd.ARK),
    "Milan",
)


@dataclass
class SnpServer:
    """A server on a made-up Milan, which sends no endorsements along."""

    server: FakeServer

    def __call__(self, request: HttpRequest) -> HttpResponse | None:
        if request.method != "GET":
            return None
        plain = bundle.parse_bundle(self.server._bundle(bytes(32)))
        report = amd.report({0x50: report_data(plain.statement)})
        changed = replace(plain, evidence_type=SEV_SNP_REPORT, evidence=report, endorsements=())
        return self.server.answer(200, bundle.MEDIA_TYPE, changed.encode())


def verify_sync(server: FakeServer, endorsements: EndorsementOptions) -> AttestedKeys:
    with Client(BASE_URL, transport=server, policy=policy(), endorsements=endorsements) as client:
        return client.verify()


def verify_async(server: FakeServer, endorsements: EndorsementOptions) -> AttestedKeys:
    async def verify() -> AttestedKeys:
        transport = AsyncFakeServer(server)
        async with AsyncClient(
            BASE_URL, transport=transport, policy=policy(), endorsements=endorsements
        ) as client:
            return await client.verify()

    return asyncio.run(verify())


Verify = Callable[[FakeServer, EndorsementOptions], AttestedKeys]
both = pytest.mark.parametrize("verify", [verify_sync, verify_async])


@pytest.fixture
def vendors() -> Iterator[FakeVendors]:
    with fake_vendors(PAGES) as vendors:
        yield vendors


def snp_server() -> FakeServer:
    server = FakeServer()
    server.outer = SnpServer(server)
    return server


def options(vendors: FakeVendors, mode: Mode, cache: Path | None = None) -> EndorsementOptions:
    return EndorsementOptions(mode=mode, cache_directory=cache, amd_kds_url=vendors.url)


@both
def test_nobody_is_asked_by_default(vendors: FakeVendors, verify: Verify) -> None:
    with pytest.raises(EndorsementError) as caught:
        verify(snp_server(), options(vendors, Mode.BUNDLED))
    assert caught.value.check == "sev-snp.endorsements"  # none came along
    assert vendors.asked == []


@both
def test_what_is_fetched_reaches_the_verifier(vendors: FakeVendors, verify: Verify) -> None:
    with pytest.raises(EndorsementError) as caught:
        verify(snp_server(), options(vendors, Mode.FETCH))
    assert caught.value.check == "sev-snp.root"  # all there, and of an AMD that is not the real one
    assert vendors.asked == list(PAGES)


@both
def test_what_is_cached_reaches_the_verifier(vendors: FakeVendors, verify: Verify, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(EndorsementError) as caught:
            verify(snp_server(), options(vendors, Mode.CACHED, tmp_path))
        assert caught.value.check == "sev-snp.root"
    assert vendors.asked.count(VCEK) == 1


@both
def test_a_tee_without_a_vendor_asks_nobody(vendors: FakeVendors, verify: Verify) -> None:
    assert verify(FakeServer(), options(vendors, Mode.FETCH)).models
    assert vendors.asked == []


@both
def test_a_busy_vendor_leaves_the_server_unverified(vendors: FakeVendors, verify: Verify) -> None:
    vendors.pages[VCEK] = Page(status=429, fields={"retry-after": "600"})
    with pytest.raises(OverloadedError):
        verify(snp_server(), options(vendors, Mode.FETCH))


def test_the_choice_by_name() -> None:
    for name in ("bundled", "fetch"):
        client = Client(BASE_URL, transport=FakeServer(), policy=policy(), endorsements=name)
        assert client._options.endorsements == EndorsementOptions(mode=Mode(name))
        client.close()
    with pytest.raises(ConfigurationError, match="bundled, fetch, cached"):
        Client(BASE_URL, transport=FakeServer(), policy=policy(), endorsements="always")
