"""The application: outer routes, what opens and what does not, replays, dates, credentials, no leak."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from prometheus_client import generate_latest

from confonnx.attestation import base64url
from confonnx.attestation.bundle import parse_bundle
from confonnx.attestation.statement import parse_statement, report_data
from confonnx.attestation.verify.simulated import verify as verify_simulated
from confonnx.errors import TeeError
from confonnx.ohttp.key_config import parse_key_configs
from confonnx.runtime.registry import LoadedModel
from confonnx.server.auth import hash_credential, parse_credentials
from tests.unit.server.harness import (
    START,
    WINDOW,
    GatedSession,
    Gateway,
    error_of,
    gated_model,
    real_models,
    run,
)

CANARY = "canary-5b1e"
KEY = "an api key of some length"
CREDENTIALS = parse_credentials(
    "\n".join([hash_credential("one", KEY, basic=False), hash_credential("alice", "pass:word", basic=True)]),
    source="test",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    return real_models(tmp_path_factory.mktemp("models"))


def gated() -> list[LoadedModel]:
    return [gated_model("slow", GatedSession())]


@pytest.mark.parametrize(
    ("target", "method", "status", "content"),
    [
        ("/", "GET", 200, b"Healthy"),
        ("/", "HEAD", 200, b"Healthy"),
        ("/healthz", "GET", 200, b"ok"),
        ("/readyz", "GET", 200, b"ready"),
        ("/nothing", "GET", 404, None),
        ("/ohttp/", "GET", 404, None),
        ("//ohttp", "POST", 404, None),
        ("/v2/models/slow/infer", "POST", 404, None),  # nothing bypasses the seal
        ("/v2", "GET", 404, None),
        ("/metrics", "GET", 404, None),
        ("*", "OPTIONS", 404, None),
        ("/", "POST", 405, None),
        ("/attestation", "POST", 405, None),
        ("/ohttp", "PUT", 405, None),
    ],
)
def test_outer_routes(target: str, method: str, status: int, content: bytes | None) -> None:
    async def scenario() -> None:
        response = await Gateway(gated()).get(target, method)
        assert response.status == status
        if content is not None:
            assert b"".join(response.body) == content
        else:
            assert response.fields["content-type"] == "application/problem+json"
            assert set(json.loads(b"".join(response.body))) == {"type", "title", "status"}
        assert (response.status == 405) == ("allow" in response.fields)

    run(scenario)


@pytest.mark.parametrize(
    ("target", "status"),
    [("/", 200), ("/mymodel", 200), ("/mymodel/", 200), ("/mymodel/healthz", 200), ("/healthz", 200),
     ("/mymodelx", 404), ("/mymodel/mymodel", 404), ("/mymodel/ohttp", 200)],
)  # fmt: skip
def test_url_prefix_is_served_with_and_without(target: str, status: int) -> None:
    async def scenario() -> None:
        assert (await Gateway(gated(), url_prefix="/mymodel").get(target)).status == status

    run(scenario)


def test_not_ready_while_draining() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), ready=False)
        assert (await gateway.get("/readyz")).status == 503
        assert (await gateway.get("/healthz")).status == 200
        assert json.loads(bytes((await gateway.ask("/v2/health/ready")).body)) == {
            "live": False,
            "ready": False,
        }

    run(scenario)


def test_only_possible_sealed_requests_have_their_body_read() -> None:
    async def scenario() -> None:
        app = Gateway(gated(), url_prefix="/m").app
        assert app.wants_body("POST", "/ohttp")
        assert app.wants_body("POST", "/m/.well-known/ohttp-gateway")
        assert not app.wants_body("PUT", "/ohttp")
        assert not app.wants_body("POST", "/")

    run(scenario)


def test_request_id_is_the_ingress_one_if_it_is_plain() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        assert (await gateway.get("/", x_request_id="abc-1.2_3")).fields["x-request-id"] == "abc-1.2_3"
        for bad in ("", "a b", "x" * 65, 'a"b', "a\x1b[0m"):
            assert (await gateway.get("/", x_request_id=bad)).fields["x-request-id"] != bad
        assert gateway.log()[0]["request_id"] == "abc-1.2_3"

    run(scenario)


def test_key_configurations_are_those_of_the_current_epoch() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        for path in ("/ohttp", "/.well-known/ohttp-gateway"):
            response = await gateway.get(path)
            assert response.fields["content-type"] == "application/ohttp-keys"
            configs = parse_key_configs(b"".join(response.body))
            attested = gateway.ring.attested_keys(gateway.now)
            assert configs == tuple(key.config for key in attested if key.epoch == gateway.ring.epoch)

    run(scenario)


def test_attestation_binds_nonce_keys_models_and_limits() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), CREDENTIALS)
        nonce = bytes(range(32))
        response = await gateway.get(f"/attestation?nonce={base64url.encode(nonce)}")
        assert (response.status, response.fields["content-type"]) == (200, "application/cmw+json")
        bundle = parse_bundle(b"".join(response.body))
        claims = verify_simulated(bundle.evidence)
        assert claims.report_data == report_data(bundle.statement)
        statement = parse_statement(bundle.statement)
        assert statement.nonce == nonce
        assert statement.keys == gateway.ring.attested_keys(gateway.now)
        assert [model.name for model in statement.models] == ["slow"]
        assert statement.authentication == ("basic", "bearer")
        assert statement.limits.replay_window == WINDOW
        assert statement.issued_at == START

    run(scenario)


def test_attestation_without_nonce_is_kept_for_an_epoch() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), attestations=1)
        first = (await gateway.get("/attestation")).body
        gateway.now += timedelta(hours=1)
        for _ in range(3):
            assert (await gateway.get("/attestation")).body == first
        gateway.now += timedelta(hours=24)
        second = (await gateway.get("/attestation")).body
        assert second != first
        assert parse_statement(parse_bundle(b"".join(second)).statement).keys[0].epoch == 1

    run(scenario)


@pytest.mark.parametrize(
    "query",
    ["nonce=", "nonce=AAAA", "nonce=" + "A" * 200, "nonce=" + "A" * 21 + "B", "nonce=" + "A" * 32 + "==",
     "other=" + "A" * 32, "nonce=" + "A" * 32 + "&x=1", "nonce"],
)  # fmt: skip
def test_attestation_refuses_malformed_nonces(query: str) -> None:
    async def scenario() -> None:
        response = await Gateway(gated()).get(f"/attestation?{query}")
        assert response.status == 400
        assert query.encode() not in b"".join(response.body)

    run(scenario)


def test_fresh_attestations_are_limited_and_the_limit_passes() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), attestations=2)
        target = f"/attestation?nonce={base64url.encode(bytes(16))}"
        assert [(await gateway.get(target)).status for _ in range(3)] == [200, 200, 429]
        assert (await gateway.get(target)).fields["retry-after"] == "1"
        gateway.now += timedelta(seconds=1)
        assert (await gateway.get(target)).status == 200
        assert gateway.count("confonnx_attestations_total", outcome="overloaded") == 2

    run(scenario)


def test_failing_device_is_503_and_logged() -> None:
    class Broken:
        tee = "simulated"
        evidence_type = "x/y"

        def collect(self, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
            raise TeeError("the device is gone")

    async def scenario() -> None:
        gateway = Gateway(gated(), attester=Broken())
        assert (await gateway.get("/attestation")).status == 503
        assert gateway.log()[0]["reason"] == "the device is gone"

    run(scenario)


@pytest.mark.parametrize("target", ["/attestation", f"/attestation?nonce={'A' * 43}", "/ohttp"])
def test_a_clock_that_jumped_further_than_the_key_ring_follows_is_503_and_logged(target: str) -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        gateway.now += timedelta(days=1_500_000)
        response = await gateway.get(target)
        assert (response.status, response.fields["retry-after"]) == (503, "5")
        assert "correct the clock" in str(gateway.log()[0]["reason"])
        gateway.now -= timedelta(days=1_500_000)  # corrected: the ring is as it was
        assert (await gateway.get("/ohttp")).status == 200

    run(scenario)


def test_sealed_request_is_answered_sealed_on_both_gateways(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models)
        for target in ("/ohttp", "/.well-known/ohttp-gateway"):
            message, opener = gateway.seal("/v2/models")
            response = gateway.open(await gateway.post(message, target), opener)
            assert response.status == 200
            assert response.field("date") == gateway.date()
            assert json.loads(bytes(response.body)) == {"models": ["add", "picky", "text"]}

    run(scenario)


def test_every_key_of_the_ring_opens_and_the_previous_epoch_until_its_grace_ends() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        message, opener = gateway.seal(date=gateway.date(timedelta(hours=24)))
        late, _ = gateway.seal(date=gateway.date(timedelta(hours=25, minutes=1)))
        config = gateway.ring.attested_keys(gateway.now)[0].config
        assert config.key_id not in (message[0], late[0])  # both are sealed to the next epoch
        gateway.now += timedelta(hours=24)
        assert gateway.ring.advance(gateway.now)
        assert gateway.open(await gateway.post(message), opener).status == 200
        gateway.now += timedelta(hours=25)
        gateway.ring.advance(gateway.now)
        assert (await gateway.post(late)).status == 400

    run(scenario)


def test_wrong_media_type_is_415() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        message, _ = gateway.seal()
        for media_type in ("application/json", "", "message/ohttp-res", "message/ohttp-chunked-req"):
            assert (await gateway.post(message, content_type=media_type)).status == 415
        assert (await gateway.post(message, content_type="Message/OHTTP-req; x=y")).status == 200

    run(scenario)


def test_unknown_key_has_its_problem_type() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        message, _ = gateway.seal()
        used = {key.config.key_id for key in gateway.ring.attested_keys(gateway.now)}
        unknown = next(number for number in range(256) if number not in used)
        response = await gateway.post(bytes([unknown]) + message[1:])
        assert response.status == 400
        problem = json.loads(b"".join(response.body))
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#ohttp-key"

    run(scenario)


def test_whatever_does_not_open_gets_one_answer() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        message, _ = gateway.seal()
        assert (await gateway.post(message)).status == 200
        broken = {
            "replay": message,
            "flipped tag": message[:-1] + bytes([message[-1] ^ 1]),
            "flipped enc": message[:8] + bytes([message[8] ^ 1]) + message[9:],
            "other kdf": message[:3] + b"\x00\x09" + message[5:],
            "other aead": message[:5] + b"\x00\x02" + message[7:],
            "other kem": message[:1] + b"\x00\x10" + message[3:],
            "cut in ct": message[:-20],
            "cut in enc": message[:20],
            "header alone": message[:7],
            "cut in header": message[:3],
            "empty": b"",
            "trailing byte": message + b"\0",
        }
        answers = {}
        for name, bad in broken.items():
            response = await gateway.post(bad, x_request_id="same")
            answers[name] = (response.status, dict(response.fields), b"".join(response.body))
        assert len({repr(answer) for answer in answers.values()}) == 1, answers
        assert answers["replay"][0] == 400
        assert json.loads(answers["replay"][2])["type"] == "about:blank"
        assert gateway.count("confonnx_unopened_total", reason="replayed") == 1

    run(scenario)


def test_replay_stays_refused_until_its_date_is_outside_the_window() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        message, _ = gateway.seal(date=gateway.date(WINDOW))  # the latest date that is accepted
        second, opener = gateway.seal()
        assert (await gateway.post(message)).status == 200
        for _ in range(4):
            assert (await gateway.post(message)).status == 400
            gateway.now += timedelta(seconds=59)
        gateway.now += timedelta(seconds=10)
        third, opener = gateway.seal()
        assert gateway.open(await gateway.post(third), opener).status == 200
        assert (await gateway.post(second)).status == 200  # the sealed #date problem: opened, not served

    run(scenario)


@pytest.mark.parametrize(
    "date",
    [None, "", "yesterday", "Tue, 24 Nov 2026 12:00:00", "2026-11-24T12:00:00Z",
     "Tue, 31 Feb 2026 12:00:00 GMT", "offset+121", "offset-121"],
)  # fmt: skip
def test_date_problem_is_sealed_and_carries_the_servers_date(date: str | None) -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), CREDENTIALS)
        if date is not None and date.startswith("offset"):
            response = await gateway.ask(date=gateway.date(timedelta(seconds=int(date[6:]))))
        else:
            response = await gateway.ask(date=date)
        assert response.status == 400
        assert response.field("content-type") == "application/problem+json"
        problem = json.loads(bytes(response.body))
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#date"
        assert response.field("date") == gateway.date()
        assert gateway.count("confonnx_requests_total", model="", version="", outcome="stale") == 1

    run(scenario)


@pytest.mark.parametrize("seconds", [-120, 120])
def test_dates_at_the_edge_of_the_window_are_accepted(seconds: int) -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        assert (await gateway.ask(date=gateway.date(timedelta(seconds=seconds)))).status == 200

    run(scenario)


def test_full_replay_cache_refuses_sealed_and_recovers() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), capacity=2)
        assert [(await gateway.ask()).status for _ in range(3)] == [200, 200, 503]
        refused = await gateway.ask()
        assert refused.field("retry-after") is not None
        gateway.now += WINDOW + timedelta(seconds=20)
        assert (await gateway.ask()).status == 200

    run(scenario)


def test_malformed_binary_http_is_a_sealed_400() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        for plaintext in (b"", b"\x01", b"\x09abc", b"\x00\x03GET", CANARY.encode()):
            message, opener = gateway.seal_bytes(plaintext)
            response = gateway.open(await gateway.post(message), opener)
            assert response.status == 400
            assert CANARY not in error_of(response)

    run(scenario)


def test_content_coding_inside_is_a_sealed_415() -> None:
    async def scenario() -> None:
        response = await Gateway(gated()).ask(fields=(("content-encoding", "gzip"),))
        assert response.status == 415
        assert "content-encoding" in error_of(response)

    run(scenario)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"Bearer {KEY}x", 401),
        ("Bearer", 401),
        (f"Basic {KEY}", 401),
        ("Basic YWxpY2U6cGFzczp3b3Jk", 200),  # alice:pass:word
        ("Basic YWxpY2U6cGFzcw==", 401),  # alice:pass
        ("Basic Ym9iOnBhc3M6d29yZA==", 401),  # bob:pass:word
        ("Basic YWxpY2U=", 401),  # alice
        ("Basic ????", 401),
        ("Digest x", 401),
    ],
)
def test_credentials_inside_the_seal(authorization: str | None, status: int) -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), CREDENTIALS)
        fields = () if authorization is None else (("authorization", authorization),)
        response = await gateway.ask(fields=fields)
        assert response.status == status
        if status == 401:
            challenge = response.field("www-authenticate") or ""
            assert challenge == 'Basic realm="confonnx", charset="UTF-8", Bearer realm="confonnx"'
            assert KEY not in error_of(response)

    run(scenario)


def test_outer_fields_never_steer_the_inner_request() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated(), CREDENTIALS)
        message, opener = gateway.seal()
        response = await gateway.post(
            message,
            authorization=f"Bearer {KEY}",
            date=gateway.date(),
            x_original_url="/v2",
            content_encoding="",
        )
        assert gateway.open(response, opener).status == 401
        message, opener = gateway.seal(date=None, fields=(("authorization", f"Bearer {KEY}"),))
        response = await gateway.post(message, date=gateway.date())
        assert gateway.open(response, opener).status == 400

    run(scenario)


@pytest.mark.parametrize("pad", [True, False])
def test_padding_hides_small_differences_of_length(models: list[LoadedModel], pad: bool) -> None:
    async def scenario() -> None:
        gateway = Gateway(models, pad=pad)
        sizes = set()
        for path in ("/v2/models/addd", "/v2/models/adddd", "/v2/models/addddd"):
            message, _ = gateway.seal(path)
            sizes.add(len(b"".join((await gateway.post(message)).body)))
        assert (len(sizes) == 1) == pad

    run(scenario)


def test_answer_over_the_limit_becomes_a_sealed_413(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        response = await Gateway(models, max_response_bytes=300).ask("/v2/models/add")
        assert response.status == 413
        assert "300" in error_of(response)

    run(scenario)


def test_unexpected_error_is_sealed_without_its_text_and_logged_by_place() -> None:
    async def scenario() -> None:
        gateway = Gateway([gated_model("bad", GatedSession(error=ValueError(CANARY)))])
        response = await gateway.infer("bad", {"x": [1.0]})
        assert response.status == 500
        entry = next(item for item in gateway.log() if item["event"] == "internal error")
        assert entry["error_id"] in error_of(response)
        assert entry["exception"] == "ValueError"
        assert any("harness.py" in place for place in entry["frames"])
        assert CANARY not in gateway.lines.getvalue() + error_of(response)

    run(scenario)


def test_unexpected_outer_error_is_an_empty_500() -> None:
    class Broken:
        tee = "simulated"
        evidence_type = "x/y"

        def collect(self, report_data: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
            raise LookupError(CANARY)

    async def scenario() -> None:
        gateway = Gateway(gated(), attester=Broken())
        response = await gateway.get("/attestation")
        assert response.status == 500
        assert CANARY not in gateway.lines.getvalue() + b"".join(response.body).decode()

    run(scenario)


def test_nothing_sealed_reaches_log_metrics_or_outer_answers(models: list[LoadedModel]) -> None:
    async def scenario() -> None:
        gateway = Gateway(models, CREDENTIALS)
        outside = []
        key = (("authorization", f"Bearer {KEY}"), ("x-secret", CANARY))
        for path, method, fields, body in (
            (f"/v2/models/{CANARY}", "GET", key, b""),
            ("/v2/models/add/infer", "POST", key, CANARY.encode()),
            (f"/{CANARY}", "DELETE", key, b""),
            ("/v2", "GET", (("authorization", f"Bearer {CANARY}"),), b""),
            ("/v2", "GET", (("authorization", f"Basic {CANARY}"),), b""),
            ("/v2/models/add/infer", "POST", (*key, ("inference-header-content-length", CANARY)), b""),
        ):
            message, opener = gateway.seal(path, method=method, fields=fields, body=body)
            response = await gateway.post(message)
            assert gateway.open(response, opener).status >= 400
            outside.append(repr(response))
        text = (
            gateway.lines.getvalue() + "".join(outside) + generate_latest(gateway.metrics.registry).decode()
        )
        assert CANARY not in text
        assert KEY not in text

    run(scenario)


def test_requests_are_logged_by_route_and_status_alone() -> None:
    async def scenario() -> None:
        gateway = Gateway(gated())
        await gateway.get(f"/{CANARY}?{CANARY}")
        await gateway.ask()
        refused, answered = gateway.log()
        assert (refused["event"], refused["route"], refused["status"]) == ("request refused", "unknown", 404)
        assert (answered["event"], answered["route"], answered["status"]) == ("request", "gateway", 200)
        expected = {"event", "level", "timestamp", "request_id", "route", "status", "milliseconds"}
        assert set(refused) == set(answered) == expected
        assert CANARY not in gateway.lines.getvalue()

    run(scenario)
