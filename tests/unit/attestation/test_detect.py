"""Which attester a server gets, and that nothing is put in the place of a TEE that is missing."""

from __future__ import annotations

import pytest

from confonnx.attestation.attest.detect import detect
from confonnx.attestation.attest.simulated import SimulatedAttester
from confonnx.attestation.claims import Tee
from confonnx.errors import TeeError

_SIMULATED = SimulatedAttester(bytes(32))


@pytest.mark.parametrize("forced", [None, Tee.SIMULATED])
def test_without_a_tee_evidence_is_simulated(forced: Tee | None) -> None:
    assert detect(forced=forced, require_tee=False, simulated=_SIMULATED) is _SIMULATED


@pytest.mark.parametrize("forced", [None, Tee.SIMULATED])
def test_a_required_tee_is_not_replaced_by_a_simulated_one(forced: Tee | None) -> None:
    with pytest.raises(TeeError, match="a TEE is required"):
        detect(forced=forced, require_tee=True, simulated=_SIMULATED)


@pytest.mark.parametrize("forced", [tee for tee in Tee if tee is not Tee.SIMULATED])
@pytest.mark.parametrize("require_tee", [False, True])
def test_a_forced_tee_is_not_replaced(forced: Tee, require_tee: bool) -> None:
    with pytest.raises(TeeError, match=rf"the TEE {forced} was asked for.*/(dev|sys)/"):
        detect(forced=forced, require_tee=require_tee, simulated=_SIMULATED)
