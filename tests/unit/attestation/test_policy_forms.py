"""The forms of a policy: simple options, TOML and words."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from confonnx.attestation.claims import TcbStatus, Tee
from confonnx.attestation.policy import (
    ANY,
    AtLeast,
    AtLeastEach,
    DangerousAnyModel,
    DcapTcb,
    Freshness,
    Masked,
    ModelDigests,
    OneOf,
    OneOfNumbers,
    Policy,
    describe,
    diff,
    parse_model_hash,
    reference_values,
    signers,
)
from confonnx.errors import ConfigurationError
from tests.support.hardware_claims import claims
from tests.support.simulated_server import policy
from tests.unit.attestation.signing_keys import CERTIFICATE, P256, P384, PRIVATE, RSA2048, RSA3072, X25519

MODEL = "c3" * 32
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def _simple(**options: object) -> Policy:
    return Policy.simple(**({"enclave_model_hash": MODEL} | options))  # type: ignore[arg-type]


def _tees(of: Policy) -> set[Tee]:
    return {server.tee for server in of.accepted}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "nothing says which server code to trust: give enclave_hash"),
        ({"enclave_hash": "a1" * 32, "enclave_model_hash": None}, "nothing says which model to trust"),
        (
            {"enclave_hash": "a1" * 32, "dangerous_any_model": True},
            "either a model hash or dangerous_any_model",
        ),
        ({"enclave_hash": ""}, "must be 64 hex digits"),
        ({"enclave_hash": "a1" * 31}, "must be 64 hex digits"),
        ({"enclave_hash": "zz" * 32}, "must be 64 hex digits"),
        ({"enclave_hash": "00" * 32}, "all zeros"),
        ({"enclave_hash": []}, "an empty list"),
        ({"enclave_hash": "a1" * 32, "enclave_model_hash": []}, "an empty list"),
        ({"enclave_hash": "a1" * 32, "enclave_model_hash": ""}, "model hash must be 64 hex digits"),
        ({"enclave_hash": "a1" * 32, "enclave_model_hash": "c3" * 31}, "model hash must be 64 hex digits"),
        ({"enclave_signing_key": P256}, "no TEE can show what the options name"),
        ({"enclave_signing_key": P384, "enclave_hash": "a1" * 32}, "no TEE can show what the options name"),
        ({"enclave_signing_key": "junk"}, "no public key or certificate in PEM"),
        ({"enclave_signing_key": PRIVATE}, "a public key in PEM, found a private key"),
        ({"enclave_signing_key": X25519}, "expected an RSA or elliptic curve key"),
    ],
)
def test_simple_options_that_say_too_little(options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        _simple(**options)


def test_a_hash_is_tried_for_every_tee_that_has_such_hashes() -> None:
    assert _tees(_simple(enclave_hash="a1" * 32)) == {Tee.SGX, Tee.AZURE_SNP, Tee.AZURE_TDX}
    assert _tees(_simple(enclave_hash="A1" * 48)) == {Tee.TDX, Tee.SEV_SNP, Tee.NITRO}
    both = _simple(enclave_hash=["a1" * 32, " 0x" + "b2" * 48 + "\n"], allow_simulated=True)
    assert _tees(both) == set(Tee) - {Tee.TPM}


def test_simulated_evidence_must_be_named() -> None:
    same = claims(Tee.SIMULATED, measurement=b"\xa1" * 32)
    refused = _simple(enclave_hash="a1" * 32).check_claims(same, now=NOW)
    assert [failure.code for failure in refused] == ["policy.tee"]
    assert "--allow-simulated" in refused[0].text
    assert _simple(enclave_hash="a1" * 32, allow_simulated=True).check_claims(same, now=NOW) == ()


def test_debug_mode_must_be_allowed() -> None:
    debug = claims(Tee.SIMULATED, measurement=b"\xa1" * 32, debug=True)
    for allowed in (False, True):
        of = _simple(enclave_hash="a1" * 32, allow_simulated=True, allow_debug=allowed)
        assert bool(of.check_claims(debug, now=NOW)) is not allowed


def test_any_model_only_when_said() -> None:
    assert isinstance(_simple(enclave_hash="a1" * 32).models, ModelDigests)
    dangerous = Policy.simple(enclave_hash="a1" * 32, dangerous_any_model=True)
    assert dangerous.models == DangerousAnyModel()


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        MODEL.upper(),
        f"  {MODEL}\n",
        f"sha256:{MODEL}",
        f"SHA256:{MODEL}\r\n",
        f"{MODEL}  model.onnx\n",
    ],
)
def test_model_hashes_as_people_paste_them(text: str) -> None:
    assert parse_model_hash(text) == MODEL
    assert _simple(enclave_hash="a1" * 32, enclave_model_hash=[text, MODEL]).models == ModelDigests((MODEL,))


@pytest.mark.parametrize(
    ("pem", "tees"),
    [
        (RSA3072, {Tee.SGX, Tee.SIMULATED}),
        (P384, {Tee.SEV_SNP, Tee.SIMULATED}),
        (CERTIFICATE, {Tee.NITRO, Tee.SEV_SNP, Tee.SIMULATED}),
        (P256, {Tee.SIMULATED}),
        (RSA2048, {Tee.SIMULATED}),
    ],
)
def test_a_signing_key_is_tried_for_every_tee_that_shows_such_signers(pem: str, tees: set[Tee]) -> None:
    values = signers(pem)
    assert set(values) == tees
    accepted = _simple(enclave_signing_key=pem.encode(), allow_simulated=True)
    assert _tees(accepted) == tees
    for server in accepted.accepted:
        assert OneOf((values[server.tee],)) in dict(server.values).values()


def test_a_hash_and_a_signing_key_must_both_match() -> None:
    of = _simple(enclave_hash="a1" * 32, enclave_signing_key=RSA3072, allow_simulated=True)
    assert _tees(of) == {Tee.SGX, Tee.SIMULATED}
    signer = signers(RSA3072)[Tee.SIMULATED]
    right = claims(Tee.SIMULATED, measurement=b"\xa1" * 32, signer=signer)
    assert of.check_claims(right, now=NOW) == ()
    for wrong in (replace(right, signer=b"x" * 32), replace(right, measurement=b"x" * 32)):
        assert len(of.check_claims(wrong, now=NOW)) == 1


FULL = Policy(
    accepted=(
        reference_values(
            Tee.SGX,
            {
                "mrenclave": OneOf((b"e" * 32, b"f" * 32)),
                "mrsigner": ANY,
                "isv_prod_id": OneOfNumbers((1, 2)),
                "min_isv_svn": AtLeast(3),
                "attributes": Masked(mask=0x33, value=0x1),
            },
            label='release "7"\n',
            allow_debug=True,
            tcb=DcapTcb(
                statuses=(TcbStatus.UP_TO_DATE,),
                grace_statuses=(TcbStatus.OUT_OF_DATE,),
                grace=timedelta(days=30),
                refused_advisories=("INTEL-SA-00837",),
                min_tcb_evaluation_data_number=19,
            ),
        ),
        reference_values(
            Tee.TDX, {"measurement": OneOf((b"t" * 48,)), "min_tee_tcb_svn": AtLeastEach(bytes(range(16)))}
        ),
        reference_values(Tee.TPM, {"pcr4": OneOf((b"4" * 32,)), "root": OneOf((b"r" * 32,))}),
    ),
    models=ModelDigests((MODEL, "d4" * 32)),
    deployments=("production", 'odd "name"'),
    freshness=Freshness(timedelta(hours=1), timedelta(minutes=1), timedelta(hours=2), timedelta(hours=3)),
)


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        policy(),
        replace(FULL, models=DangerousAnyModel(), deployments=ANY, freshness=Freshness()),
        Policy.simple(enclave_hash=["a1" * 32, "b2" * 48], enclave_model_hash=MODEL, allow_simulated=True),
        Policy.simple(enclave_signing_key=CERTIFICATE, enclave_model_hash=MODEL, allow_debug=True),
    ],
)
def test_a_policy_returns_from_its_toml(value: Policy) -> None:
    text = value.to_toml()
    assert Policy.from_toml(text) == value
    assert Policy.from_toml(text).to_toml() == text


def test_tpm_roots_are_those_of_tpm_servers() -> None:
    assert FULL.tpm_roots == {b"r" * 32}
    assert policy().tpm_roots == frozenset()


TEXT = f"""
version = 1
deployment = "any"
[models]
sha256 = ["{MODEL}"]
[[server]]
tee = "sgx"
mrenclave = "{"a1" * 32}"
"""


def test_the_smallest_policy_has_checked_defaults() -> None:
    of = Policy.from_toml(TEXT)
    assert of == Policy(
        accepted=(reference_values(Tee.SGX, {"mrenclave": OneOf((b"\xa1" * 32,))}),),
        models=ModelDigests((MODEL,)),
        deployments=ANY,
    )
    (server,) = of.accepted
    assert not server.allow_debug
    assert server.tcb == DcapTcb()


@pytest.mark.parametrize(
    ("line", "changed", "reason"),
    [
        ("version = 1", "version = 2", "expected version = 1, found 2"),
        ("version = 1", "", "expected version = 1, found None"),
        ("version = 1", "version = ", "not TOML"),
        ('deployment = "any"', "", "deployment is missing, and has no default"),
        ('deployment = "any"', "deployment = []", "no deployment accepts no server"),
        ('deployment = "any"', 'deployment = "production"', "deployment: expected a list of strings"),
        ('deployment = "any"', "deployment = [1]", "deployment: expected a string, found '1'"),
        (
            'deployment = "any"',
            'deployment = "any"\nfreshnes = 1',
            "unknown key 'freshnes'; did you mean freshness",
        ),
        ('deployment = "any"', 'deployment = "any"\nserver = 1', "Cannot mutate|not TOML|expected"),
        ("[models]", "[model]", "unknown key 'model'; did you mean models"),
        (f'sha256 = ["{MODEL}"]', "", "no model digest accepts no model"),
        (f'sha256 = ["{MODEL}"]', 'sha256 = ["abc"]', "model hash must be 64 hex digits"),
        (f'sha256 = ["{MODEL}"]', f'sha256 = ["{MODEL}"]\ndangerous_any = true', "not both"),
        (f'sha256 = ["{MODEL}"]', 'dangerous_any = "yes"', "dangerous_any: expected true or false"),
        (f'sha256 = ["{MODEL}"]', "sha265 = []", "unknown key 'sha265'; did you mean sha256"),
        ("[[server]]", "[server]", r"expected \[\[server\]\] tables"),
        ('tee = "sgx"', "", "expected tee to be one of sgx, .*found None"),
        ('tee = "sgx"', "tee = 1", "server 1, tee: expected a string"),
        ('tee = "sgx"', 'tee = "sev"', "expected tee to be one of sgx, .*found 'sev'"),
        (
            'tee = "sgx"',
            'tee = "sgx"\nallow_debg = true',
            "unknown key 'allow_debg'; did you mean allow_debug",
        ),
        ('tee = "sgx"', 'tee = "sgx"\nallow_debug = 1', "allow_debug: expected true or false, found '1'"),
        ('tee = "sgx"', 'tee = "sgx"\nlabel = 1', "label: expected a string"),
        ('tee = "sgx"', 'tee = "sgx"\nmrtd = "any"', "unknown key 'mrtd'"),
        (
            'tee = "sgx"',
            'tee = "sgx"\nmrsigner = "abc"',
            r"mrsigner \(MRSIGNER\): expected 64 hex digits, found 'abc'",
        ),
        ('tee = "sgx"', 'tee = "sgx"\nmrsigner = []', "expected 1 to 1024 values"),
        ('tee = "sgx"', 'tee = "sgx"\nmrsigner = [1]', "expected a string"),
        ('tee = "sgx"', 'tee = "sgx"\nmrsigner = 1', "expected a list of strings"),
        ('tee = "sgx"', 'tee = "sgx"\nisv_prod_id = "1"', "expected a list of integers"),
        ('tee = "sgx"', 'tee = "sgx"\nisv_prod_id = [-1]', "an integer from 0"),
        ('tee = "sgx"', 'tee = "sgx"\nmin_isv_svn = true', "an integer from 0"),
        ('tee = "sgx"', 'tee = "sgx"\nattributes = 3', "attributes .*: expected a table"),
        ('tee = "sgx"', 'tee = "sgx"\nattributes = { mask = "0x3" }', "expected a table { mask"),
        (
            'tee = "sgx"',
            'tee = "sgx"\nattributes = { mask = "q", value = "0" }',
            "hex digits of a 64-bit number",
        ),
        (
            'tee = "sgx"',
            'tee = "sgx"\nattributes = { mask = "-1", value = "0" }',
            "hex digits of a 64-bit number",
        ),
        ('tee = "sgx"', 'tee = "sgx"\nattributes = { mask = "0x1", value = "0x2" }', "bits outside its mask"),
        (
            'tee = "sgx"',
            'tee = "sgx"\ntcb_statuses = ["uptodate"]',
            "'uptodate' is not a valid TcbStatus; known are",
        ),
        ('tee = "sgx"', 'tee = "sgx"\ntcb_statuses = ["Revoked"]', "never Revoked"),
        ('tee = "sgx"', 'tee = "sgx"\ntcb_statuses = []', "name at least one"),
        ('tee = "sgx"', 'tee = "sgx"\ntcb_grace_days = 3', "needs both its statuses and its length"),
        ('tee = "sgx"', 'tee = "sgx"\ntcb_grace_days = 99999', "from 0 to 3650"),
        ('tee = "sgx"', 'tee = "nitro"\ntcb_statuses = ["UpToDate"]', "unknown key 'tcb_statuses'"),
        (
            "[[server]]",
            "[freshness]\nmax_key_age_seconds = 0\n[[server]]",
            "every age must be more than zero",
        ),
        (
            "[[server]]",
            "[freshness]\nmax_key_age = 5\n[[server]]",
            "unknown key 'max_key_age'; did you mean max_key",
        ),
        (
            "[[server]]",
            '[freshness]\nmax_key_age_seconds = "5"\n[[server]]',
            "max_key_age_seconds: expected an integer",
        ),
    ],
)
def test_one_wrong_line_is_refused_by_name(line: str, changed: str, reason: str) -> None:
    assert line in TEXT
    with pytest.raises(ConfigurationError, match=reason):
        Policy.from_toml(TEXT.replace(line, changed, 1))


def test_no_server_and_far_too_much_text_are_refused() -> None:
    head = TEXT[: TEXT.index("[[server]]")]
    with pytest.raises(ConfigurationError, match="server is missing"):
        Policy.from_toml(head)
    with pytest.raises(ConfigurationError, match="accepts no server; give at least one"):
        Policy.from_toml("server = []\n" + head)
    with pytest.raises(ConfigurationError, match="the limit is 1048576"):
        Policy.from_toml(TEXT + "#" * 2**20)


def test_policies_that_accept_nothing_or_everything_cannot_be_made() -> None:
    with pytest.raises(ConfigurationError, match="names no TEE"):
        replace(FULL, accepted=())
    with pytest.raises(ConfigurationError, match="no deployment"):
        replace(FULL, deployments=())
    with pytest.raises(ConfigurationError, match="no model digest"):
        ModelDigests(())
    with pytest.raises(ConfigurationError, match="64 lower-case hex digits"):
        ModelDigests((MODEL.upper(),))
    with pytest.raises(ConfigurationError, match="freshness"):
        Freshness(max_clock_skew=timedelta(seconds=-1))


def test_words_say_every_check_and_shout_what_is_dangerous() -> None:
    words = "\n".join(describe(FULL))
    for part in (
        f"model: {MODEL} or {'d4' * 32}",
        "deployment: 'production' or 'odd \"name\"'",
        "statement: at most 1 hour old",
        "clocks: at most 1 minute apart",
        "keys: used for at most 2 hours after",
        "MRENCLAVE: " + (b"e" * 32).hex() + " or " + (b"f" * 32).hex(),
        "MRSIGNER: any value",
        "ISVSVN: 3 or more",
        "ATTRIBUTES.FLAGS: bits 0x33 equal to 0x1",
        "CONFIGID: 64 zero bytes",
        "debug mode: DANGER: accepted",
        "TCB status: UpToDate, and OutOfDate for 30 days from",
        "advisories: none may be INTEL-SA-00837",
        "tcbEvaluationDataNumber: 19 or more",
        "server tpm, PCR4 (SHA-256): " + (b"4" * 32).hex(),
    ):
        assert part in words
    assert "PCR5" not in words
    dangerous = "\n".join(describe(replace(FULL, models=DangerousAnyModel(), deployments=ANY)))
    assert "model: DANGER: any model" in dangerous
    assert "deployment: any value" in dangerous
    assert "90 seconds" in "\n".join(
        describe(replace(FULL, freshness=Freshness(max_clock_skew=timedelta(seconds=90))))
    )


def test_two_entries_for_one_tee_are_told_apart() -> None:
    of = replace(FULL, accepted=(FULL.accepted[1], FULL.accepted[1], FULL.accepted[1]))
    titles = [line.split(":")[0] for line in describe(of) if re.fullmatch(r"server [^,]*: accepted", line)]
    assert titles == ["server tdx", "server tdx #2", "server tdx #3"]


def test_a_diff_says_what_changed_and_nothing_else() -> None:
    assert diff(FULL, FULL) == []
    older = replace(FULL, models=ModelDigests((MODEL,)), accepted=FULL.accepted[1:])
    lines = diff(older, FULL)
    assert lines[0] == f"model: was {MODEL}, now {MODEL} or {'d4' * 32}"
    assert all(line.startswith("server sgx") and ": now " in line for line in lines[1:])
    back = diff(FULL, older)
    assert len(back) == len(lines)
    assert all(": no longer " in line for line in back[1:])
