"""What KDS is asked for, and what is made of its answers: with AMD's own evidence and with made-up chips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from confonnx.attestation.claims import CERTIFICATE_CHAIN, CERTIFICATE_LIST
from confonnx.attestation.endorse import amd_kds
from confonnx.attestation.endorse.endorser import drive
from confonnx.attestation.endorse.exchange import MISSING, Answer, Endorsements, Request
from confonnx.attestation.formats import snp_report
from confonnx.attestation.verify import sev_snp
from confonnx.attestation.verify.x509 import parse_endorsements
from confonnx.errors import EndorsementError, EvidenceError, EvidenceFormatError
from tests.evidence.manifest import one, read
from tests.support.authorities import amd
from tests.support.authorities.pki import NOW, Template, crl, pem, rsa_key

# AMD's VEK certificates have serial number 0.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")

KDS = "https://kds.test"
CHIP = amd.CHIP_ID.hex()
MILAN_VCEK = f"{KDS}/vcek/v1/Milan/{CHIP}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
MILAN_PAGES = {
    MILAN_VCEK: amd.Chip().vek().build().public_bytes(Encoding.DER),
    f"{KDS}/vcek/v1/Milan/cert_chain": pem(amd.ASK.build(), amd.ARK.build()),
    f"{KDS}/vcek/v1/Milan/crl": crl(amd.ARK).public_bytes(Encoding.DER),
}


def serve(pages: dict[str, bytes], asked: list[str]) -> Callable[[Request], Answer]:
    """A KDS with these pages; checks each answer as the downloader's user does."""

    def get(request: Request) -> Answer:
        asked.append(request.url)
        if request.url not in pages:
            raise EndorsementError(MISSING, "no such page")
        answer = Answer(pages[request.url])
        assert request.read_expiry(answer) > NOW or request.url not in MILAN_PAGES
        return answer

    return get


def gather(
    evidence: bytes, pages: dict[str, bytes], bundled: Endorsements = ()
) -> tuple[Endorsements, list[str]]:
    asked: list[str] = []
    return drive(amd_kds.gather(evidence, bundled, base_url=KDS), serve(pages, asked)), asked


def test_what_is_fetched_verifies() -> None:
    found, asked = gather(amd.report(), MILAN_PAGES)
    assert asked == list(MILAN_PAGES)
    assert [kind for kind, _ in found] == [CERTIFICATE_CHAIN, CERTIFICATE_LIST]
    claims = sev_snp.verify(
        amd.report(), parse_endorsements(found, step="sev-snp"), now=NOW, roots=amd.roots()
    )
    assert claims.measurement == amd.MEASUREMENT


@pytest.mark.parametrize(
    ("file", "url"),
    [
        (
            "snp/milan-v3-msft.bin",
            "/vcek/v1/Milan/{chip}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        ),
        (
            "snp/genoa-v3-msft.bin",
            "/vcek/v1/Genoa/{chip}?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84",
        ),
        (
            "snp/turin-v5-msft.bin",
            "/vcek/v1/Turin/{turin}?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81",
        ),
    ],
)
def test_the_address_of_a_real_chip(file: str, url: str) -> None:
    report = snp_report.parse(read(file))
    assert report.product is not None
    expected = url.format(chip=report.chip_id.hex(), turin=report.chip_id[:8].hex())
    assert amd_kds.vcek_url(report, report.product, KDS) == KDS + expected


@pytest.mark.parametrize("product", ["Milan", "Genoa"])
def test_real_reports_verify_with_what_amd_serves(product: str) -> None:
    entry = one(f"snp/{product.lower()}-v3-msft.bin")
    report = snp_report.parse(entry.data)
    vcek = x509.load_pem_x509_certificate(read(f"snp/{product.lower()}-v3-msft.vcek.pem"))
    revoked = x509.load_pem_x509_crl(read(f"snp/crl-{product.lower()}.pem"))
    found, _ = gather(
        entry.data,
        {
            amd_kds.vcek_url(report, product, KDS): vcek.public_bytes(Encoding.DER),
            f"{KDS}/vcek/v1/{product}/cert_chain": read(f"snp/chain-{product.lower()}.pem"),
            f"{KDS}/vcek/v1/{product}/crl": revoked.public_bytes(Encoding.DER),
        },
    )
    assert entry.now is not None
    claims = sev_snp.verify(
        entry.data,
        parse_endorsements(found, step="sev-snp"),
        now=entry.now,
        dangerous_skip_revocation=True,  # the CRLs at hand ended before AMD issued these certificates
    )
    assert claims.report_data.hex() == entry.expected["report_data"]


def test_a_real_report_verifies_with_a_current_crl() -> None:
    entry = one("snp/milan-v2-trustee.bin")
    revoked = x509.load_pem_x509_crl(read("snp/crl-milan.pem"))
    found, _ = gather(
        entry.data,
        {
            amd_kds.vcek_url(snp_report.parse(entry.data), "Milan", KDS): read(
                "snp/milan-v2-trustee.vcek.der"
            ),
            f"{KDS}/vcek/v1/Milan/cert_chain": read("snp/chain-milan.pem"),
            f"{KDS}/vcek/v1/Milan/crl": revoked.public_bytes(Encoding.DER),
        },
    )
    claims = sev_snp.verify(
        entry.data, parse_endorsements(found, step="sev-snp"), now=revoked.last_update_utc
    )
    assert claims.measurement.hex() == entry.expected["measurement"]


def version_2() -> bytes:
    return amd.report({0x00: (2).to_bytes(4, "little"), 0x188: bytes(3)})


def test_a_report_without_cpuid_is_looked_for_as_milan_then_genoa() -> None:
    genoa = {url.replace("Milan", "Genoa"): page for url, page in MILAN_PAGES.items()}
    _, asked = gather(version_2(), MILAN_PAGES)
    assert asked[0] == MILAN_VCEK
    _, asked = gather(version_2(), genoa)
    assert asked[:2] == [MILAN_VCEK, MILAN_VCEK.replace("Milan", "Genoa")]


def test_a_chip_that_amd_does_not_know() -> None:
    asked: list[str] = []
    with pytest.raises(EndorsementError, match="no such page") as caught:
        drive(amd_kds.gather(version_2(), (), base_url=KDS), serve({}, asked))
    assert caught.value.check == MISSING
    assert len(asked) == 2  # Milan, Genoa, and no further guess


def test_another_error_ends_the_search() -> None:
    def fail(request: Request) -> Answer:
        raise EndorsementError("endorse.malformed", request.url)

    with pytest.raises(EndorsementError, match="Milan"):
        drive(amd_kds.gather(version_2(), (), base_url=KDS), fail)


@pytest.mark.parametrize("changes", [{0x1A0: bytes(64)}, {0x48: (2).to_bytes(4, "little")}])
def test_a_hidden_chip_cannot_be_asked_about(changes: dict[int, bytes]) -> None:
    with pytest.raises(EndorsementError, match="hides its chip") as caught:
        gather(amd.report(changes), MILAN_PAGES)
    assert caught.value.check == "endorse.unusable"


ASVK = Template("SEV-VLEK-Milan", rsa_key("ask"), amd.ARK, ca=True, path_length=0, serial=0x10002, pss=True)
VLEK = amd.Chip(kind="VLEK", product_name="Milan", hwid=None, csp_id="a-cloud").vek(ASVK)
VLEK_PAGES = {
    f"{KDS}/vlek/v1/Milan/cert_chain": pem(ASVK.build(), amd.ARK.build()),
    f"{KDS}/vlek/v1/Milan/crl": crl(amd.ARK).public_bytes(Encoding.DER),
}
VLEK_REPORT = {0x48: (4).to_bytes(4, "little"), 0x1A0: bytes(64)}


def test_a_vlek_comes_with_the_evidence_and_its_issuers_from_amd() -> None:
    report = amd.report(VLEK_REPORT)
    bundled = ((CERTIFICATE_LIST, b"ignored"), (CERTIFICATE_CHAIN, pem(amd.ASK.build(), VLEK.build())))
    found, asked = gather(report, VLEK_PAGES, bundled)
    assert asked == list(VLEK_PAGES)
    claims = sev_snp.verify(report, parse_endorsements(found, step="sev-snp"), now=NOW, roots=amd.roots())
    assert claims.report_data == amd.REPORT_DATA


@pytest.mark.parametrize(
    "bundled",
    [
        (),
        ((CERTIFICATE_LIST, b"no chain"),),
        ((CERTIFICATE_CHAIN, pem(amd.ASK.build())),),
        ((CERTIFICATE_CHAIN, pem(VLEK.but(issuer_name="SEV-VLEK-../../x").build())),),  # no way into the URL
        ((CERTIFICATE_CHAIN, pem(VLEK.but(subject="SEV-VCEK").build())),),
    ],
)
def test_without_its_vlek_certificate_a_report_is_not_asked_about(bundled: Endorsements) -> None:
    with pytest.raises(EndorsementError, match="VLEK") as caught:
        gather(amd.report(VLEK_REPORT), VLEK_PAGES, bundled)
    assert caught.value.check == "endorse.unusable"


@pytest.mark.parametrize(
    ("page", "content"),
    [
        (MILAN_VCEK, b"\x30\x03garbage"),
        (MILAN_VCEK, pem(amd.ASK.build())),
        (f"{KDS}/vcek/v1/Milan/cert_chain", b"garbage"),
        (f"{KDS}/vcek/v1/Milan/cert_chain", pem(amd.ASK.build())),
        (f"{KDS}/vcek/v1/Milan/cert_chain", pem(*[amd.ARK.build()] * 3)),
        (f"{KDS}/vcek/v1/Milan/crl", b"garbage"),
        (f"{KDS}/vcek/v1/Milan/crl", b""),
    ],
)
def test_an_answer_that_is_no_such_document(page: str, content: bytes) -> None:
    with pytest.raises(EndorsementError):
        gather(amd.report(), MILAN_PAGES | {page: content})


def test_a_crl_that_never_ends() -> None:
    with pytest.raises(EndorsementError, match="does not say when the next one comes"):
        gather(amd.report(), MILAN_PAGES | {f"{KDS}/vcek/v1/Milan/crl": endless(crl(amd.ARK))})


def endless(revocations: x509.CertificateRevocationList) -> bytes:
    """The CRL without its nextUpdate, which RFC 5280 §5.1.2.5 wants and ASN.1 does not."""
    to_be_signed = revocations.tbs_certlist_bytes
    next_update = b"\x17\x0d" + f"{revocations.next_update_utc:%y%m%d%H%M%S}Z".encode()
    assert to_be_signed.count(next_update) == 1
    signature = revocations.public_bytes(Encoding.DER).partition(to_be_signed)[2]
    shorter = _sequence(to_be_signed[_header_size(to_be_signed) :].replace(next_update, b""))
    return _sequence(shorter + signature)


def _header_size(der: bytes) -> int:
    return 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)


def _sequence(content: bytes) -> bytes:
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    length = octets if size < 0x80 else bytes((0x80 | len(octets),)) + octets
    return b"\x30" + length + content


def test_a_wrong_chip_in_the_answer_is_found_by_the_verifier() -> None:
    other = amd.Chip(hwid=bytes(64)).vek().build().public_bytes(Encoding.DER)
    found, _ = gather(amd.report(), MILAN_PAGES | {MILAN_VCEK: other})
    with pytest.raises(EvidenceError) as caught:
        sev_snp.verify(amd.report(), parse_endorsements(found, step="sev-snp"), now=NOW, roots=amd.roots())
    assert caught.value.check == "sev-snp.chip"


def test_no_report() -> None:
    with pytest.raises(EvidenceFormatError):
        gather(b"no report", MILAN_PAGES)
