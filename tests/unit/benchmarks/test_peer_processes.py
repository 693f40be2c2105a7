"""Peers are started from environments that are there, with pinned packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.load import LoadError
from benchmarks.peers import processes
from benchmarks.variants import PEERS, Variant


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_without_environment_is_an_error_that_says_what_makes_it(
    peer: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "ENVIRONMENTS", tmp_path)
    with pytest.raises(LoadError, match="make bench-peers"):
        processes.python_of(peer)


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_is_locked_with_hashes(peer: Variant) -> None:
    folder = processes.ROOT / "benchmarks" / "peers" / "requirements"
    wanted = (folder / f"{processes.NAMES[peer]}.in").read_text().split()
    locked = (folder / f"{processes.NAMES[peer]}.lock").read_text()
    assert "onnxruntime==1.32.0" in wanted
    for requirement in wanted:
        assert re.search(rf"^{re.escape(requirement)}(\s|$)", locked, re.MULTILINE), requirement
    entries = re.split(r"^(?=[a-zA-Z])", locked, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
