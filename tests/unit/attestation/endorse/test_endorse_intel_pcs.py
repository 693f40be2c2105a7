"""What PCS is asked for, and what is made of its answers: with Intel's own collateral and a made-up CPU."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import DCAP_COLLATERAL, TcbStatus
from confonnx.attestation.endorse import intel_pcs
from confonnx.attestation.endorse.endorser import drive
from confonnx.attestation.endorse.exchange import MISSING, Answer, Endorsements, Request
from confonnx.attestation.endorse.options import INTEL_PCS, TcbUpdate
from confonnx.attestation.verify import dcap, sgx, tdx
from confonnx.errors import EndorsementError, EvidenceFormatError
from tests.evidence.manifest import one, read
from tests.support.authorities import intel
from tests.support.authorities.pki import NOW, pem
from tests.support.fake_vendors import Page, pcs_pages
from tests.unit.attestation.endorse.test_endorse_amd_kds import endless

PCCS = "https://pccs.test:8081"
FMSPC = intel.FMSPC.hex()
SGX_PAGES = pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=FMSPC)
TCB, QE, PCK_CRL, ROOT_CRL = SGX_PAGES


def serve(pages: dict[str, Page], asked: list[str]) -> Callable[[Request], Answer]:
    """A PCCS with these pages; checks each answer as the downloader's user does."""

    def get(request: Request) -> Answer:
        path = request.url.removeprefix(PCCS)
        asked.append(path)
        if path not in pages:
            raise EndorsementError(MISSING, "no such page")
        page = pages[path]
        fields = {name.lower(): value for name, value in page.fields.items()}
        answer = Answer(page.body, tuple((name, fields[name]) for name in request.fields if name in fields))
        request.read_expiry(answer)
        return answer

    return get


def gather(
    quote: bytes, pages: dict[str, Page], update: TcbUpdate = TcbUpdate.STANDARD
) -> tuple[Endorsements, list[str]]:
    asked: list[str] = []
    return drive(intel_pcs.gather(quote, base_url=PCCS, update=update), serve(pages, asked)), asked


def test_what_is_fetched_verifies() -> None:
    found, asked = gather(intel.SGX.encode(), SGX_PAGES)
    assert asked == list(SGX_PAGES)
    claims = sgx.verify(intel.SGX.encode(), dcap.parse_endorsements(found), now=NOW, roots=intel.roots())
    assert claims.tcb_status is TcbStatus.UP_TO_DATE


def test_a_trust_domain_has_tdx_collateral() -> None:
    pages = pcs_pages(intel.TDX_COLLATERAL.encode(), tee="tdx", fmspc=FMSPC)
    found, asked = gather(intel.TDX4.encode(), pages)
    assert asked[:2] == [
        f"/tdx/certification/v4/tcb?fmspc={FMSPC}&update=standard",
        "/tdx/certification/v4/qe/identity?update=standard",
    ]
    claims = tdx.verify(intel.TDX4.encode(), dcap.parse_endorsements(found), now=NOW, roots=intel.roots())
    assert claims.tcb_status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize(
    ("quote", "collateral", "tee", "pck_ca"),
    [
        ("sgx/sgx-v3-phala.bin", "sgx/collateral-phala-sgx-quote.json", "sgx", "processor"),
        ("tdx/tdx-v4-phala.bin", "tdx/collateral-phala-tdx-quote.json", "tdx", "platform"),
    ],
)
def test_intels_own_documents_come_out_as_they_are(
    quote: str, collateral: str, tee: str, pck_ca: str
) -> None:
    entry, text = one(quote), read(collateral)
    pages = pcs_pages(text, tee=tee, fmspc=entry.expected["fmspc"], pck_ca=pck_ca)
    ((kind, found),), _ = gather(entry.data, pages)
    assert kind == DCAP_COLLATERAL
    expected = json.loads(text)
    got = json.loads(found)
    for name in expected:
        assert got[name].split() == expected[name].split(), name  # chains may end in one newline more
    assert got["tcb_info"] == expected["tcb_info"]
    verify = sgx.verify if tee == "sgx" else tdx.verify
    assert entry.now is not None
    claims = verify(entry.data, dcap.parse_endorsements(((kind, found),)), now=entry.now)
    assert claims.tcb_status == entry.expected["tcb_status"]


def test_early_collateral_is_asked_for_where_wanted() -> None:
    pages = pcs_pages(intel.SGX_COLLATERAL.encode(), tee="sgx", fmspc=FMSPC, update="early")
    _, asked = gather(intel.SGX.encode(), pages, TcbUpdate.EARLY)
    assert [path.endswith("update=early") for path in asked] == [True, True, False, False]


def test_intel_itself_has_the_crl_of_its_root_elsewhere() -> None:
    asked: list[str] = []
    pages = {INTEL_PCS + path: page for path, page in SGX_PAGES.items()}
    pages["https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"] = Page(
        bytes.fromhex(SGX_PAGES[ROOT_CRL].body.decode())
    )
    flow = intel_pcs.gather(intel.SGX.encode(), base_url=INTEL_PCS, update=TcbUpdate.STANDARD)
    assert drive(flow, serve(pages, asked))
    assert asked[3] == "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"


def test_a_crl_may_be_pem() -> None:
    crl = x509.load_der_x509_crl(SGX_PAGES[PCK_CRL].body).public_bytes(Encoding.PEM)
    page = Page(crl, fields=SGX_PAGES[PCK_CRL].fields)
    assert gather(intel.SGX.encode(), SGX_PAGES | {PCK_CRL: page}) == gather(intel.SGX.encode(), SGX_PAGES)


@pytest.mark.parametrize(
    ("path", "page"),
    [
        (TCB, Page(b"garbage", fields=SGX_PAGES[TCB].fields)),
        (TCB, Page(b"[" * 100_000, fields=SGX_PAGES[TCB].fields)),
        (TCB, Page(b'{"tcbInfo":{},"signature":"00"}', fields=SGX_PAGES[TCB].fields)),
        (TCB, Page(b'{"tcbInfo":{}}', fields=SGX_PAGES[TCB].fields)),
        (TCB, Page(SGX_PAGES[TCB].body.replace(b'"tcbType":0', b'"x":"\x80"'), fields=SGX_PAGES[TCB].fields)),
        (TCB, Page(SGX_PAGES[TCB].body)),  # without its chain
        (TCB, Page(SGX_PAGES[TCB].body, fields={"TCB-Info-Issuer-Chain": "garbage"})),
        (QE, Page(SGX_PAGES[TCB].body, fields=SGX_PAGES[QE].fields)),  # another document
        (QE, Page(b'{"enclaveIdentity":{"id":1},"signature":"00"}', fields=SGX_PAGES[QE].fields)),
        (PCK_CRL, Page(b"\x30garbage", fields=SGX_PAGES[PCK_CRL].fields)),
        (PCK_CRL, Page(SGX_PAGES[PCK_CRL].body)),
        (ROOT_CRL, Page(b"no hexadecimal")),
        (ROOT_CRL, Page("ö".encode())),
        (ROOT_CRL, Page(b"-----BEGIN X509 CRL-----\ngarbage")),
        (ROOT_CRL, Page(b"")),
    ],
)
def test_an_answer_that_is_no_such_document(path: str, page: Page) -> None:
    with pytest.raises(EndorsementError):
        gather(intel.SGX.encode(), SGX_PAGES | {path: page})


def test_a_crl_that_never_ends() -> None:
    crl = endless(x509.load_der_x509_crl(SGX_PAGES[PCK_CRL].body))
    with pytest.raises(EndorsementError, match="does not say when the next one comes"):
        gather(intel.SGX.encode(), SGX_PAGES | {PCK_CRL: Page(crl, fields=SGX_PAGES[PCK_CRL].fields)})


def test_a_cpu_that_intel_does_not_know() -> None:
    with pytest.raises(EndorsementError) as caught:
        gather(intel.SGX.encode(), {})
    assert caught.value.check == MISSING


PCK = intel.Cpu().pck()


@pytest.mark.parametrize(
    "chain",
    [
        b"garbage",
        pem(intel.ROOT.build()),
        pem(PCK.but(extensions=()).build()),  # it says nothing of a CPU
        pem(PCK.but(issuer_name="Intel SGX PCK Other CA").build()),
        pem(PCK.but(issuer_name="platform&x=").build()),  # no way into the URL
    ],
)
def test_a_quote_of_no_cpu_is_not_asked_about(chain: bytes) -> None:
    with pytest.raises(EndorsementError) as caught:
        gather(intel.SGX.but(chain=chain).encode(), SGX_PAGES)
    assert caught.value.check in ("endorse.unusable", "endorse.endorsements")


def test_no_quote() -> None:
    with pytest.raises(EvidenceFormatError):
        gather(b"no quote", SGX_PAGES)
