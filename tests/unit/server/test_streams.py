"""Streams without sockets: what is answered, what is refused and how, and when an answer has an end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import generate_latest

from confonnx.ohttp.bhttp_stream import CONTENT_END
from confonnx.ohttp.padding import padme
from confonnx.oip.records import HEAD_SIZE, MAX_RECORDS, NOTICE, RECORDS_MEDIA_TYPE, encode_record
from confonnx.runtime.registry import LoadedModel
from confonnx.server import streams
from confonnx.server.auth import hash_credential, parse_credentials
from tests.unit.server.harness import WINDOW, GatedSession, Gateway, gated_model, real_models, run
from tests.unit.server.stream_peer import IDLE, Peer, error_text, outputs, question

KEY = "an api key of some length"
CANARY = "canary-77aa"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    return real_models(tmp_path_factory.mktemp("models"))


def test_predictions_in_their_order(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        for number in range(5):
            peer.add([number, 1], [1, 1])
        peer.end()
        assert await peer.answered() is None
        assert peer.reader.head is not None
        assert peer.reader.head.field("content-type") == RECORDS_MEDIA_TYPE
        assert [outputs(record)["sum"] for record in peer.records] == [[n + 1, 2] for n in range(5)]
        assert peer.exchange.ended
        assert peer.exchange.fields == {"content-type": "message/ohttp-chunked-res", "incremental": "?1"}
        labels = {"model": "add", "version": "1", "outcome": "ok"}
        assert gateway.count("confonnx_stream_predictions_total", **labels) == 5
        assert gateway.log()[-1]["ending"] == "complete"
        assert gateway.log()[-1]["predictions"] == 5

    run(scenario)


def test_an_answer_comes_before_the_next_input(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        while len(peer.exchange.written) < 1:  # the head
            await asyncio.sleep(0)
        for number in range(3):
            peer.add([number], [number])
            while len(peer.exchange.written) < number + 2:
                await asyncio.sleep(0)
        peer.end()
        await peer.answered()
        assert [outputs(record)["sum"] for record in peer.records] == [[0], [2], [4]]

    run(scenario)


def test_a_stream_of_nothing(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        peer.end()
        assert await peer.answered() is None
        assert peer.exchange.ended
        assert peer.records == []

    run(scenario)


def test_a_prediction_that_fails_does_not_end_the_stream(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway, path="/v2/models/picky/versions/1/infer_stream")
        peer.ask(*question(x=[1, 2, 3]))
        peer.ask(*question(x=[1, 2]))  # the runtime fails
        peer.ask(*question(y=[1]))  # no such input
        peer.ask((b"no json",))
        peer.ask(*question(x=[4, 5, 6]))
        peer.end()
        await peer.answered()
        assert [status // 100 for status in peer.statuses] == [2, 5, 4, 4, 2] or peer.statuses[1] == 400
        assert [peer.statuses[0], *peer.statuses[2:]] == [200, 400, 400, 200]
        assert "'y'" in error_text(peer.records[2])
        assert outputs(peer.records[4])["y"] == [4, 5, 6]
        assert peer.exchange.ended

    run(scenario)


def test_a_defect_of_ours_is_an_answer_without_its_text(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway([gated_model("add", GatedSession(ValueError(CANARY)))])
        peer = Peer(gateway)
        peer.ask(*question(x=[1]))
        peer.end()
        await peer.answered()
        assert peer.statuses == [500]
        assert CANARY not in error_text(peer.records[0])
        assert CANARY not in gateway.lines.getvalue()

    run(scenario)


@pytest.mark.parametrize("cut", ["no sealed end", "in a record", "in a chunk", "changed"])
def test_a_request_that_was_cut_gets_no_end(models: list[LoadedModel], cut: str) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        peer.add([1], [1])
        if cut == "in a record":
            peer.put(peer.sealer.seal([b"\x10" + bytes(16)]))
        elif cut == "in a chunk":
            peer.put(bytes(peer.sealer.finish([CONTENT_END]))[:-1])
        elif cut == "changed":
            chunk = peer.sealer.seal([b"\x01\0"])
            chunk[-1] ^= 1
            peer.put(chunk)
        peer.put(None)
        assert await peer.answered() is None
        assert peer.statuses == [200]
        assert not peer.exchange.ended
        assert gateway.log()[-1]["ending"] == "broken"

    run(scenario)


def test_content_that_ends_in_a_record_under_a_sealed_end_is_the_clients_mistake(
    models: list[LoadedModel],
) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        peer.put(peer.sealer.seal([b"\x10" + bytes(16)]))
        peer.end()
        await peer.answered()
        assert peer.statuses == [400]
        assert "middle of a record" in error_text(peer.records[0])
        assert peer.exchange.ended

    run(scenario)


def test_the_limit_of_a_record(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        limit = gateway.app._options.max_request_bytes
        peer = Peer(gateway)
        peer.add([1], [1])
        head = b"\0" * 8 + (limit + 1).to_bytes(8, "big") + bytes(8)
        peer.put(peer.sealer.seal([b"\x18" + head]))
        await peer.answered()
        assert peer.statuses == [200, 413]
        assert peer.exchange.ended

    run(scenario)


def test_the_limit_of_an_answer(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models, max_response_bytes=1000))
        peer.add([1] * 500, [1] * 500)
        peer.add([1], [1])
        peer.end()
        await peer.answered()
        assert peer.statuses == [413, 200]

    run(scenario)


def test_without_memory_a_record_is_read_and_dropped(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway, budget=1000)
        peer.add([1], [1])
        peer.add([1] * 500, [1] * 500)
        peer.add([2], [2])
        peer.end()
        await peer.answered()
        assert peer.statuses == [200, 503, 200]
        assert peer.records[1].retry_after == 1
        assert peer.exchange.budget == 1000  # all of it is given back

    run(scenario)


def test_answers_are_padded_unless_told_otherwise(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        sizes = {}
        for pad in (True, False):
            peer = Peer(Gateway(models, pad=pad))
            for count in (60, 61):
                peer.add([1] * count, [1] * count)
            peer.end()
            await peer.answered()
            # beside a record: the length of its chunk (2), of the sealed chunk (2), and the tag
            sizes[pad] = [len(piece) - 20 for piece in peer.exchange.written[1:3]]
        assert sizes[True] == [padme(HEAD_SIZE + record.size) for record in peer.records]
        assert sizes[False] == [HEAD_SIZE + record.size for record in peer.records]
        assert sizes[True] != sizes[False]

    run(scenario)


# ── the head ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"path": "/v2/models/none/infer_stream"}, 404),
        ({"path": "/v2/models/add/versions/9/infer_stream"}, 404),
        ({"path": "/v2/models/add/infer"}, 404),
        ({"method": "GET"}, 405),
        ({"fields": (("content-type", "application/json"),)}, 415),
        ({"fields": (("content-type", RECORDS_MEDIA_TYPE), ("content-encoding", "gzip"))}, 415),
        ({"fields": (("content-type", RECORDS_MEDIA_TYPE), ("content-length", "0"))}, 400),
        ({"date": None}, 400),
    ],
)
def test_a_head_that_is_refused_gets_a_sealed_and_padded_answer(
    models: list[LoadedModel], options: dict[str, object], status: int
) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway, **options)  # type: ignore[arg-type]
        assert await peer.answered() is None
        assert peer.reader.head is not None
        assert peer.reader.head.status == status
        assert peer.exchange.ended
        assert peer.records == []
        # nonce, a zero for the final chunk, and the tag beside the plaintext
        assert (len(b"".join(peer.exchange.written)) - 16 - 1 - 16) % 256 == 0
        assert gateway.log()[-1]["ending"] == "refused"

    run(scenario)


def test_a_date_outside_the_window_is_the_date_problem(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway, date=gateway.date(-WINDOW - timedelta(seconds=1)))
        await peer.answered()
        assert peer.reader.head is not None
        assert peer.reader.head.field("content-type") == "application/problem+json"
        assert peer.reader.head.field("date") == gateway.date()
        assert b"#date" in peer.content

    run(scenario)


def test_credentials(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        known = parse_credentials(hash_credential("one", KEY, basic=False), source="test")
        for given, status in ((f"Bearer {KEY}", 200), ("Bearer wrong", 401), (None, 401)):
            fields: tuple[tuple[str, str], ...] = (("content-type", RECORDS_MEDIA_TYPE),)
            if given is not None:
                fields = (*fields, ("authorization", given))
            peer = Peer(Gateway(models, credentials=known), fields=fields)
            peer.end()
            await peer.answered()
            assert peer.reader.head is not None
            assert peer.reader.head.status == status
            assert (peer.reader.head.field("www-authenticate") is not None) == (status == 401)

    run(scenario)


def test_what_does_not_open_gets_the_answer_of_single_requests(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        message, _ = gateway.seal()
        single = await gateway.post(message[:-1])
        answers = set()
        for number in range(6):
            peer = Peer(gateway)
            head = peer.head
            damaged = [
                b"",
                head[:20],
                head[:-1],
                head[:-1] + bytes([head[-1] ^ 1]),
                head[:7] + bytes([head[7] ^ 1]) + head[8:],
                head[:-200] + b"\xbf\xff\xff\xff",
            ]
            peer.exchange.body = asyncio.Queue()
            peer.put(damaged[number])
            peer.put(None)
            answer = await peer.answered()
            assert answer is not None
            answers.add((answer.status, b"".join(answer.body)))
        assert answers == {(single.status, b"".join(single.body))}
        assert gateway.count("confonnx_unopened_total", reason="unopenable") == 7

    run(scenario)


def test_an_unknown_key_has_its_own_problem(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        peer.exchange.body = asyncio.Queue()
        peer.put(bytes([peer.head[0] ^ 0x80]) + peer.head[1:])
        answer = await peer.answered()
        assert answer is not None
        assert b"#ohttp-key" in b"".join(answer.body)

    run(scenario)


def test_a_stream_that_is_sent_again_is_refused_unopened(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        first = Peer(gateway)
        first.end()
        await first.answered()
        again = Peer(gateway)
        again.exchange.body = asyncio.Queue()
        again.put(first.head)
        answer = await again.answered()
        assert answer is not None
        assert answer.status == 400
        assert gateway.count("confonnx_unopened_total", reason="replayed") == 1

    run(scenario)


# ── how the server ends a stream ────────────────────────────────────────────────────────────────────


def test_an_idle_client_is_let_go_between_records(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        peer.add([1], [1])
        peer.put(IDLE)
        await peer.answered()
        assert peer.statuses == [200]
        assert peer.exchange.ended
        assert peer.exchange.idle == [False, True, True]  # in the head it may not
        assert gateway.log()[-1]["ending"] == "closed"

    run(scenario)


def test_within_a_record_a_client_may_not_be_idle(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        for byte in b"".join(encode_record((b"{}",)))[:3]:
            peer.put(peer.sealer.seal([b"\x01", bytes([byte])]))
        peer.put(None)
        await peer.answered()
        assert peer.exchange.idle == [False, True, *[False] * 3]

    run(scenario)


def test_a_draining_server_says_so_and_answers_what_comes(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        peer.exchange.draining = True
        peer.add([1], [1])
        peer.add([2], [2])
        peer.end()
        await peer.answered()
        assert peer.statuses == [NOTICE, 200, 200]
        assert peer.exchange.ended

    run(scenario)


def test_an_old_stream_is_noticed_and_then_ended(
    models: list[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(streams, "MAX_SECONDS", -1.0)
        monkeypatch.setattr(streams, "_SECONDS_AFTER_NOTICE", -1.0)
        peer = Peer(Gateway(models))
        peer.add([1], [1])
        peer.add([2], [2])
        await peer.answered()
        assert peer.statuses == [NOTICE, 200]
        assert peer.exchange.ended

    run(scenario)


def test_a_stream_ends_with_its_key(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        peer.add([1], [1])
        while len(peer.exchange.idle) < 3:  # the next record is being waited for
            await asyncio.sleep(0)
        gateway.now += timedelta(days=3)
        gateway.ring.advance(gateway.now)
        peer.add([2], [2])
        peer.add([3], [3])
        await peer.answered()
        assert peer.statuses == [200, 200]
        assert peer.exchange.ended

    run(scenario)


def test_the_number_of_records_is_bounded(models: list[LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_RECORDS == 1 << 20

    async def scenario() -> None:
        monkeypatch.setattr(streams, "MAX_RECORDS", 2)
        peer = Peer(Gateway(models))
        for _ in range(3):
            peer.add([1], [1])
        await peer.answered()
        assert peer.statuses == [200, 200]
        assert peer.exchange.ended

    run(scenario)


def test_tiny_chunks_end_a_stream(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        peer = Peer(Gateway(models))
        peer.put(peer.sealer.seal([b"\x18", encode_record((bytes(99_999),))[0]]))
        for _ in range(1200):
            peer.put(peer.sealer.seal([b"\x01 "]))
        await peer.answered()
        assert peer.statuses == [400]
        assert "64 bytes on average" in error_text(peer.records[0])

    run(scenario)


def test_a_client_that_goes_away_aborts_the_inference() -> None:
    async def scenario() -> None:
        session = GatedSession()
        gateway = Gateway([gated_model("add", session)])
        peer = Peer(gateway)
        peer.ask(*question(x=[1]))
        while gateway.scheduler.running == 0:
            await asyncio.sleep(0)
        peer.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await peer.task
        await asyncio.to_thread(lambda: session.gate.wait(0.5) or session.aborted)
        while gateway.scheduler.running:
            await asyncio.sleep(0)
        assert session.aborted
        assert gateway.log()[-1]["ending"] == "broken"
        assert gateway.count("confonnx_streams") == 0

    run(scenario)


def test_nothing_sealed_reaches_log_and_metrics(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        peer = Peer(gateway)
        peer.ask((f'{{"inputs":[{{"name":"{CANARY}"}}]}}'.encode(),))
        peer.ask((CANARY.encode(),))
        peer.put(peer.sealer.seal([b"\x30" + CANARY.encode().ljust(48)]))
        await peer.answered()
        out = gateway.lines.getvalue() + generate_latest(gateway.metrics.registry).decode()
        assert CANARY not in out

    run(scenario)
