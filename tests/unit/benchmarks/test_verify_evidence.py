"""The benchmark of verification: it verifies, and says what it measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.quantiles import Spread
from benchmarks.verify_evidence import Timing, main, measure, real_cases, table
from confonnx.attestation.claims import Tee
from confonnx.errors import VerificationError
from tests.support.shared import shared_dir

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


def test_every_case_is_accepted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    vectors = str(shared_dir() / "vectors")
    assert main(["--seconds", "0", "--vectors", vectors, "--json", str(file)]) == 0
    rows = json.loads(file.read_text("utf-8"))
    assert [row["tee"] for row in rows] == ["sgx", "tdx", "sev-snp", "azure-snp", "nitro"]
    assert all(row["count"] == 1 and 0 < row["median"] < 10 for row in rows)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        row["tee"] for row in rows
    ]


def test_evidence_that_is_refused_is_not_measured() -> None:
    case, *_ = real_cases(shared_dir() / "vectors")
    changed = bytearray(case.evidence)
    changed[112] ^= 1  # MRENCLAVE
    with pytest.raises(VerificationError):
        measure(replace(case, evidence=bytes(changed)), seconds=0)


def test_the_table_has_milliseconds() -> None:
    timing = Timing(Tee.SGX, "a.bin", Spread(median=0.0031, low=0.003, high=0.0035), 42)
    assert table([timing]).splitlines()[1].split() == [
        "sgx", "3.10", "ms", "3.00", "to", "3.50", "42", "a.bin",
    ]  # fmt: skip
