"""Chunked messages: sealed and opened piece by piece, and every way in which a stream can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from confonnx.errors import EncapsulationError, KeyConfigError, TooLargeError, UnknownKeyError
from confonnx.ohttp.aead import OPEN_FAILED, TAG_SIZE
from confonnx.ohttp.chunked import (
    SMALLEST_MAX_CHUNK,
    ChunkedRequestOpener,
    ChunkedRequestSealer,
    ChunkedResponseOpener,
    ChunkedResponseSealer,
)
from confonnx.ohttp.hpke import Aead, Kdf, Kem
from confonnx.ohttp.reader import encode_varint
from tests.unit.ohttp.single_key import SingleKey

GATEWAY = SingleKey.derived(Kem.X25519)
PREFIX = 7 + 32
CHUNKS = [b"one", b"two" * 50, b"three"]


def request(
    chunks: Iterable[bytes] = CHUNKS, final: bytes = b"end"
) -> tuple[list[bytes], ChunkedRequestSealer]:
    """The pieces that a client sends, the final chunk last."""
    sealer = ChunkedRequestSealer(GATEWAY.config())
    return [*(bytes(sealer.seal([chunk])) for chunk in chunks), bytes(sealer.finish([final]))], sealer


def opened(opener: ChunkedRequestOpener | ChunkedResponseOpener, pieces: Iterable[bytes]) -> list[bytes]:
    """The plaintexts of all chunks."""
    found = [bytes(chunk) for piece in pieces for chunk in opener.feed(piece)]
    return [*found, bytes(opener.finish())]


@pytest.mark.parametrize("kem", list(Kem))
@pytest.mark.parametrize("aead", list(Aead))
def test_a_request_and_its_response(kem: Kem, aead: Aead) -> None:
    gateway = SingleKey.derived(kem)
    sealer = ChunkedRequestSealer(gateway.config(), aead=aead)
    pieces = [bytes(sealer.seal([b"o", b"ne"])), bytes(sealer.seal([b"two"])), bytes(sealer.finish())]
    opener = ChunkedRequestOpener(gateway)
    assert opened(opener, pieces) == [b"one", b"two", b""]
    answer = opener.response_sealer()
    back = [bytes(answer.seal([b"uno"])), bytes(answer.finish([b"due"]))]
    assert opened(sealer.response_opener(), back) == [b"uno", b"due"]


def test_an_answer_may_begin_before_the_request_has_ended() -> None:
    pieces, sealer = request()
    opener = ChunkedRequestOpener(GATEWAY)
    assert opener.feed(pieces[0]) == [b"one"]
    answer = opener.response_sealer()
    back = sealer.response_opener()
    assert back.feed(answer.seal([b"early"])) == [b"early"]
    assert opener.feed(pieces[1]) == [CHUNKS[1]]
    assert back.feed(answer.finish()) == []
    assert bytes(back.finish()) == b""


@pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
def test_bytes_may_be_cut_anywhere(size: int) -> None:
    pieces, _ = request()
    stream = b"".join(pieces)
    cut = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert opened(ChunkedRequestOpener(GATEWAY), cut) == [*CHUNKS, b"end"]


def test_a_request_of_the_final_chunk_alone() -> None:
    assert opened(ChunkedRequestOpener(GATEWAY), request([], b"all")[0]) == [b"all"]
    assert opened(ChunkedRequestOpener(GATEWAY), request([], b"")[0]) == [b""]


def test_every_truncation_is_detected() -> None:
    stream = b"".join(request()[0])
    for end in range(len(stream)):
        opener = ChunkedRequestOpener(GATEWAY)
        opener.feed(stream[:end])
        with pytest.raises(EncapsulationError) as caught:
            opener.finish()
        assert str(caught.value) == OPEN_FAILED


def test_every_truncation_of_a_response_is_detected() -> None:
    pieces, sealer = request()
    gateway = ChunkedRequestOpener(GATEWAY)
    opened(gateway, pieces)
    answer = gateway.response_sealer()
    stream = bytes(answer.seal([b"answer"]) + answer.finish())
    for end in range(len(stream)):
        opener = sealer.response_opener()
        opener.feed(stream[:end])
        with pytest.raises(EncapsulationError):
            opener.finish()


@pytest.mark.parametrize(
    "change",
    [
        lambda pieces: [pieces[0], pieces[2], pieces[3]],  # one is missing
        lambda pieces: [pieces[0], pieces[2], pieces[1], pieces[3]],  # another order
        lambda pieces: [*pieces[:2], pieces[1], *pieces[2:]],  # one comes twice
        lambda pieces: [*pieces, b"\0"],  # something after the end
        lambda pieces: [*pieces[:2], b"\0" + pieces[2][1:]],  # a chunk that poses as the final one
        lambda pieces: [*pieces[:3], encode_varint(len(pieces[3]) - 1) + pieces[3][1:], pieces[3]],
        lambda pieces: [*pieces[:3], b"\x01x", pieces[3]],  # too short for a tag
        lambda pieces: [pieces[0][:-1] + bytes([pieces[0][-1] ^ 1]), *pieces[1:]],
    ],
)
def test_chunks_in_another_place_do_not_open(change: Callable[[list[bytes]], list[bytes]]) -> None:
    pieces, _ = request()
    opener = ChunkedRequestOpener(GATEWAY)
    with pytest.raises(EncapsulationError) as caught:
        opened(opener, change(pieces))
    assert str(caught.value) == OPEN_FAILED
    with pytest.raises(RuntimeError, match="failed before"):
        opener.feed(b"")
    with pytest.raises(RuntimeError, match="failed before"):
        opener.finish()


def test_an_empty_chunk_before_the_end_is_refused_even_where_it_was_sealed() -> None:
    sealer = ChunkedRequestSealer(GATEWAY.config())
    with pytest.raises(ValueError, match="final one"):
        sealer.seal([b"", b""])
    smuggled = sealer._seal(sealer._prefix + encode_varint(TAG_SIZE), [], b"")
    with pytest.raises(EncapsulationError):
        ChunkedRequestOpener(GATEWAY).feed(smuggled)


def test_the_size_of_chunks_is_limited() -> None:
    limit = SMALLEST_MAX_CHUNK
    pieces, _ = request([b"x" * limit], b"y" * limit)
    opener = ChunkedRequestOpener(GATEWAY, max_chunk=limit)
    assert opened(opener, pieces) == [b"x" * limit, b"y" * limit]

    opener = ChunkedRequestOpener(GATEWAY, max_chunk=limit)
    head, _ = request([b"x" * (limit + 1)])
    with pytest.raises(TooLargeError, match=f"may have {limit + 16} bytes, this one has {limit + 17}"):
        opener.feed(head[0][: PREFIX + 4])  # its length is enough
    with pytest.raises(RuntimeError):
        opener.feed(b"")

    opener = ChunkedRequestOpener(GATEWAY, max_chunk=limit)
    final = request([], b"y" * (limit + 1))[0][0]
    opener.feed(final[:-1])
    with pytest.raises(TooLargeError, match=f"more than {limit + 16}"):
        opener.feed(final[-1:])


def test_a_limit_below_what_the_protocol_demands() -> None:
    with pytest.raises(ValueError, match="16384 bytes must be taken, not of 16383"):
        ChunkedRequestOpener(GATEWAY, max_chunk=SMALLEST_MAX_CHUNK - 1)


def test_lengths_may_be_longer_than_needed() -> None:
    """RFC 9000 §16 allows it, and a length is not under the seal."""
    pieces, _ = request([b"one"], b"")
    size = pieces[0][PREFIX]
    longer = pieces[0][:PREFIX] + bytes([0x80, 0, 0, size]) + pieces[0][PREFIX + 1 :]
    final = b"\xc0" + bytes(7) + pieces[1][1:]
    assert opened(ChunkedRequestOpener(GATEWAY), [longer, final]) == [b"one", b""]


def test_nothing_comes_after_the_final_chunk() -> None:
    pieces, sealer = request()
    with pytest.raises(RuntimeError, match="sealed its final chunk"):
        sealer.seal([b"x"])
    with pytest.raises(RuntimeError, match="sealed its final chunk"):
        sealer.finish()
    opener = ChunkedRequestOpener(GATEWAY)
    opened(opener, pieces)
    with pytest.raises(RuntimeError, match="ended"):
        opener.finish()


def test_prefixes_that_are_refused() -> None:
    stream = request()[0][0]
    with pytest.raises(UnknownKeyError):
        ChunkedRequestOpener(GATEWAY).feed(b"\x01" + stream[1:7])
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        ChunkedRequestOpener(GATEWAY).feed(stream[:6] + b"\x09")
    with pytest.raises(EncapsulationError, match=OPEN_FAILED):
        ChunkedRequestOpener(GATEWAY).feed(stream[:7] + bytes(32))
    with pytest.raises(KeyConfigError, match="CHACHA20"):
        ChunkedRequestSealer(
            GATEWAY.config(((Kdf.HKDF_SHA256, Aead.AES_128_GCM),)), aead=Aead.CHACHA20_POLY1305
        )


def test_an_answer_needs_the_encapsulated_key() -> None:
    pieces, _ = request()
    opener = ChunkedRequestOpener(GATEWAY)
    opener.feed(pieces[0][: PREFIX - 1])
    assert opener.enc is None
    with pytest.raises(RuntimeError, match="not come far enough"):
        opener.response_sealer()
    opener.feed(pieces[0][PREFIX - 1 : PREFIX])
    assert opener.enc == pieces[0][7:PREFIX]
    assert isinstance(opener.response_sealer(), ChunkedResponseSealer)


def test_a_response_nonce_of_another_length() -> None:
    with pytest.raises(ValueError, match="16 bytes, not 15"):
        ChunkedResponseSealer(Aead.AES_128_GCM, bytes(16), bytes(32), randomness=bytes(15))


def test_responses_of_other_requests_do_not_open() -> None:
    (one, _), (_, other) = request(), request()
    gateway = ChunkedRequestOpener(GATEWAY)
    opened(gateway, one)
    with pytest.raises(EncapsulationError):
        opened(other.response_opener(), [bytes(gateway.response_sealer().finish([b"answer"]))])


def test_chunks_of_a_response_in_another_order_do_not_open() -> None:
    pieces, sealer = request()
    gateway = ChunkedRequestOpener(GATEWAY)
    opened(gateway, pieces)
    answer = gateway.response_sealer(randomness=bytes(16))
    nonce, first, second = bytes(16), answer.seal([b"one"])[16:], answer.seal([b"two"])
    assert [bytes(chunk) for chunk in sealer.response_opener().feed(nonce + first + second)] == [
        b"one",
        b"two",
    ]
    with pytest.raises(EncapsulationError):
        sealer.response_opener().feed(nonce + second)


def test_responses_are_fresh_unless_told_otherwise() -> None:
    gateway = ChunkedRequestOpener(GATEWAY)
    opened(gateway, request()[0])
    assert gateway.response_sealer().finish() != gateway.response_sealer().finish()
