"""`confonnx predict --endorsements`: the vendor is asked where the user wants it, and only then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from confonnx.attestation.bundle import MEDIA_TYPE
from confonnx.attestation.claims import SEV_SNP_REPORT
from confonnx.attestation.statement import report_data
from tests.support import simulated_server as server
from tests.support.authorities import amd
from tests.support.authorities.pki import crl, pem
from tests.support.commands import Run, confonnx
from tests.support.fake_vendors import FakeVendors, Page, fake_vendors, kds_pages

VCEK = f"/vcek/v1/Milan/{amd.CHIP_ID.hex()}?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=219"
PAGES = kds_pages(
    VCEK, amd.Chip().vek().build(), pem(amd.ASK.build(), amd.ARK.build()), crl(amd.ARK), "Milan"
)


def predict(vendors: FakeVendors, directory: Path, *more: object) -> Run:
    """Ask a host that shows a report of a made-up AMD, and serves as that AMD's KDS too."""
    plain = server.bundle()
    report = amd.report({0x50: report_data(plain.statement)})
    bundle = replace(plain, evidence_type=SEV_SNP_REPORT, evidence=report)
    vendors.otherwise = Page(bundle.encode(), fields={"content-type": MEDIA_TYPE})
    inputs = directory / "input.json"
    inputs.write_text('{"image": {"type": "float32", "values": [[0.0]]}}')
    words = ("--url", vendors.url, "--amd-kds-url", vendors.url, "--json-in", inputs)
    trust = ("--enclave-hash", amd.MEASUREMENT.hex(), "--enclave-model-hash", server.MODEL_DIGEST)
    return confonnx("predict", *words, *trust, *more)


@pytest.mark.parametrize(
    ("options", "check", "asked"),
    [
        ((), "sev-snp.endorsements", 0),
        (("--endorsements", "bundled"), "sev-snp.endorsements", 0),
        (("--endorsements", "fetch"), "sev-snp.root", 3),
        (("--endorsements", "cached"), "sev-snp.root", 3),
    ],
)
def test_who_is_asked(tmp_path: Path, options: tuple[str, ...], check: str, asked: int) -> None:
    with fake_vendors(PAGES) as vendors:
        run = predict(vendors, tmp_path, *options, "--endorsements-cache", tmp_path / "cache")
    assert run.status == 3
    assert f"[{check}]" in run.err
    assert len([path for path in vendors.asked if path.startswith("/vcek/")]) == asked
    assert (len(list((tmp_path / "cache").glob("*"))) == 3) == bool(asked)


def test_an_unknown_word(tmp_path: Path) -> None:
    with fake_vendors(PAGES) as vendors:
        assert predict(vendors, tmp_path, "--endorsements", "always").status == 2
    assert vendors.asked == []
