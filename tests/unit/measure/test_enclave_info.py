"""enclave_info.txt: there and back, errors by key, and a policy that takes no danger from a file."""

from __future__ import annotations

import pytest

from confonnx.attestation.claims import Tee
from confonnx.attestation.policy import AtLeast, ModelDigests, OneOf, OneOfNumbers, Policy
from confonnx.errors import ConfigurationError
from confonnx.measure.enclave_info import (
    EnclaveInfo,
    SimulatedInfo,
    encode_enclave_info,
    parse_enclave_info,
    policy_of,
)

SGX = EnclaveInfo(
    mrenclave=b"\x11" * 32,
    mrsigner=b"\x22" * 32,
    product_id=3,
    security_version=4,
    debug=False,
    model="aa" * 32,
)
DEBUG = EnclaveInfo(SGX.mrenclave, SGX.mrsigner, 3, 4, debug=True, model=SGX.model)
SIMULATED = SimulatedInfo(measurement=b"\x33" * 32, model="bb" * 32)
TEXT = encode_enclave_info(SGX)


@pytest.mark.parametrize("info", [SGX, DEBUG, SIMULATED])
def test_there_and_back(info: EnclaveInfo | SimulatedInfo) -> None:
    assert parse_enclave_info(encode_enclave_info(info)) == info


def test_the_lines_that_people_grep_for() -> None:
    assert f"mrenclave={'11' * 32}\n" in TEXT
    assert f"mrsigner={'22' * 32}\n" in TEXT
    assert "isvprodid=3\nisvsvn=4\ndebug=0\n" in TEXT


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tee=sgx", "tee=tdx", "expected tee=sgx or tee=simulated, found 'tdx'"),
        ("tee=sgx\n", "", "expected tee=sgx or tee=simulated, found None"),
        ("debug=0\n", "", "expected the keys tee, mrenclave"),
        ("debug=0", "debug=2", "debug must be a whole number from 0 to 1, found '2'"),
        ("debug=0", "debug=0\nextra=1", "expected the keys"),
        ("debug=0", "debug=0\ndebug=0", "line 7: expected a new key=value"),
        ("debug=0", "nonsense", "line 6: expected a new key=value, found 'nonsense'"),
        ("isvsvn=4", "isvsvn=65536", "isvsvn must be a whole number from 0 to 65535"),
        ("isvprodid=3", "isvprodid=-3", "isvprodid must be"),
        ("11" * 32, "11" * 31, "mrenclave must be 64 lower-case hex digits"),
        ("22" * 32, "GG" * 32, "mrsigner must be 64"),
        ("aa" * 32, "AA" * 32, "model_sha256 must be 64"),
    ],
)
def test_one_change_each(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError) as caught:
        parse_enclave_info(TEXT.replace(old, new, 1))
    assert message in str(caught.value)


def test_the_policy_of_an_enclave_states_its_whole_identity() -> None:
    policy = policy_of(SGX, allow_debug=False, allow_simulated=False)
    (server,) = policy.accepted
    assert (server.tee, server.allow_debug) == (Tee.SGX, False)
    assert dict(server.values) == {
        "mrenclave": OneOf((SGX.mrenclave,)),
        "mrsigner": OneOf((SGX.mrsigner,)),
        "isv_prod_id": OneOfNumbers((3,)),
        "min_isv_svn": AtLeast(4),
    }
    assert policy.models == ModelDigests((SGX.model,))
    assert Policy.from_toml(policy.to_toml()) == policy


def test_danger_needs_an_option() -> None:
    with pytest.raises(ConfigurationError, match="--enclave-allow-debug"):
        policy_of(DEBUG, allow_debug=False, allow_simulated=True)
    with pytest.raises(ConfigurationError, match="--allow-simulated"):
        policy_of(SIMULATED, allow_debug=True, allow_simulated=False)
    assert policy_of(DEBUG, allow_debug=True, allow_simulated=False).accepted[0].allow_debug
    (server,) = policy_of(SIMULATED, allow_debug=False, allow_simulated=True).accepted
    assert (server.tee, server.allow_debug) == (Tee.SIMULATED, False)
    assert dict(server.values) == {"measurement": OneOf((SIMULATED.measurement,))}
