"""Records: one buffer for a message, bounds before it is made, and no end in the middle."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from confonnx.errors import OipError, TooLargeError
from confonnx.oip.records import HEAD_SIZE, NOTICE, Record, RecordReader, encode_record, room_for


def head(
    status: int = 0, retry_after: int = 0, header_length: int = 0, size: int = 1, padding: int = 0
) -> bytes:
    return struct.pack(">HHIQQ", status, retry_after, header_length, size, padding)


def request_reader(max_size: int = 100) -> RecordReader:
    return RecordReader(max_size=max_size, answers=False)


def records(reader: RecordReader, *pieces: bytes) -> list[Record]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (record := reader.next_record()) is not None:
            found.append(record)
    return found


def test_the_encoding_to_the_byte() -> None:
    parts = encode_record((b"{}", b"xyz"), header_length=2, status=200, retry_after=7, padding=3)
    assert b"".join(parts) == b"\0\xc8\0\x07\0\0\0\x02" + b"\0" * 7 + b"\x05" + b"\0" * 7 + b"\x03{}xyz\0\0\0"


def test_parts_are_not_copied() -> None:
    body = bytearray(9)
    assert encode_record((body,))[1] is body


def test_padding_of_any_size() -> None:
    joined = b"".join(encode_record((b"x",), padding=200_000))
    assert len(joined) == HEAD_SIZE + 1 + 200_000
    assert not joined[HEAD_SIZE + 1 :].strip(b"\0")


def test_records_come_in_order_whatever_the_pieces_hold() -> None:
    stream = b"".join(
        b"".join(encode_record((text,), header_length=length, padding=pad))
        for text, length, pad in ((b"first", None, 4), (b"second", 3, 0), (b"third", 5, 250))
    )
    for size in (1, 7, len(stream)):
        reader = request_reader()
        found = records(reader, *(stream[start : start + size] for start in range(0, len(stream), size)))
        assert [(bytes(record.message or b""), record.header_length) for record in found] == [
            (b"first", None),
            (b"second", 3),
            (b"third", 5),
        ]
        assert not reader.inside
        reader.finish()


def test_a_message_is_one_buffer_of_its_announced_size() -> None:
    buffers: list[bytearray] = []

    def allocate(size: int) -> bytearray:
        buffers.append(bytearray(size))
        return buffers[-1]

    reader = RecordReader(max_size=100, allocate=allocate, answers=False)
    assert records(reader, b"", head(size=80)) == []
    assert [len(buffer) for buffer in buffers] == [80]
    assert reader.inside
    (record,) = records(reader, b"m" * 80)
    assert record.message is buffers[0]
    assert buffers[0] == b"m" * 80


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 3])
def test_room_is_writable_aligned_and_of_the_size_that_was_asked_for(size: int) -> None:
    room = room_for(size)
    assert len(room) == size
    assert np.frombuffer(room, np.uint8).ctypes.data % 16 == 0
    reader = RecordReader(max_size=size, answers=False)
    (record,) = records(reader, head(size=size), b"m" * size)
    assert bytes(record.message or b"") == b"m" * size


def test_without_room_a_message_is_read_and_dropped_and_the_next_one_kept() -> None:
    reader = RecordReader(
        max_size=100, allocate=lambda size: None if size > 4 else bytearray(size), answers=False
    )
    found = records(reader, head(size=5, padding=1) + b"long!\0" + head(size=3) + b"ok!")
    assert [(record.size, record.message) for record in found] == [(5, None), (3, bytearray(b"ok!"))]


def test_what_is_behind_a_record_waits() -> None:
    reader = request_reader()
    reader.feed(head() + b"a" + head() + b"b")
    first = reader.next_record()
    assert first is not None
    assert bytes(first.message or b"") == b"a"
    second = reader.next_record()
    assert second is not None
    assert bytes(second.message or b"") == b"b"
    assert reader.next_record() is None


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (head(status=200), "has a status"),
        (head(retry_after=1), "has a status"),
        (head(size=0), "has 0 bytes"),
        (head(size=9, header_length=10), "its JSON has 10"),
        (head(size=80, padding=267), "267 bytes of padding"),
        (head(size=1, padding=1) + b"a\1", "other than zero"),
    ],
)
def test_refused_records_of_requests(bad: bytes, text: str) -> None:
    with pytest.raises(OipError, match=text):
        records(request_reader(), bad)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (head(status=0), "not 0"),
        (head(status=199), "not 199"),
        (head(status=600), "not 600"),
        (head(status=200, size=0), "has 0 bytes"),
        (head(status=NOTICE, size=1), "has 1 bytes"),
    ],
)
def test_refused_records_of_answers(bad: bytes, text: str) -> None:
    with pytest.raises(OipError, match=text):
        records(RecordReader(max_size=100, answers=True), bad)


def test_a_notice_has_no_message() -> None:
    (notice,) = records(
        RecordReader(max_size=100, answers=True), head(status=NOTICE, size=0, padding=8) + bytes(8)
    )
    assert (notice.status, notice.message) == (NOTICE, bytearray())


def test_a_record_over_the_limit_is_refused_before_there_is_a_buffer() -> None:
    def allocate(size: int) -> bytearray:
        raise AssertionError(size)

    reader = RecordReader(max_size=100, allocate=allocate, answers=False)
    with pytest.raises(TooLargeError, match="101 bytes, at most 100"):
        records(reader, head(size=101))


@pytest.mark.parametrize("end", [1, HEAD_SIZE - 1, HEAD_SIZE, HEAD_SIZE + 1, HEAD_SIZE + 3])
def test_the_middle_of_a_record_is_no_end(end: int) -> None:
    reader = request_reader()
    assert records(reader, (head(size=2, padding=2) + b"ab\0\0")[:end]) == []
    with pytest.raises(OipError, match="middle of a record"):
        reader.finish()


def test_what_was_fed_and_not_read_is_no_end_either() -> None:
    reader = request_reader()
    reader.feed(b"\0")
    with pytest.raises(OipError, match="middle of a record"):
        reader.finish()


def test_a_message_does_not_show_in_a_repr() -> None:
    (record,) = records(request_reader(), head(size=6) + b"CANARY")
    assert "CANARY" not in repr(record)
