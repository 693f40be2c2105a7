"""`confonnx measure`: the default, SGX and SEV-SNP, and policies that `--policy` takes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import ModelDigests, Policy
from confonnx.cli import installed
from confonnx.measure.enclave_info import EnclaveInfo, SimulatedInfo, encode_enclave_info
from tests.support import simulated_server as server
from tests.support.commands import confonnx
from tests.support.enclave_confs import conf_text
from tests.support.models import add_model
from tests.support.sigstructs import MRENCLAVE, make_sigstruct
from tests.support.snp_firmware import firmware

MODEL = ("--enclave-model-hash", "aa" * 32)


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    file = tmp_path / "confonnx.sig"
    file.write_bytes(make_sigstruct())
    return file


@pytest.fixture
def ovmf(tmp_path: Path) -> Path:
    file = tmp_path / "OVMF.fd"
    file.write_bytes(firmware())
    return file


def test_simulated_may_be_left_out(tmp_path: Path) -> None:
    model = add_model(tmp_path / "add.onnx")
    spelt = confonnx("measure", "simulated", model, "--no-metrics")
    assert spelt.status == 0
    assert len(bytes.fromhex(spelt.out.strip())) == 32
    assert confonnx("measure", model, "--no-metrics") == spelt
    assert confonnx("measure", "--no-metrics", model) == spelt
    assert confonnx("measure").out == confonnx("measure", "simulated").out != spelt.out


def test_help_shows_every_tee() -> None:
    for words in (("measure", "--help"), ("measure", "-h")):
        run = confonnx(*words)
        assert run.status == 0
        assert all(name in run.out for name in ("simulated", "sgx", "snp"))


def test_without_the_server_hardware_is_still_measured(
    monkeypatch: pytest.MonkeyPatch, signed: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "missing_modules", lambda: ("onnxruntime",))
    for words in (("measure",), ("measure", tmp_path / "m.onnx"), ("measure", "simulated")):
        run = confonnx(*words)
        assert run.status == 2
        assert "`confonnx measure` needs the server" in run.err
        assert "missing: onnxruntime" in run.err
    assert confonnx("measure", "sgx", signed, *MODEL).status == 0


def test_sgx_prints_a_policy(signed: Path) -> None:
    run = confonnx("measure", "sgx", signed, *MODEL)
    assert run.status == 0
    policy = Policy.from_toml(run.out)
    (accepted,) = policy.accepted
    assert (accepted.tee, accepted.allow_debug) == (Tee.SGX, False)
    assert MRENCLAVE.hex() in run.out
    assert policy.models == ModelDigests(("aa" * 32,))


def test_a_debug_enclave_needs_a_word(signed: Path) -> None:
    signed.write_bytes(make_sigstruct(debug=True))
    run = confonnx("measure", "sgx", signed, *MODEL)
    assert (run.status, run.out) == (2, "")
    assert "--enclave-allow-debug" in run.err
    allowed = confonnx("measure", "sgx", signed, *MODEL, "--enclave-allow-debug")
    assert Policy.from_toml(allowed.out).accepted[0].allow_debug


def test_the_model_hash_may_be_in_a_file(signed: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.hash"
    file.write_text(f"{'aa' * 32}  model.onnx\n")
    run = confonnx("measure", "sgx", signed, "--enclave-model-hash-file", file)
    assert run == confonnx("measure", "sgx", signed, *MODEL)
    for words in ((), (*MODEL, "--enclave-model-hash-file", file)):
        refused = confonnx("measure", "sgx", signed, *words)
        assert refused.status == 2
        assert "--enclave-model-hash-file" in refused.err


def test_a_manifest_is_checked_on_request(signed: Path, tmp_path: Path) -> None:
    conf, manifest = tmp_path / "enclave.conf", tmp_path / "m.sgx"
    conf.write_text(conf_text())
    manifest.write_text("loader.insecure__use_host_env = true")
    run = confonnx("measure", "sgx", signed, *MODEL, "--manifest", manifest, "--conf", conf)
    assert (run.status, run.out) == (2, "")
    assert "loader.insecure__use_host_env is not among" in run.err
    manifest.write_text("loader =")
    assert (
        "is not TOML"
        in confonnx("measure", "sgx", signed, *MODEL, "--manifest", manifest, "--conf", conf).err
    )
    assert "given together" in confonnx("measure", "sgx", signed, *MODEL, "--manifest", manifest).err


def test_snp_prints_a_policy_for_every_size(ovmf: Path) -> None:
    run = confonnx(
        *("measure", "snp", "--ovmf", ovmf, "--vcpus", 2, "--vcpus", 4, "--vcpu-type", "EPYC-Milan", *MODEL)
    )
    assert run.status == 0
    assert "the digest is of the firmware alone" in run.err
    (accepted,) = Policy.from_toml(run.out).accepted
    assert accepted.tee is Tee.SEV_SNP
    assert len(dict(accepted.values)["measurement"].values) == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--guest-features", "zz", *MODEL), "--guest-features takes a hexadecimal number, found 'zz'"),
        (("--guest-features", "0x2", *MODEL), "bit 0"),
        ((), "--enclave-model-hash"),
        (("--dangerous-any-model", *MODEL), "not both"),
        (("--append", "x", *MODEL), "with --kernel"),
    ],
)
def test_snp_options_that_contradict(words: tuple[str, ...], message: str, ovmf: Path) -> None:
    run = confonnx("measure", "snp", "--ovmf", ovmf, "--vcpus", 1, "--vcpu-type", "EPYC-Milan", *words)
    assert (run.status, run.out) == (2, "")
    assert message in run.err


def test_snp_with_any_model(ovmf: Path) -> None:
    run = confonnx(
        *(
            "measure",
            "snp",
            "--ovmf",
            ovmf,
            "--vcpus",
            1,
            "--vcpu-type",
            "EPYC-Milan",
            "--dangerous-any-model",
        )
    )
    assert "dangerous_any = true" in run.out


def test_verify_takes_the_file_that_a_build_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONFONNX_URL", raising=False)
    bundle, info = tmp_path / "bundle.json", tmp_path / "enclave_info.txt"
    bundle.write_bytes(server.bundle().encode())
    measurement, model = server.MEASUREMENT, server.MODEL_DIGEST
    words = ("verify", "--bundle", bundle, "--now", server.NOW.isoformat(), "--enclave-info", info)
    info.write_text(encode_enclave_info(SimulatedInfo(measurement, model)))
    assert "--allow-simulated" in confonnx(*words).err
    run = confonnx(*words, "--allow-simulated")
    assert run.status == 0
    assert "ACCEPTED" in run.out
    info.write_text(encode_enclave_info(SimulatedInfo(b"\x01" * 32, model)))
    assert confonnx(*words, "--allow-simulated").status == 3
    info.write_text(encode_enclave_info(EnclaveInfo(MRENCLAVE, MRENCLAVE, 1, 1, debug=False, model=model)))
    assert confonnx(*words).status == 3
    refused = confonnx(*words, "--enclave-hash", "11" * 32, *MODEL)
    assert refused.status == 2
    assert "leave out --enclave-hash, --enclave-model-hash" in refused.err
