"""The client's logic, through `Client` against a server in memory: what it sends, when, what it raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime

import numpy as np
import pytest

from confonnx import Client, errors
from confonnx.client.exchange import HttpRequest, HttpResponse
from confonnx.ohttp import bhttp
from confonnx.ohttp.padding import padme
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE, SESSION_RESPONSE_MEDIA_TYPE
from confonnx.oip import binary, messages
from confonnx.oip.datatypes import Datatype, TensorType
from confonnx.oip.limits import OipLimits
from tests.support.fake_server import BASE_URL, MEASUREMENT, PROBLEM, FakeModel, FakeServer, model, policy

INPUTS = {"a": [1.0, 2.0], "b": [3.0, 5.0]}
ATTEST, SEALED = "GET /attestation", "POST /ohttp"


def client_of(server: FakeServer, **options: object) -> Client:
    return Client(BASE_URL, transport=server, policy=policy(), **options)  # type: ignore[arg-type]


# ── one prediction ──────────────────────────────────────────────────────────────────────────────────


def test_a_prediction() -> None:
    server = FakeServer()
    client = client_of(server)
    assert client.attestation is None
    result = client.predict(INPUTS)
    assert {name: np.asarray(value).tolist() for name, value in result.items()} == {
        "sum": [4.0, 7.0],
        "product": [3.0, 10.0],
    }
    assert server.paths == [ATTEST, SEALED]
    assert client.attestation is not None
    assert client.attestation.claims.measurement == MEASUREMENT


def test_one_verification_serves_many_calls() -> None:
    server = FakeServer()
    client = client_of(server)
    for _ in range(3):
        client.predict(INPUTS)
    client.ready()
    client.models()
    client.server_metadata()
    assert server.paths == [ATTEST, *[SEALED] * 5]


def test_what_is_sealed_and_what_is_not() -> None:
    server = FakeServer(authorization="Bearer sealed-key")
    client_of(server, auth_key="sealed-key").predict(INPUTS, version="1")
    [inner] = server.opened
    assert (inner.method, inner.scheme, inner.authority) == ("POST", "http", "fake.example")
    assert inner.path == "/v2/models/add/versions/1/infer"
    assert inner.field("authorization") == "Bearer sealed-key"
    assert parsedate_to_datetime(inner.field("date") or "") == server.clock
    for outer in server.received:
        text = repr(outer.fields) + outer.path + str(bytes(outer.body))
        assert "sealed-key" not in text
        assert "authorization" not in text
    assert server.received[1].fields == (("content-type", SESSION_REQUEST_MEDIA_TYPE),)


def test_nonces_are_fresh_and_what_the_seal_binds_needs_no_id() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    client.predict(INPUTS)
    client.verify()
    nonces = [request.path for request in server.received if request.path.startswith("/attestation")]
    assert len(set(nonces)) == 2
    assert all(len(nonce.partition("=")[2]) == 43 for nonce in nonces)  # 32 bytes
    ids = [
        binary.parse_infer_request(
            inner.body,
            header_length=int(inner.field(binary.HEADER_LENGTH_FIELD) or ""),
            limits=OipLimits(),
        ).id
        for inner in server.opened
    ]
    assert ids == [None, None]


def test_requests_are_padded_unless_told_otherwise() -> None:
    padded, plain = FakeServer(), FakeServer()
    client_of(padded).predict(INPUTS)
    client_of(plain, dangerous_no_padding=True).predict(INPUTS)
    sizes = [len(server.received[-1].body) for server in (padded, plain)]
    overhead = 7 + 1120 + 8 + 16  # RFC 9458 §4.3 header, X-Wing enc, number in the session, AEAD tag
    assert sizes[0] - overhead == padme(sizes[1] - overhead) > sizes[1] - overhead


def test_chosen_outputs() -> None:
    server = FakeServer()
    assert list(client_of(server).predict(INPUTS, outputs=["product"])) == ["product"]


def test_several_models_must_be_named() -> None:
    server = FakeServer(models=[model("zeta"), model("add"), model("add", "10"), model("add", "9")])
    client = client_of(server)
    with pytest.raises(errors.ModelNotFoundError, match=r"model=.*add, zeta"):
        client.predict(INPUTS)
    client.predict(INPUTS, model="add")
    client.predict(INPUTS, model="add", version="9")
    client.predict(INPUTS, model="zeta")
    assert [inner.path for inner in server.opened] == [
        "/v2/models/add/versions/10/infer",
        "/v2/models/add/versions/9/infer",
        "/v2/models/zeta/versions/1/infer",
    ]
    with pytest.raises(errors.ModelNotFoundError, match="no model 'nu'"):
        client.predict(INPUTS, model="nu")
    with pytest.raises(errors.ModelNotFoundError, match="version '3'"):
        client.ready(model="add", version="3")
    assert len(server.opened) == 3


def test_only_models_that_the_policy_accepts() -> None:
    server = FakeServer(models=[model("good", digest="aa" * 32), model("bad", digest="bb" * 32)])
    client = Client(BASE_URL, transport=server, policy=policy("aa" * 32))
    client.predict(INPUTS)  # there is one accepted model, so it needs no name
    assert [description.name for description in client.models()] == ["good"]
    with pytest.raises(errors.ModelNotFoundError, match="does not accept its digest"):
        client.predict(INPUTS, model="bad")
    assert [inner.path for inner in server.opened] == ["/v2/models/good/versions/1/infer"]


def test_odd_model_names_are_escaped() -> None:
    server = FakeServer(models=[model("a b/ü?#%", "1/2")])
    assert client_of(server).predict(INPUTS).keys() == {"sum", "product"}
    assert server.opened[0].path == "/v2/models/a%20b%2F%C3%BC%3F%23%25/versions/1%2F2/infer"


def test_metadata_and_readiness() -> None:
    server = FakeServer()
    client = client_of(server)
    assert client.server_metadata().name == "confonnx"
    assert client.ready() is True
    assert client.ready(model="add") is True
    server.inner = lambda _: server.sealed(200, messages.encode_health(False))
    assert client.ready() is False
    assert [inner.path for inner in server.opened[:3]] == [
        "/v2",
        "/v2/health/ready",
        "/v2/models/add/versions/1/ready",
    ]


# ── nothing is sent to a server that was not verified ───────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    [
        {"enclave_hash": "0f" * 32, "allow_simulated": True, "dangerous_any_model": True},
        {"enclave_hash": MEASUREMENT.hex(), "allow_simulated": True, "enclave_model_hash": "bb" * 32},
        {"enclave_hash": MEASUREMENT.hex(), "dangerous_any_model": True},
    ],
    ids=["enclave hash", "model hash", "simulated"],
)
def test_a_wrong_server_gets_nothing(options: dict[str, object]) -> None:
    server = FakeServer()
    client = Client(BASE_URL, transport=server, auth_key="key", **options)  # type: ignore[arg-type]
    for call in (lambda: client.predict(INPUTS), client.verify, client.ready, client.models):
        with pytest.raises(errors.VerificationError):
            call()
    assert set(server.paths) == {ATTEST}
    assert client.attestation is None


def test_evidence_for_another_nonce_is_refused() -> None:
    server = FakeServer()
    old: list[HttpResponse] = []

    def replayed(request: HttpRequest) -> HttpResponse | None:
        if request.method == "GET" and not old:
            old.append(server._answer(request))
        return old[0] if request.method == "GET" else None

    server.outer = replayed
    client_of(server).predict(INPUTS)
    with pytest.raises(errors.BindingError, match="nonce"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST]


def test_a_failed_verification_forgets_the_keys() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    server.clock_ahead = timedelta(days=2)
    with pytest.raises(errors.VerificationError):
        client.verify()
    assert client.attestation is None
    with pytest.raises(errors.VerificationError):
        client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST, ATTEST]


def test_verify_attests_anew_and_traces_the_steps() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    first, steps = client.attestation, list[str]()
    second = client.verify(trace=lambda step: steps.append(step.id))
    assert client.attestation is second is not first
    assert server.paths == [ATTEST, SEALED, ATTEST]
    assert "binding.nonce" in steps


# ── keys that end, roll over or are gone ────────────────────────────────────────────────────────────


def test_keys_are_renewed_before_they_run_out() -> None:
    server = FakeServer()
    client = client_of(server)
    first = client.verify()
    server.clock = first.valid_until - timedelta(minutes=1, seconds=1)
    client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED]
    server.clock += timedelta(seconds=1)
    client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST, SEALED]
    assert client.attestation is not first


@pytest.mark.parametrize(
    "error", [errors.TransportError("no route"), errors.OverloadedError("busy", retry_after=3)]
)
def test_a_failed_early_renewal_does_not_fail_the_call(error: Exception) -> None:
    server = FakeServer()
    client = client_of(server)
    first = client.verify()
    server.clock = first.valid_until - timedelta(seconds=5)
    server.outer = lambda request: error if request.method == "GET" else None
    client.predict(INPUTS)
    assert client.attestation is first
    server.clock = first.valid_until
    with pytest.raises(type(error)):
        client.predict(INPUTS)
    assert server.paths == [ATTEST, ATTEST, SEALED, ATTEST]


def test_an_early_renewal_that_finds_another_server_fails_the_call() -> None:
    server = FakeServer()
    client = client_of(server)
    first = client.verify()
    server.clock = first.valid_until - timedelta(seconds=5)
    server.clock_ahead = timedelta(days=-3)
    with pytest.raises(errors.VerificationError):
        client.predict(INPUTS)
    assert server.paths == [ATTEST, ATTEST]


def test_keys_that_ran_out_are_not_used() -> None:
    server = FakeServer()
    client = client_of(server)
    first = client.verify()
    server.clock = first.valid_until
    client.predict(INPUTS)
    assert server.paths == [ATTEST, ATTEST, SEALED]


def test_a_clock_that_steps_back_does_not_stretch_the_life_of_keys() -> None:
    server = FakeServer()
    client = client_of(server)
    first = client.verify()
    server.clock = first.verified_at - timedelta(hours=2)
    server.clock_ahead = timedelta(hours=2)
    with pytest.raises(errors.PolicyError):  # by this clock the server's statement is from the future
        client.predict(INPUTS)
    assert server.paths == [ATTEST, ATTEST]


def test_a_rollover_in_mid_life_needs_no_new_attestation() -> None:
    server = FakeServer(lifetime=timedelta(hours=2))
    client = client_of(server)
    server.clock += timedelta(minutes=90)
    client.verify()
    epochs, ids = [], []
    for _ in range(3):
        client.predict(INPUTS)
        epochs.append(server.ring.epoch)
        ids.append(server.received[-1].body[0])  # RFC 9458 §4.3: the key identifier
        server.clock += timedelta(minutes=45)
    assert epochs == [0, 1, 1]
    assert len(set(ids)) == 2
    assert server.paths == [ATTEST, SEALED, SEALED, SEALED]


def test_keys_of_a_server_far_ahead_of_its_epoch_are_replaced() -> None:
    server = FakeServer(lifetime=timedelta(hours=1))
    client = client_of(server)
    client.predict(INPUTS)
    server.clock += timedelta(hours=5)
    client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST, SEALED]


@pytest.mark.parametrize("same_key_ids", [False, True])
def test_a_restarted_server_costs_one_attestation_and_one_retry(same_key_ids: bool) -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    first = client.attestation
    server.restart(same_key_ids=same_key_ids)
    assert client.predict(INPUTS).keys() == {"sum", "product"}
    assert server.paths == [ATTEST, SEALED, SEALED, ATTEST, SEALED]
    assert client.attestation is not first
    client.predict(INPUTS)
    assert server.paths[5:] == [SEALED]


def test_the_retry_is_sealed_anew() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    server.restart(same_key_ids=True)
    client.predict(INPUTS)
    bodies = [bytes(request.body) for request in server.received if request.method == "POST"]
    assert len(set(bodies)) == 3


def test_a_server_that_never_opens_is_given_up_after_one_retry() -> None:
    server = FakeServer()
    server.outer = lambda request: server.answer(400, PROBLEM, b"{}") if request.method == "POST" else None
    with pytest.raises(errors.EncapsulationError, match="share keys"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST, SEALED]


def test_a_restarted_server_that_is_another_one_gets_nothing_more() -> None:
    server = FakeServer(models=[model("add", digest="aa" * 32)])
    client = Client(BASE_URL, transport=server, policy=policy("aa" * 32))
    client.predict(INPUTS)
    server.restart(same_key_ids=True)
    server.models = [model("add", digest="bb" * 32)]
    with pytest.raises(errors.PolicyError):
        client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, SEALED, ATTEST]
    assert len(server.opened) == 1


def test_the_retry_looks_at_the_new_schema() -> None:
    server = FakeServer()
    client = client_of(server)
    client.predict(INPUTS)
    server.restart(same_key_ids=True)
    fresh = model("add")
    server.models = [FakeModel(replace(fresh.description, inputs=fresh.description.inputs[:1]), fresh.run)]
    with pytest.raises(errors.InvalidInputError, match="no input 'b'"):
        client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, SEALED, ATTEST]


# ── clocks ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_date_is_corrected_once_and_remembered() -> None:
    server = FakeServer(limits=replace(FakeServer().limits, replay_window=timedelta(seconds=10)))
    server.clock_ahead = timedelta(seconds=40)
    client = client_of(server)
    client.predict(INPUTS)
    client.predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, SEALED, SEALED]
    dates = [parsedate_to_datetime(inner.field("date") or "") - server.clock for inner in server.opened]
    assert dates == [timedelta(0), timedelta(seconds=40), timedelta(seconds=40)]


def test_the_date_is_of_the_moment_after_the_verification() -> None:
    server = FakeServer()

    def slow(request: HttpRequest) -> None:
        if request.method == "GET":
            server.clock += timedelta(minutes=3)  # more than the replay window

    server.outer = slow
    client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED]
    assert parsedate_to_datetime(server.opened[0].field("date") or "") == server.clock


def test_a_server_that_refuses_every_date() -> None:
    server = FakeServer()
    refusal = b'{"type":"https://iana.org/assignments/http-problem-types#date"}'
    server.inner = lambda _: server.sealed(400, refusal, ("content-type", PROBLEM))
    with pytest.raises(errors.ReplayError, match="clocks"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, SEALED]


@pytest.mark.parametrize(
    "date",
    [
        None,
        "yesterday",
        "Tue, 24 Nov 2026 12:00:00 -0000",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 26 Nov 2026 12:00:00 GMT",
    ],
)
def test_a_refused_date_without_a_credible_date_of_the_server(date: str | None) -> None:
    server = FakeServer()
    fields = [("content-type", PROBLEM), *([("date", date)] if date else [])]
    refusal = b'{"type":"https://iana.org/assignments/http-problem-types#date"}'
    server.inner = lambda _: bhttp.Response(400, tuple(fields), refusal)
    with pytest.raises(errors.ReplayError):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED]


def test_an_unsealed_date_problem_moves_no_clock() -> None:
    server = FakeServer()
    refusal = b'{"type":"https://iana.org/assignments/http-problem-types#date"}'
    date = ("date", "Tue, 24 Nov 2020 12:00:00 GMT")
    server.outer = lambda request: (
        server.answer(400, PROBLEM, refusal, date) if len(server.received) == 2 else None
    )
    client_of(server).predict(INPUTS)
    assert parsedate_to_datetime(server.opened[0].field("date") or "") == server.clock


# ── inputs and limits are checked before anything is sent ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"a": [1.0]}, "missing input 'b'"),
        ({"a": [1.0], "b": [1.0], "c": [1.0]}, "no input 'c'"),
        ({"a": [[1.0]], "b": [1.0]}, "input 'a'"),
        ({"a": ["x"], "b": [1.0]}, "input 'a'"),
    ],
)
def test_inputs_that_do_not_fit(inputs: dict[str, object], text: str) -> None:
    server = FakeServer()
    with pytest.raises(errors.InvalidInputError, match=text):
        client_of(server).predict(inputs)
    assert server.paths == [ATTEST]


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (["nope"], "no output 'nope'.*'sum', 'product'"),
        ([], "at least one"),
        (["sum", "sum"], "each once"),
        ("sum", "list of names"),
    ],
)
def test_outputs_that_the_model_lacks(outputs: list[str], text: str) -> None:
    server = FakeServer()
    with pytest.raises(errors.InvalidInputError, match=text):
        client_of(server).predict(INPUTS, outputs=outputs)
    assert server.paths == [ATTEST]


def test_requests_over_the_attested_limit() -> None:
    server = FakeServer()
    client_of(server).predict(INPUTS)
    size = len(server.received[-1].body)  # the limit is of sealed messages
    server.limits = replace(server.limits, max_request_bytes=size)
    client_of(server).predict(INPUTS)
    server.limits = replace(server.limits, max_request_bytes=size - 1)
    with pytest.raises(errors.TooLargeError, match=rf"limit of {size - 1} bytes, {size} found"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED, ATTEST, SEALED, ATTEST]


def test_answers_over_the_limits_are_not_read() -> None:
    server = FakeServer()
    server.limits = replace(server.limits, max_response_bytes=100)
    with pytest.raises(errors.TooLargeError, match="at most 100 bytes"):
        client_of(server).predict(INPUTS)
    server = FakeServer()
    with pytest.raises(errors.TooLargeError, match="at most 99 bytes"):
        client_of(server, max_response_bytes=99).predict(INPUTS)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_tampered_answer_is_an_error_and_not_retried(position: int) -> None:
    server = FakeServer()

    def tampered(request: HttpRequest) -> HttpResponse | None:
        if request.method == "GET":
            return None
        answer = server._answer(request)
        body = bytearray(answer.body)
        body[position] ^= 1
        return replace(answer, body=bytes(body))

    server.outer = tampered
    with pytest.raises(errors.EncapsulationError):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED]


@pytest.mark.parametrize("body", [b"", b"short"])
def test_an_answer_without_a_seal(body: bytes) -> None:
    server = FakeServer()
    server.outer = lambda request: (
        server.answer(200, SESSION_RESPONSE_MEDIA_TYPE, body) if request.method == "POST" else None
    )
    with pytest.raises(errors.EncapsulationError):
        client_of(server).predict(INPUTS)


def test_the_answer_to_another_request_does_not_open() -> None:
    server = FakeServer()
    kept: list[HttpResponse] = []

    def swapped(request: HttpRequest) -> HttpResponse | None:
        if request.method == "GET":
            return None
        kept.append(server._answer(request))
        return kept[0]

    server.outer = swapped
    client = client_of(server)
    client.predict(INPUTS)
    with pytest.raises(errors.EncapsulationError):
        client.predict(INPUTS)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (400, errors.InvalidInputError, "the reason"),
        (422, errors.InvalidInputError, "the reason"),
        (401, errors.AuthenticationError, "auth_key.*the reason"),
        (403, errors.AuthenticationError, "the reason"),
        (404, errors.ModelNotFoundError, "the reason"),
        (413, errors.TooLargeError, "the reason"),
        (429, errors.OverloadedError, "again in 7 s.*the reason"),
        (503, errors.OverloadedError, "again in 7 s.*the reason"),
        (500, errors.InferenceError, "the reason"),
        (504, errors.DeadlineExceededError, "the reason"),
        (418, errors.ServerError, "418.*the reason"),
        (501, errors.ServerError, "501.*the reason"),
        (204, errors.ServerError, "204.*the reason"),
    ],
)
def test_sealed_errors(status: int, error: type[errors.ConfonnxError], text: str) -> None:
    server = FakeServer()
    server.inner = lambda _: server.error(status, "the reason", ("retry-after", "7"))
    with pytest.raises(error, match=text) as caught:
        client_of(server).predict(INPUTS)
    assert type(caught.value) is error
    assert server.paths == [ATTEST, SEALED]
    if isinstance(caught.value, errors.OverloadedError):
        assert caught.value.retry_after == 7
    if isinstance(caught.value, errors.ServerError):
        assert caught.value.status == status


def test_a_server_error_outside_inference() -> None:
    server = FakeServer()
    server.inner = lambda _: server.sealed(500, b"no json")
    with pytest.raises(errors.ServerError, match="status 500 without an explanation"):
        client_of(server).server_metadata()


@pytest.mark.parametrize(
    "body", [b"[]", b'{"type":1}', b'{"type":"about:blank"}', b"\xff", b"[" * 10_000, b"x" * 20_000]
)
def test_other_sealed_problems_are_no_date_problem(body: bytes) -> None:
    server = FakeServer()
    server.inner = lambda _: server.sealed(400, body, ("content-type", PROBLEM))
    with pytest.raises(errors.InvalidInputError, match="without an explanation"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST, SEALED]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [(None, 1), ("5", 5), ("-5", 1), ("soon", 1), ("1e9", 1), ("9" * 9, 86400), ("9" * 50, 1), ("٣", 1)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_outer_overload(status: int, retry_after: str | None, seconds: int) -> None:
    server = FakeServer()
    fields = [("retry-after", retry_after)] if retry_after else []
    server.outer = lambda _: server.answer(status, "text/html", b"<html>", *fields)
    with pytest.raises(errors.OverloadedError, match=f"again in {seconds} s") as caught:
        client_of(server).predict(INPUTS)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("path", ["/attestation", "/ohttp"])
@pytest.mark.parametrize(
    ("status", "media_type", "error", "text"),
    [
        (401, "text/html", errors.AuthenticationError, "ingress_auth"),
        (403, "text/html", errors.AuthenticationError, "ingress_auth"),
        (407, "", errors.AuthenticationError, "no media type.*ingress_auth"),
        (404, "text/html", errors.NotConfonnxError, "status 404 and text/html.*path prefix"),
        (404, PROBLEM, errors.NotConfonnxError, "path prefix"),
        (200, "text/html", errors.NotConfonnxError, "status 200 and text/html, expected status 200"),
        (200, "", errors.NotConfonnxError, "no media type"),
        (204, "", errors.NotConfonnxError, "status 204"),
        (400, "text/html", errors.NotConfonnxError, "status 400 and text/html"),
        (301, "text/html", errors.NotConfonnxError, "redirects are not followed"),
        (308, "", errors.NotConfonnxError, "redirects are not followed"),
        (413, "text/html", errors.TooLargeError, "status 413"),
        (415, PROBLEM, errors.ServerError, "status 415"),
        (500, "text/html", errors.ServerError, "status 500"),
        (502, "text/html", errors.ServerError, "status 502"),
        (504, PROBLEM, errors.ServerError, "status 504"),
    ],
)
def test_outer_errors(
    path: str, status: int, media_type: str, error: type[errors.ConfonnxError], text: str
) -> None:
    server = FakeServer()
    server.outer = lambda request: (
        server.answer(status, media_type, b"CANARY", ("location", "http://CANARY"))
        if request.path.startswith(path)
        else None
    )
    with pytest.raises(error, match=text) as caught:
        client_of(server).predict(INPUTS)
    assert type(caught.value) is error
    assert path in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert server.paths == [ATTEST, SEALED][: len(server.paths)]


def test_a_problem_on_the_way_to_the_evidence_is_no_reason_to_ask_again() -> None:
    server = FakeServer()
    server.outer = lambda _: server.answer(400, PROBLEM, b"{}")
    with pytest.raises(errors.ServerError, match="status 400"):
        client_of(server).predict(INPUTS)
    assert server.paths == [ATTEST]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff" * 100])
def test_evidence_that_is_no_bundle(body: bytes) -> None:
    server = FakeServer()
    server.outer = lambda _: server.answer(200, "application/cmw+json", body)
    with pytest.raises(errors.BundleError):
        client_of(server).predict(INPUTS)


def test_transport_errors_pass_through() -> None:
    server = FakeServer()
    server.outer = lambda _: errors.TransportError("GET http://x: cannot connect: refused")
    with pytest.raises(errors.TransportError, match="refused"):
        client_of(server).predict(INPUTS)


# ── answers that are sealed but wrong ───────────────────────────────────────────────────────────────


def _respond(server: FakeServer, change: Callable[[messages.InferResponse], messages.InferResponse]) -> None:
    def inner(request: bhttp.Request) -> bhttp.Response:
        question = binary.parse_infer_request(
            request.body,
            header_length=int(request.field(binary.HEADER_LENGTH_FIELD) or ""),
            limits=OipLimits(),
        )
        vector = TensorType(Datatype.FP32, (1,))
        value = np.ones(1, np.float32)
        outputs = tuple(messages.InferOutput(name, vector, value) for name in ("sum", "product"))
        answer = change(messages.InferResponse("add", "1", outputs, id=question.id))
        encoded = binary.encode_infer_response(answer, replace(question, id=answer.id))
        length = str(encoded.header_length)
        return server.sealed(200, b"".join(encoded.parts), (binary.HEADER_LENGTH_FIELD, length))

    server.inner = inner


def _first_output(
    answer: messages.InferResponse, datatype: Datatype, shape: tuple[int, ...]
) -> messages.InferResponse:
    value = np.ones(shape, datatype.numpy_dtype)
    first = messages.InferOutput("sum", TensorType(datatype, shape), value)
    return replace(answer, outputs=(first, *answer.outputs[1:]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda answer: replace(answer, id="another"), "another request"),
        (lambda answer: replace(answer, model_name="other"), "another model"),
        (lambda answer: replace(answer, model_version="2"), "another model"),
        (lambda answer: replace(answer, outputs=answer.outputs[:1]), "expected the outputs"),
        (lambda answer: replace(answer, outputs=answer.outputs[1:]), "expected the outputs"),
        (lambda answer: _first_output(answer, Datatype.FP64, (1,)), "output 'sum'.*as attested"),
        (lambda answer: _first_output(answer, Datatype.FP32, (1, 1)), "output 'sum'.*as attested"),
        (lambda answer: _first_output(answer, Datatype.FP32, ()), "output 'sum'.*as attested"),
    ],
)
def test_answers_that_contradict_the_question_or_the_schema(
    change: Callable[[messages.InferResponse], messages.InferResponse], text: str
) -> None:
    server = FakeServer()
    _respond(server, change)
    with pytest.raises(errors.OipError, match=text):
        client_of(server).predict(INPUTS)


def test_an_answer_without_a_version_is_of_the_one_that_was_asked() -> None:
    server = FakeServer()
    _respond(server, lambda answer: replace(answer, model_version=None))
    assert client_of(server).predict(INPUTS).keys() == {"sum", "product"}


@pytest.mark.parametrize("length", ["", "-1", "x", "9" * 30])
def test_an_answer_with_a_header_length_that_is_no_number(length: str) -> None:
    server = FakeServer()
    server.inner = lambda _: server.sealed(200, b"{}", (binary.HEADER_LENGTH_FIELD, length))
    with pytest.raises(errors.OipError, match="no number"):
        client_of(server).predict(INPUTS)


def test_a_sealed_answer_that_is_no_json() -> None:
    server = FakeServer()
    server.inner = lambda _: server.sealed(200, b"nonsense")
    with pytest.raises(errors.OipError):
        client_of(server).predict(INPUTS)
    with pytest.raises(errors.OipError):
        client_of(server).server_metadata()
    with pytest.raises(errors.OipError):
        client_of(server).ready()
