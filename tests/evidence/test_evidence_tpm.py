"""Real TPM quotes, a real AK certificate chain, and a real boot log."""

from __future__ import annotations

import base64
import json
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from confonnx.attestation.formats import event_log, tpm
from confonnx.attestation.formats.evidence import TpmEvidence
from confonnx.attestation.verify.tpm import AZURE_VTPM_ROOTS, check_quote
from confonnx.attestation.verify.x509 import build_chain, parse_chain, verify_chain
from confonnx.errors import EndorsementError, EvidenceError
from tests.evidence.manifest import one, read


def trustee() -> tuple[TpmEvidence, bytes]:
    document = json.loads(read("tpm/trustee-tpm-evidence.json"))
    quote = document["tpm_quote"]
    return (
        TpmEvidence(
            version=1,
            message=base64.b64decode(quote["message"]),
            signature=base64.b64decode(quote["signature"]),
            pcrs={"sha256": {str(index): value for index, value in enumerate(quote["pcrs"])}},
        ),
        base64.b64decode(document["ak_public"]),
    )


def test_a_real_quote() -> None:
    evidence, key = trustee()
    expected = one("tpm/trustee-tpm-evidence.json").expected
    quoted = check_quote(evidence, load_der_public_key(key), step="tpm")
    quote = quoted.quote
    assert quote.extra_data.hex() == expected["nonce"]
    assert quote.qualified_signer.hex() == expected["qualified_signer"]
    assert (quote.clock, quote.reset_count, quote.restart_count) == (
        expected["clock"],
        expected["reset_count"],
        expected["restart_count"],
    )
    assert quote.safe is bool(expected["safe"])
    assert f"{quote.firmware_version:016x}" == expected["firmware_version"]
    assert quote.pcr_digest.hex() == expected["pcr_digest"]
    assert {str(p.index): p.value.hex() for p in quoted.pcrs} == expected["pcrs_sha256"]


def test_a_real_quote_that_was_changed() -> None:
    evidence, key = trustee()
    changed = TpmEvidence(1, evidence.message[:-1] + b"\0", evidence.signature, evidence.pcrs)
    with pytest.raises(EvidenceError) as caught:
        check_quote(changed, load_der_public_key(key), step="tpm")
    assert caught.value.check == "tpm.signature"


def test_a_software_tpms_signature() -> None:
    expected = one("tpm/keylime-quote.out").expected
    quote = tpm.parse_quote(read("tpm/keylime-quote.out"))
    assert quote.extra_data.hex() == expected["nonce"]
    assert quote.selection == tuple(("sha256", index) for index in expected["pcr_selection"][0]["pcrs"])
    pcrs = {"sha256": {str(index): "00" * 32 for _, index in quote.selection}}
    evidence = TpmEvidence(1, quote.signed, read("tpm/keylime-quotesig.out"), pcrs)
    key = load_pem_public_key(read("tpm/keylime-akpub.pem"))
    # The signature holds, so what is wrong with these zeros is found in the next step.
    with pytest.raises(EvidenceError) as caught:
        check_quote(evidence, key, step="tpm")
    assert caught.value.check == "tpm.pcrs"


def azure_chain() -> tuple[x509.Certificate, ...]:
    names = ("azure-ak-cert-01", "azure-tpm-root-2023", "azure-tpm-intermediate-03")
    certificates = [parse_chain(read(f"tpm/{name}.pem"), step="tpm")[0] for name in names]
    return build_chain(certificates[0], certificates[1:])


def test_azures_ak_certificate() -> None:
    v = one("tpm/azure-ak-cert-01.pem")
    assert v.now is not None
    chain = azure_chain()
    assert chain[0].subject.rfc4514_string() == v.expected["subject"]
    assert len(chain) == 3
    expires = verify_chain(chain, roots=AZURE_VTPM_ROOTS, now=v.now, step="tpm")
    assert expires == datetime.fromisoformat("2026-10-29T00:00:00+00:00")
    with pytest.raises(EndorsementError) as caught:
        verify_chain(
            chain, roots=AZURE_VTPM_ROOTS, now=datetime.fromisoformat("2026-10-30T00:00:00+00:00"), step="tpm"
        )
    assert caught.value.check == "tpm.validity"


def test_a_real_boot_log_parses_and_replays() -> None:
    log = event_log.parse(read("tpm/tcg-eventlog-openpcc.bin"))
    values = event_log.replay(log, "sha256", range(24))
    spoken = {event.register for event in log.events}
    assert {0, 4, 7} <= spoken
    assert all(any(values[index]) is (index in spoken) for index in range(1, 24))
