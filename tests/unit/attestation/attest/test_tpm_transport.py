"""Commands to a device and to swtpm: short reads, closed connections, addresses."""

from __future__ import annotations

import os
import socket
import threading
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from confonnx.attestation.attest.tpm_transport import parse_address
from confonnx.errors import ConfigurationError, TeeError

COMMAND = b"\x80\x01\x00\x00\x00\x0a\x00\x00\x01\x44"
RESPONSE = b"\x80\x01\x00\x00\x00\x0e\x00\x00\x00\x00data"


@contextmanager
def peer(pieces: Sequence[bytes]) -> Iterator[str]:
    """A TPM on loopback that takes a command and sends ``pieces``, each by itself, then closes."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            received = connection.recv(len(COMMAND))
            for piece in pieces if received else ():
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"swtpm:host=127.0.0.1,port={listener.getsockname()[1]}"
        finally:
            thread.join()


@pytest.mark.parametrize(
    "pieces", [[RESPONSE], [RESPONSE[:3], RESPONSE[3:11], RESPONSE[11:]], [bytes((b,)) for b in RESPONSE]]
)
def test_a_response_in_pieces(pieces: list[bytes]) -> None:
    with peer(pieces) as address, parse_address(address)() as transport:
        assert transport.transmit(COMMAND) == RESPONSE


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([], "after 0 of 10"),
        ([RESPONSE[:5]], "after 5 of 10"),
        ([RESPONSE[:12]], "after 2 of 4"),
        ([b"\x80\x01\x00\x00\x00\x09" + bytes(4)], "response of 9 bytes"),
        ([b"\x80\x01\xff\xff\xff\xff" + bytes(4)], "response of 4294967295 bytes"),
    ],
)
def test_a_tpm_that_breaks_off(pieces: list[bytes], text: str) -> None:
    with peer(pieces) as address, parse_address(address)() as transport, pytest.raises(TeeError, match=text):
        transport.transmit(COMMAND)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connect = parse_address(f"swtpm:host=127.0.0.1,port={port}")
    with pytest.raises(TeeError, match=rf"swtpm at 127\.0\.0\.1:{port}.*ECONNREFUSED"), connect():
        pass


def test_no_device(tmp_path: Path) -> None:
    with pytest.raises(TeeError, match=r"TPM /.*/tpmrm9.*ENOENT"), parse_address(f"{tmp_path}/tpmrm9")():
        pass


@pytest.mark.parametrize("prefix", ["", "device:"])
def test_a_device(prefix: str) -> None:
    """A terminal stands for the character device: what is written on one side is read on the other."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)

    def answer() -> None:
        assert os.read(ours, 100) == COMMAND
        os.write(ours, RESPONSE)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with parse_address(prefix + os.ttyname(theirs))() as transport:
            assert transport.transmit(COMMAND) == RESPONSE
    finally:
        thread.join()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    "address",
    [
        *("", "tpmrm0", "swtpm", "swtpm:", "swtpm:host=a", "swtpm:host=a,port=0", "swtpm:host=a,port=65536"),
        *("swtpm:host=,port=1", "swtpm:host=a,port=1,x", "tabrmd:", "device:tpm0"),
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ConfigurationError, match="address of a TPM"):
        parse_address(address)
