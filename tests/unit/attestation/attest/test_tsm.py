"""configfs-tsm: directories of one's own, the generation check, and the kernel's errors."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor

import pytest

from confonnx.attestation.attest import tsm
from confonnx.attestation.attest.tsm import TsmReport
from confonnx.errors import TeeError
from tests.support.fake_kernel import FakeFiles, no_wait
from tests.support.fake_tsm import FakeTsm

REPORT_DATA = bytes(range(64))


def kernel(provider: str | None = "sev_guest", auxblob: bytes | None = b"") -> FakeTsm:
    return FakeTsm(lambda inblob: b"report over " + inblob, provider, auxblob=auxblob)


def request(files: FakeTsm) -> TsmReport:
    return tsm.request_report(files, REPORT_DATA, wait=no_wait)


@pytest.mark.parametrize("provider", ["sev_guest", "tdx_guest", "another"])
def test_the_provider(provider: str) -> None:
    files = kernel(provider)
    assert tsm.find_provider(files) == provider
    assert files.requests == {}


def test_no_interface_and_no_driver_are_no_provider() -> None:
    assert tsm.find_provider(FakeFiles()) is None
    assert tsm.find_provider(kernel(None)) is None


@pytest.mark.parametrize(
    ("number", "name"), [(errno.EACCES, "EACCES"), (errno.EPERM, "EPERM"), (errno.EROFS, "EROFS")]
)
def test_an_interface_that_is_closed_to_us_is_an_error(number: int, name: str) -> None:
    files = kernel()
    files.fail("mkdir", number)
    with pytest.raises(TeeError, match=rf"/sys/kernel/config/tsm/report.*{name}.*privilege"):
        tsm.find_provider(files)


def test_a_report_and_what_the_host_adds() -> None:
    files = kernel(auxblob=b"certificates")
    assert request(files) == TsmReport(b"report over " + REPORT_DATA, b"certificates")
    assert files.requests == {}


def test_a_driver_without_auxblob() -> None:
    assert request(kernel(auxblob=None)).auxblob == b""


@pytest.mark.parametrize("operation", ["mkdir", "write inblob", "read outblob", "read auxblob"])
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EINTR])
def test_a_busy_device_is_asked_again(operation: str, number: int) -> None:
    files = kernel()
    files.fail(operation, number, number)
    assert request(files).outblob == b"report over " + REPORT_DATA
    assert files.requests == {}


def test_a_device_that_stays_busy_is_an_error() -> None:
    files = kernel()
    files.fail("read outblob", *[errno.EBUSY] * 100)
    with pytest.raises(TeeError, match="stayed busy"):
        request(files)
    assert files.requests == {}
    assert len(files.errors["read outblob"]) > 80  # it gave up soon


def test_a_write_by_somebody_else_is_noticed() -> None:
    """The report is then over the other's bytes; the generation tells."""
    files = kernel()
    intrusions = [b"\1" * 64, b"\2" * 64]

    def intrude(directory: str) -> None:
        if intrusions:
            files.intrude = lambda _: None
            files.write(f"{directory}/inblob", intrusions.pop())
            files.intrude = intrude

    files.intrude = intrude
    assert request(files).outblob == b"report over " + REPORT_DATA
    assert intrusions == []


def test_somebody_who_never_stops_writing() -> None:
    files = kernel()

    def intrude(directory: str) -> None:
        files.requests[directory].generation += 1

    files.intrude = intrude
    with pytest.raises(TeeError, match="others kept writing"):
        request(files)


@pytest.mark.parametrize(
    ("operation", "number", "text"),
    [
        ("mkdir", errno.ENXIO, r"ENXIO.*no TEE driver"),
        ("read outblob", errno.EINVAL, r"EINVAL.*refuses the request"),
        ("read outblob", errno.EIO, "EIO"),
        ("read outblob", errno.EFBIG, r"EFBIG.*certificates"),
        ("read outblob", errno.ENOTTY, r"ENOTTY.*restart"),
        ("read outblob", errno.ETIMEDOUT, "ETIMEDOUT"),
        ("write inblob", errno.EACCES, r"EACCES.*privilege"),
        ("read generation", errno.EIO, "EIO"),
    ],
)
def test_other_errors_end_it_at_once(operation: str, number: int, text: str) -> None:
    files = kernel()
    files.fail(operation, number, number)
    with pytest.raises(TeeError, match=text):
        request(files)
    assert list(files.errors[operation]) == [number]  # not asked again
    assert files.requests == {}


def test_a_generation_that_is_no_number() -> None:
    class Odd(FakeTsm):
        def read(self, path: str) -> bytes:
            return b"x" if path.endswith("/generation") else super().read(path)

    files = Odd(bytes)
    with pytest.raises(TeeError, match="generation is b'x'"):
        request(files)
    assert files.requests == {}


def test_threads_have_directories_of_their_own() -> None:
    files = kernel()

    def collect(number: int) -> bool:
        report_data = bytes([number]) * 64
        report = tsm.request_report(files, report_data, wait=no_wait)
        return report.outblob == b"report over " + report_data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(collect, range(64)))
    assert files.requests == {}
