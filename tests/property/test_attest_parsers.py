"""What hosts and devices answer is hostile or broken: a value or ``TeeError``, whatever the bytes."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from confonnx.attestation.attest.certificate_table import parse_table
from confonnx.attestation.attest.nitro import NitroAttester
from confonnx.attestation.attest.tpm_commands import Tpm
from confonnx.errors import TeeError
from tests.support.fake_devices import FakeNsm
from tests.support.fake_kernel import no_wait
from tests.support.fake_tsm import table

GUIDS = (
    "63da758d-e664-4564-adc5-f4b93be8accd",
    "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "92f81bc3-5811-4d3d-97ff-d19f88dc67ea",
    "00112233-4455-6677-8899-aabbccddeeff",
)


class Answering:
    """A TPM whose every response has these codes and bodies."""

    def __init__(self, answers: list[tuple[int, bytes]]) -> None:
        self.answers = answers

    def transmit(self, command: bytes) -> bytes:
        code, body = self.answers.pop() if self.answers else (0x101, b"")
        return b"\x80\x01" + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body


@given(st.binary(max_size=400))
def test_any_certificate_table(data: bytes) -> None:
    with suppress(TeeError):
        assert len(parse_table(data)) <= 2


@given(st.dictionaries(st.sampled_from(GUIDS), st.binary(min_size=1, max_size=40)), st.data())
def test_a_certificate_table_with_a_changed_byte(entries: dict[str, bytes], data: st.DataObject) -> None:
    good = bytearray(table(entries))
    parse_table(bytes(good))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] ^= data.draw(st.integers(1, 255))
    with suppress(TeeError):
        parse_table(bytes(good))


@given(st.lists(st.tuples(st.sampled_from([0, 0x18B, 0x922]), st.binary(max_size=120)), max_size=8))
def test_any_response_of_a_tpm(answers: list[tuple[int, bytes]]) -> None:
    device = Tpm(Answering(answers), wait=no_wait)
    for ask in (
        lambda: device.read_public(0x81000003),
        lambda: device.read_nv(0x01400001),
        lambda: device.read_pcrs("sha256", (0, 7)),
        lambda: device.quote(0x81000003, bytes(64), bank="sha256", indices=(0,)),
        lambda: device.make_attestation_key(0x8100C0F0),
    ):
        with suppress(TeeError):
            ask()


@given(st.binary(max_size=200))
def test_any_answer_of_a_security_module(answer: bytes) -> None:
    with suppress(TeeError):
        NitroAttester(FakeNsm(lambda _: answer).ioctl).collect(bytes(64))
