"""Chunked messages, however they are divided and however their bytes arrive."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confonnx.errors import ConfonnxError
from confonnx.ohttp.chunked import (
    ChunkedRequestOpener,
    ChunkedRequestSealer,
    ChunkedResponseOpener,
    ChunkedResponseSealer,
)
from confonnx.ohttp.hpke import Aead, Kem
from tests.unit.ohttp.single_key import SingleKey

GATEWAY = SingleKey.derived(Kem.X25519)
CHUNKS = st.lists(st.binary(min_size=1, max_size=400), max_size=6)


def sealed(sealer: ChunkedRequestSealer | ChunkedResponseSealer, chunks: list[bytes], final: bytes) -> bytes:
    return b"".join([*(sealer.seal([chunk]) for chunk in chunks), sealer.finish([final])])


def opened(
    opener: ChunkedRequestOpener | ChunkedResponseOpener, stream: bytes, cuts: list[int]
) -> list[bytes]:
    ends = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(ends)]
    found = [bytes(chunk) for piece in pieces for chunk in opener.feed(piece)]
    return [*found, bytes(opener.finish())]


@given(CHUNKS, st.binary(max_size=400), st.sampled_from(Aead), st.lists(st.integers(0, 1 << 14), max_size=12))
def test_round_trip(chunks: list[bytes], final: bytes, aead: Aead, cuts: list[int]) -> None:
    sealer = ChunkedRequestSealer(GATEWAY.config(), aead=aead)
    request = ChunkedRequestOpener(GATEWAY)
    assert opened(request, sealed(sealer, chunks, final), cuts) == [*chunks, final]
    response = sealed(request.response_sealer(), chunks, final)
    assert opened(sealer.response_opener(), response, cuts) == [*chunks, final]


@given(CHUNKS, st.integers(0, 1 << 14), st.integers(0, 7), st.lists(st.integers(0, 1 << 14), max_size=4))
def test_a_changed_bit_is_noticed_and_nothing_false_comes_out(
    chunks: list[bytes], position: int, bit: int, cuts: list[int]
) -> None:
    stream = bytearray(sealed(ChunkedRequestSealer(GATEWAY.config()), chunks, b"end"))
    stream[position % len(stream)] ^= 1 << bit
    opener = ChunkedRequestOpener(GATEWAY)
    with pytest.raises(ConfonnxError):
        opened(opener, bytes(stream), cuts)


@given(CHUNKS, st.integers(0, 1 << 14), st.lists(st.integers(0, 1 << 14), max_size=4))
def test_a_cut_stream_gives_true_chunks_and_no_end(chunks: list[bytes], end: int, cuts: list[int]) -> None:
    stream = sealed(ChunkedRequestSealer(GATEWAY.config()), chunks, b"end")
    stream = stream[: end % len(stream)]
    opener = ChunkedRequestOpener(GATEWAY)
    found = [bytes(chunk) for chunk in opener.feed(stream)]
    assert found == chunks[: len(found)]
    with pytest.raises(ConfonnxError):
        opener.finish()
