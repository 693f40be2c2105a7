"""Streams through `Client`, against a server in memory: what goes when, what comes out, what raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

import numpy as np
import pytest

from confonnx import Client, errors
from confonnx.client import streams
from confonnx.ohttp.padding import padme
from confonnx.oip.records import HEAD_SIZE
from tests.support.fake_server import BASE_URL, PROBLEM, FakeServer, model, policy
from tests.support.fake_streams import Does, FakeStreamServer

ATTEST, STREAM = "GET /attestation", "POST /ohttp"


def client_of(server: FakeServer, **options: object) -> Client:
    return Client(BASE_URL, transport=server, policy=policy(), **options)  # type: ignore[arg-type]


def item(number: float) -> dict[str, object]:
    return {"a": [number], "b": [1.0]}


def answering(status: int, media_type: str, body: bytes) -> FakeStreamServer:
    """A server that attests, and answers everything else so."""
    server = FakeStreamServer()
    server.outer = lambda request: (
        server.answer(status, media_type, body) if request.method == "POST" else None
    )
    return server


def sums(results: Iterable[object]) -> list[object]:
    found: list[object] = []
    for result in results:
        if isinstance(result, errors.ConfonnxError):
            found.append(type(result).__name__)
        else:
            assert isinstance(result, dict)
            found.append(np.asarray(result["sum"]).tolist()[0])
    return found


class Counted:
    """Inputs 0, 1, 2 …, and how many of them were pulled."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pulled = 0

    def __iter__(self) -> Iterator[dict[str, object]]:
        for number in range(self.count):
            self.pulled += 1
            yield item(number)


# ── what goes when ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_answers_in_the_order_of_the_inputs(count: int, eager: bool) -> None:
    server = FakeStreamServer(eager=eager)
    assert sums(client_of(server).predict_stream(Counted(count))) == [n + 1.0 for n in range(count)]
    assert server.paths == [ATTEST, STREAM]
    assert server.streams[0].finished
    assert server.streams[0].closed


def test_no_inputs_no_request() -> None:
    server = FakeStreamServer()
    assert list(client_of(server).predict_stream([])) == []
    assert server.paths == []


def test_nothing_is_pulled_before_it_is_wanted() -> None:
    server, inputs = FakeStreamServer(), Counted(3)
    iterator = client_of(server).predict_stream(inputs)
    assert (inputs.pulled, server.paths) == (0, [])
    next(iterator)
    assert inputs.pulled == 1


@pytest.mark.parametrize("window", [1, 3, 8])
def test_no_more_inputs_are_pulled_than_may_be_unanswered(window: int) -> None:
    server, inputs = FakeStreamServer(eager=False), Counted(20)
    given = 0
    for _ in client_of(server).predict_stream(inputs, max_in_flight=window):
        assert inputs.pulled - given <= window
        assert given or inputs.pulled == window  # and not fewer
        given += 1
    assert given == 20


def test_each_input_may_depend_on_the_answer_before() -> None:
    last: list[float] = [1.0]

    def inputs() -> Iterator[Mapping[str, object]]:
        for _ in range(6):
            yield {"a": [last[-1]], "b": [last[-1]]}

    for result in client_of(FakeStreamServer(eager=False)).predict_stream(inputs(), max_in_flight=1):
        last.append(np.asarray(result["sum"]).tolist()[0])
    assert last == [1, 2, 4, 8, 16, 32, 64]


def test_an_array_may_be_used_again_for_the_next_input() -> None:
    array = np.zeros(1, np.float32)

    def inputs() -> Iterator[Mapping[str, object]]:
        for number in range(12):
            array[0] = number
            yield {"a": array, "b": array}

    results = client_of(FakeStreamServer(eager=False)).predict_stream(inputs())
    assert sums(results) == [2.0 * number for number in range(12)]


def test_outputs_model_and_version_are_those_asked_for() -> None:
    server = FakeStreamServer(models=[model("other", digest="bb" * 32), model("add", "2")])
    results = list(client_of(server).predict_stream([item(1)], model="add", version="2", outputs=["product"]))
    assert [list(result) for result in results] == [["product"]]
    assert server.opened[0].path == "/v2/models/add/versions/2/infer_stream"


def test_what_shows_on_the_way() -> None:
    server = FakeStreamServer(authorization="Bearer sealed-key")
    client = client_of(server, auth_key="sealed-key")
    list(client.predict_stream([{"a": [1.0] * n, "b": [1.0] * n} for n in (1, 60, 900)]))
    [outer] = [request for request in server.received if request.method == "POST"]
    assert outer.fields == (("content-type", "message/ohttp-chunked-req"), ("incremental", "?1"))
    assert (outer.accept, outer.body, outer.relayed) == ("message/ohttp-chunked-res", b"", False)
    head, *records, end = server.streams[0].chunks
    assert b"sealed-key" in head
    assert len(head) % 256 == 0
    for record in records:
        size = len(record) - (1 if len(record) < 65 else 2 if record[0] < 0x80 else 4)
        assert padme(size) == size
        assert size > HEAD_SIZE
    assert end == b"\0\0"


def test_a_head_is_a_multiple_of_256_bytes_whatever_the_name() -> None:
    for length in range(1, 257):
        server = FakeStreamServer(models=[model("m" * length)])
        next(client_of(server).predict_stream([item(1)]))
        assert len(server.streams[0].chunks[0]) % 256 == 0


def test_without_padding_sizes_are_what_they_are() -> None:
    server = FakeStreamServer()
    list(client_of(server, dangerous_no_padding=True).predict_stream([item(1)]))
    assert server.opened[0].field("padding") is None
    assert server.streams[0].chunks[1].endswith(server.bodies[0])


def test_through_a_relay() -> None:
    server = FakeStreamServer()
    list(client_of(server, relay="https://relay.example/r").predict_stream([item(1)]))
    assert [request.relayed for request in server.received if request.method == "POST"] == [True]


# ── the head ────────────────────────────────────────────────────────────────────────────────────────


def test_a_restarted_server_costs_one_attestation_and_no_input() -> None:
    server = FakeStreamServer()
    client = client_of(server)
    list(client.predict_stream([item(1)]))
    for same in (False, True):
        server.restart(same_key_ids=same)
        assert sums(client.predict_stream([item(1), item(2)])) == [2.0, 3.0]
        assert server.paths[-3:] == [STREAM, ATTEST, STREAM]
        refused = server.streams[-2]
        assert len(refused.sent) == 1  # the head
        assert refused.closed


def test_a_server_that_never_opens_is_given_up() -> None:
    server = answering(400, PROBLEM, b"{}")
    with pytest.raises(errors.EncapsulationError, match="cannot open"):
        list(client_of(server).predict_stream([item(1)]))
    assert server.paths == [ATTEST, STREAM, ATTEST, STREAM]


def test_the_clock_is_corrected_once() -> None:
    server = FakeStreamServer()
    client = client_of(server)
    client.verify()
    server.clock_ahead = timedelta(minutes=7)
    assert sums(client.predict_stream([item(1)])) == [2.0]
    assert server.paths == [ATTEST, STREAM, STREAM]


def test_a_server_that_keeps_refusing_the_date_is_given_up() -> None:
    server = FakeStreamServer()
    server.inner = lambda _: server.sealed(
        400, b'{"type":"https://iana.org/assignments/http-problem-types#date"}', ("content-type", PROBLEM)
    )
    with pytest.raises(errors.ReplayError):
        list(client_of(server).predict_stream([item(1)]))
    assert server.paths == [ATTEST, STREAM, STREAM]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, errors.AuthenticationError), (404, errors.ModelNotFoundError), (503, errors.OverloadedError)],
)
def test_a_sealed_refusal_raises_before_a_record_goes(status: int, kind: type[Exception]) -> None:
    server, inputs = FakeStreamServer(), Counted(5)
    server.inner = lambda _: server.error(status, "the reason")
    with pytest.raises(kind, match="the reason"):
        list(client_of(server).predict_stream(inputs))
    assert inputs.pulled == 1
    assert server.bodies == []
    assert server.streams[0].closed


def test_an_older_server_is_told_from_other_troubles() -> None:
    server = answering(415, PROBLEM, b"{}")
    with pytest.raises(errors.ServerError, match="takes no streams") as caught:
        list(client_of(server).predict_stream([item(1)]))
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (413, errors.TooLargeError),
        (503, errors.OverloadedError),
        (404, errors.NotConfonnxError),
        (500, errors.ServerError),
    ],
)
def test_outer_refusals(status: int, kind: type[Exception]) -> None:
    server = answering(status, "text/html", b"<CANARY>")
    with pytest.raises(kind) as caught:
        list(client_of(server).predict_stream([item(1)]))
    assert "CANARY" not in str(caught.value)


def test_a_long_refusal_is_not_read_to_its_end() -> None:
    server = FakeStreamServer()
    server.inner = lambda _: server.error(500, "x" * 70_000)
    with pytest.raises(errors.TooLargeError, match="refusal"):
        list(client_of(server).predict_stream([item(1)]))


# ── inputs and answers that fail ────────────────────────────────────────────────────────────────────


def test_a_bad_input_raises_in_its_turn_and_nothing_of_it_is_sent() -> None:
    server = FakeStreamServer(eager=False)
    inputs: list[Mapping[str, object]] = [item(0), item(1), {"a": [1.0]}, item(3)]
    results = client_of(server).predict_stream(inputs)
    assert sums([next(results), next(results)]) == [1.0, 2.0]
    with pytest.raises(errors.InvalidInputError, match="input 2 of the stream: "):
        next(results)
    assert len(server.bodies) == 2
    assert server.streams[0].closed


def test_a_bad_input_can_be_given_out_instead() -> None:
    server = FakeStreamServer(eager=False)
    inputs: list[Mapping[str, object]] = [{"a": [1.0]}, item(1), {"b": [1.0]}, {"c": [1.0]}, item(4)]
    results = client_of(server).predict_stream(inputs, return_errors=True)
    assert sums(results) == ["InvalidInputError", 2.0, "InvalidInputError", "InvalidInputError", 5.0]


def test_an_input_over_the_attested_limit() -> None:
    server = FakeStreamServer()
    large = {"a": np.zeros(1 << 18, np.float32), "b": np.zeros(1 << 18, np.float32)}
    with pytest.raises(errors.TooLargeError, match="input 0 of the stream"):
        list(client_of(server).predict_stream([large]))
    assert server.bodies == []


@pytest.mark.parametrize("eager", [True, False])
def test_a_prediction_that_fails_raises_in_its_turn(eager: bool) -> None:
    server = FakeStreamServer(plan={2: Does.FAIL}, eager=eager)
    results = client_of(server).predict_stream(Counted(5))
    assert sums([next(results), next(results)]) == [1.0, 2.0]
    with pytest.raises(errors.InferenceError, match="no luck with 2"):
        next(results)
    assert list(results) == []
    assert server.streams[0].closed


def test_a_prediction_that_fails_can_be_given_out_instead() -> None:
    server = FakeStreamServer(plan={1: Does.FAIL, 3: Does.FAIL})
    results = client_of(server).predict_stream(Counted(5), return_errors=True)
    assert sums(results) == [1.0, "InferenceError", 3.0, "InferenceError", 5.0]


def test_errors_of_the_iterator_are_the_callers_own() -> None:
    server = FakeStreamServer()

    def inputs() -> Iterator[Mapping[str, object]]:
        yield item(0)
        raise errors.TransportError("the caller's")

    results = client_of(server).predict_stream(inputs())
    next(results)
    with pytest.raises(errors.TransportError, match="the caller's"):
        next(results)
    assert server.streams[0].closed


def test_closing_the_iterator_closes_the_request() -> None:
    server = FakeStreamServer()
    results = client_of(server).predict_stream(Counted(5))
    next(results)
    assert not server.streams[0].closed
    results.close()  # type: ignore[attr-defined]
    assert server.streams[0].closed


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("does", "kind", "text"),
    [
        (Does.CUT, errors.EncapsulationError, "its sealed end is missing"),
        (Does.TAMPER, errors.EncapsulationError, "does not open"),
        (Does.BREAK, errors.TransportError, "broke"),
        (Does.TWICE, errors.OipError, "was not sent"),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_what_goes_wrong_on_the_way_is_an_error(
    does: Does, kind: type[Exception], text: str, eager: bool, last: bool
) -> None:
    server = FakeStreamServer(plan={3: does}, eager=eager)
    given: list[object] = []
    with pytest.raises(kind, match=text):
        given.extend(client_of(server).predict_stream(Counted(4 if last else 10)))
    assert server.streams[0].closed


def test_an_answer_in_the_final_chunk_is_one() -> None:
    server = FakeStreamServer(plan={3: Does.LATE}, eager=False)
    assert sums(client_of(server).predict_stream(Counted(4))) == [1.0, 2.0, 3.0, 4.0]


def test_an_error_that_no_input_caused_ends_the_stream() -> None:
    server = FakeStreamServer(plan={0: Does.SCOLD})
    results = client_of(server).predict_stream(Counted(3), return_errors=True)
    assert sums([next(results)]) == [1.0]
    with pytest.raises(errors.TooLargeError, match="too many"):
        next(results)


def test_an_answer_that_comes_with_the_head_is_an_error() -> None:
    with pytest.raises(errors.OipError, match="was not sent"):
        list(client_of(FakeStreamServer(premature=True)).predict_stream(Counted(3)))


def test_a_connection_that_cannot_be_written_while_several_answers_are_owed_is_an_error() -> None:
    server = FakeStreamServer(plan={3: Does.STOP}, eager=False)
    with pytest.raises(errors.TransportError):
        list(client_of(server).predict_stream(Counted(5)))
    assert len(server.streams) == 1


def test_every_answer_before_a_cut_was_given_out() -> None:
    server = FakeStreamServer(plan={3: Does.CUT})
    results = client_of(server).predict_stream(Counted(10))
    assert sums(next(results) for _ in range(3)) == [1.0, 2.0, 3.0]
    with pytest.raises(errors.EncapsulationError):
        next(results)


def test_an_end_with_answers_missing_is_an_error() -> None:
    server = FakeStreamServer(plan={1: Does.NOTHING}, eager=False)
    with pytest.raises((errors.ServerError, errors.OipError)):
        list(client_of(server).predict_stream(Counted(2)))


def test_an_end_that_leaves_several_inputs_without_an_answer() -> None:
    server = FakeStreamServer(plan={1: Does.END}, eager=False)
    with pytest.raises(errors.ServerError, match="left 2 inputs without an answer"):
        list(client_of(server).predict_stream(Counted(3)))


def test_an_end_before_the_last_input_was_answered_goes_on_with_it() -> None:
    server = FakeStreamServer(plan={2: Does.END})
    assert sums(client_of(server).predict_stream(Counted(5))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert server.paths == [ATTEST, STREAM, STREAM]


def test_a_connection_that_cannot_be_written_goes_on_with_the_last_input() -> None:
    server = FakeStreamServer(plan={2: Does.STOP})
    assert sums(client_of(server).predict_stream(Counted(5))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert server.paths == [ATTEST, STREAM, STREAM]


def test_a_server_that_ends_every_stream_at_once_is_given_up() -> None:
    server = FakeStreamServer(plan=dict.fromkeys(range(9), Does.END))
    with pytest.raises(errors.ServerError, match="keeps ending"):
        list(client_of(server).predict_stream(Counted(3)))
    assert len(server.streams) == 2


@pytest.mark.parametrize("eager", [True, False])
def test_a_notice_moves_what_follows_to_another_request(eager: bool) -> None:
    server = FakeStreamServer(plan={2: Does.NOTICE, 5: Does.NOTICE}, eager=eager)
    assert sums(client_of(server).predict_stream(Counted(12))) == [n + 1.0 for n in range(12)]
    assert len(server.streams) == 3 if eager else 2
    assert all(stream.finished for stream in server.streams)


def test_keys_that_run_out_end_a_request_and_not_the_stream() -> None:
    server = FakeStreamServer()

    def inputs() -> Iterator[Mapping[str, object]]:
        for number in range(6):
            if number in (2, 4):
                server.clock += timedelta(hours=23)
            yield item(number)

    assert sums(client_of(server).predict_stream(inputs())) == [n + 1.0 for n in range(6)]
    assert len(server.streams) == 3
    assert server.paths.count(ATTEST) > 1


def test_an_old_request_is_followed_by_another() -> None:
    server = FakeStreamServer()

    def inputs() -> Iterator[Mapping[str, object]]:
        for number in range(3):
            yield item(number)
            server.clock += streams.MAX_AGE

    assert sums(client_of(server).predict_stream(inputs())) == [1.0, 2.0, 3.0]
    assert len(server.streams) == 3


def test_the_number_of_records_of_a_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_RECORDS", 2)
    server = FakeStreamServer(eager=False)
    assert sums(client_of(server).predict_stream(Counted(5))) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [len(stream.chunks) for stream in server.streams] == [4, 4, 3]


def test_a_request_that_broke_while_nothing_was_owed_is_followed_by_another() -> None:
    server = FakeStreamServer()
    results = client_of(server).predict_stream(Counted(3))
    next(results)
    server.streams[0].broken = errors.TransportError("idle for too long")
    assert sums(results) == [2.0, 3.0]
    assert len(server.streams) == 2


def test_a_body_that_ended_while_nothing_was_owed_is_followed_by_another() -> None:
    server = FakeStreamServer()
    results = client_of(server).predict_stream(Counted(3))
    next(results)
    server.streams[0].ended = True
    assert sums(results) == [2.0, 3.0]
    assert len(server.streams) == 2


# ── options ─────────────────────────────────────────────────────────────────────────────────────────


def test_options_are_checked_at_once() -> None:
    client = client_of(FakeStreamServer())
    with pytest.raises(errors.ConfigurationError, match="max_in_flight"):
        client.predict_stream([], max_in_flight=0)
    with pytest.raises(errors.ConfigurationError, match="timeout"):
        client.predict_stream([], timeout=-1)
    client.close()
    with pytest.raises(errors.ConfigurationError, match="closed"):
        client.predict_stream([])


def test_a_transport_without_streams() -> None:
    with pytest.raises(errors.ConfigurationError, match="FakeServer carries no streams"):
        client_of(FakeServer()).predict_stream([])
