"""What a parent and its workers say to each other: nothing is lost on the way, and nothing stays behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from confonnx.errors import (
    BundleError,
    ConfigurationError,
    ConfonnxError,
    ModelFormatError,
    ModelNotFoundError,
    TeeError,
)
from confonnx.server.control import (
    Description,
    Kind,
    Start,
    encode_error,
    parse_error,
    receive,
    send,
    wipe,
)
from confonnx.server.settings import Settings
from confonnx.server.settings_sources import load_settings

STARTED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def settings() -> Settings:
    """Every kind of field away from its default."""
    return load_settings(
        {
            "model_path": "/models/m.onnx",
            "operator_libraries": os.pathsep.join(["/a.so", "/b.so"]),
            "auth_key": "canary",
            "tee": "simulated",
            "tpm_ak_handle": "0x81010001",
            "metrics": False,
            "key_rollover_interval": "90m",
            "drain_timeout": "1ms",
            "execution_mode": "parallel",
            "log_format": "json",
            "max_queue": 0,
            "deployment": "tëst",
        }
    )[0]


@pytest.mark.parametrize("given", [settings(), load_settings({})[0]])
def test_a_start_arrives_as_it_was_and_its_message_is_wiped(given: Settings) -> None:
    start = Start(1, 3, STARTED, bytearray(range(32)), given)
    content = start.encode()
    assert Start.parse(content) == start
    assert not any(content)


def test_what_is_shown_of_a_start_has_no_secret() -> None:
    assert repr(Start(0, 1, STARTED, bytearray(32), settings())) == (
        f"Start(index=0, processes=1, started_at={STARTED!r})"
    )


def test_a_description_arrives_as_it_was() -> None:
    description = Description("simulated", "ab", ("a/1 sha256:00",), ("bearer",))
    assert Description.parse(bytearray(description.encode())) == description
    assert replace(description, measurement="cd") != description


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("--max-queue: no"),
        BundleError("a"),
        ModelFormatError("b"),
        ModelNotFoundError("c"),
        TeeError("d"),
    ],
)
def test_an_error_arrives_as_it_was(error: ConfonnxError) -> None:
    parsed = parse_error(bytearray(encode_error(error)))
    assert type(parsed) is type(error)
    assert str(parsed) == str(error)


def test_messages_arrive_one_by_one(pair: tuple[socket.socket, socket.socket]) -> None:
    send(pair[0], Kind.HELLO)
    send(pair[0], Kind.ENDED, b"12")
    assert receive(pair[1]) == (Kind.HELLO, bytearray(), -1)
    assert receive(pair[1]) == (Kind.ENDED, bytearray(b"12"), -1)
    pair[0].close()
    assert receive(pair[1]) is None


def test_a_descriptor_travels(pair: tuple[socket.socket, socket.socket]) -> None:
    reading, writing = os.pipe()
    send(pair[0], Kind.CONNECTION, descriptor=writing)
    os.close(writing)
    message = receive(pair[1])
    assert message is not None
    assert message[0] is Kind.CONNECTION
    assert not os.get_inheritable(message[2])
    os.write(message[2], b"through")
    os.close(message[2])
    assert os.read(reading, 100) == b"through"
    os.close(reading)


def test_what_lists_thousands_of_models_arrives_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    names = tuple(f"{'m' * 250}{number}/1 sha256:{'0' * 64}" for number in range(4096))
    description = Description("simulated", "ab", names, ())
    send(pair[0], Kind.READY, description.encode())
    message = receive(pair[1])
    assert message is not None
    assert (message[0], message[2]) == (Kind.READY, -1)
    assert Description.parse(message[1]) == description
    error = ConfigurationError("--batch names the model 'n'; this server has " + ", ".join(names))
    send(pair[0], Kind.FAILED, encode_error(error))
    message = receive(pair[1])
    assert message is not None
    assert str(parse_error(message[1])) == str(error)


def test_settings_that_fit_into_no_message_are_refused() -> None:
    batch = {f"model-{number}": {"max_batch_size": 2} for number in range(2000)}
    with pytest.raises(ConfigurationError, match=r"the settings have \d+ bytes, more than 65536"):
        Start(0, 2, STARTED, bytearray(32), load_settings({"batch": batch})[0]).encode()


def test_wiping() -> None:
    content = bytearray(b"secret")
    wipe(content)
    assert content == bytes(6)
