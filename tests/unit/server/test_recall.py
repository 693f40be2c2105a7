"""What a session remembers of its requests: answers are the same as without a memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from confonnx.ohttp import bhttp
from confonnx.ohttp.session import SESSION_REQUEST_MEDIA_TYPE, SenderSession
from confonnx.oip import binary
from confonnx.oip.datatypes import Array, Datatype, TensorType
from confonnx.oip.messages import InferInput, InferRequest, RequestedOutput
from confonnx.server.auth import load_credentials
from confonnx.server.recall import Prediction, Recall
from tests.unit.server.harness import Gateway, error_of, real_models, run, values

ONES = np.ones(6, np.float32)


@dataclass
class Asker:
    """A client's session, which sends predictions to ``add`` (a, b → sum)."""

    gateway: Gateway

    def __post_init__(self) -> None:
        self.sender = SenderSession(self.gateway.ring.attested_keys(self.gateway.now)[0].config)

    async def post(self, path: str, encoded: binary.Encoded, *fields: tuple[str, str]) -> bhttp.Response:
        named = [("date", self.gateway.date()), ("content-type", encoded.content_type), *fields]
        if encoded.header_length is not None:
            named.append((binary.HEADER_LENGTH_FIELD, str(encoded.header_length)))
        request = bhttp.Request("POST", "https", "x", path, tuple(named))
        found = self.sender.seal(bhttp.encode_request(request, encoded.parts))
        assert found is not None
        message, opener = found
        answer = await self.gateway.post(bytes(message), content_type=SESSION_REQUEST_MEDIA_TYPE)
        assert answer.status == 200
        return bhttp.parse_response(opener.open(b"".join(answer.body)))

    async def add(self, a: Array, b: Array, *, path: str = "/v2/models/add/infer", **given: Any) -> Any:
        answer = await self.post(path, encode({"a": a, "b": b}, **given))
        assert answer.status == 200, error_of(answer)
        return values(answer)["sum"]

    @property
    def recall(self) -> Recall:
        [session] = self.gateway.app._sessions._sessions.values()
        return session.recall

    @property
    def predictions(self) -> list[Prediction]:
        return list(self.recall._predictions.values())


def encode(
    arrays: dict[str, Array],
    *,
    outputs: Sequence[RequestedOutput] = (),
    name: str | None = None,
    **form: bool,
) -> binary.Encoded:
    inputs = tuple(
        InferInput(key, TensorType(Datatype.from_numpy(array.dtype), array.shape), array)
        for key, array in arrays.items()
    )
    return binary.encode_infer_request(InferRequest(inputs, tuple(outputs), id=name), **form)


@pytest.fixture(name="gateway", scope="module")
def gateway_fixture(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    directory: Path = tmp_path_factory.mktemp("models")
    return list(real_models(directory))


def test_tensors_change_and_answers_follow(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        known = set()
        for number in range(5):
            result = await asker.add(number * ONES, ONES)
            np.testing.assert_array_equal(result, number * ONES + 1)
            known.add(id(asker.predictions[0]))
        assert len(known) == len(asker.predictions) == 1
        assert asker.gateway.count("confonnx_requests_total", model="add", version="1", outcome="ok") == 5
        assert asker.gateway.count("confonnx_inference_duration_seconds_count") == 5

    run(scenario)


@pytest.mark.parametrize(("size", "queued"), [(200_000, 1), (600_000, 3)])
def test_large_requests_are_parsed_once_and_run_inline_where_that_is_short(
    gateway: list[Any], size: int, queued: int
) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway, max_response_bytes=8 << 20))
        known = set()
        for number in range(3):
            large = np.arange(number, number + size, dtype=np.float32)
            np.testing.assert_array_equal(await asker.add(large, large), large + large)
            known.add(id(asker.predictions[0]))
        assert len(known) == len(asker.predictions) == 1
        # The first one is parsed on the pool, where it runs too.
        assert asker.gateway.count("confonnx_queue_duration_seconds_count") == queued

    run(scenario)


def test_whatever_else_changes_is_seen(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        await asker.add(ONES, ONES)
        for a, b in ((ONES[:1], ONES[:1]), (ONES[:4], ONES[:4]), (ONES, ONES)):
            result = await asker.add(a, 2 * b)
            assert result.shape == a.shape
            np.testing.assert_array_equal(result, a + 2 * b)
        # Another form of the answer, another id, a JSON request, an explicit version.
        answer = await asker.post("/v2/models/add/infer", encode({"a": ONES, "b": ONES}, name="q7"))
        assert b'"q7"' in bytes(answer.body)
        outputs = [RequestedOutput("sum", binary=False)]
        answer = await asker.post("/v2/models/add/infer", encode({"a": ONES, "b": ONES}, outputs=outputs))
        assert answer.field("content-type") == "application/json"
        np.testing.assert_array_equal(await asker.add(ONES, ONES, binary=False), 2 * ONES)
        path = "/v2/models/add/versions/1/infer"
        np.testing.assert_array_equal(await asker.add(ONES, ONES, path=path), 2 * ONES)
        # Another model, one that does not exist, another method: under the same JSON header.
        for path in ("/v2/models/picky/infer", "/v2/models/none/infer", "/v2/models/add"):
            answer = await asker.post(path, encode({"a": ONES, "b": ONES}))
            assert answer.status in (400, 404, 405), path
        np.testing.assert_array_equal(await asker.add(ONES, ONES), 2 * ONES)

    run(scenario)


def test_an_error_of_a_repeated_request_is_an_answer_of_its_own(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        statuses = []
        for size in (4, 4, 3, 3, 4):  # ``picky`` fails for any size but 3
            answer = await asker.post("/v2/models/picky/infer", encode({"x": ONES[:size]}))
            statuses.append(answer.status)
        assert statuses == [500, 500, 200, 200, 500]
        assert (
            asker.gateway.count("confonnx_requests_total", model="picky", version="1", outcome="failed") == 3
        )

    run(scenario)


def test_sizes_are_checked_in_every_request(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        good = encode({"a": ONES, "b": ONES})
        await asker.post("/v2/models/add/infer", good)
        bad = binary.Encoded(good.content_type, good.header_length, (b"".join(good.parts)[:-4],))
        answer = await asker.post("/v2/models/add/infer", bad)
        assert answer.status == 400
        assert "binary_data_size" in error_of(answer)

    run(scenario)


def test_dates_and_credentials_are_checked_in_every_request(gateway: list[Any]) -> None:
    async def scenario() -> None:
        server = Gateway(gateway, credentials=load_credentials(auth_key="k" * 20, auth_file=None))
        asker, encoded = Asker(server), encode({"a": ONES, "b": ONES})
        right = ("authorization", "Bearer " + "k" * 20)
        assert (await asker.post("/v2/models/add/infer", encoded, right)).status == 200
        assert (await asker.post("/v2/models/add/infer", encoded)).status == 401
        wrong = ("authorization", "Bearer " + "j" * 20)
        assert (await asker.post("/v2/models/add/infer", encoded, wrong)).status == 401
        assert (await asker.post("/v2/models/add/infer", encoded, right)).status == 200
        date = server.date
        server.date = lambda: date(timedelta(minutes=-10))  # type: ignore[method-assign,misc,assignment]
        assert (await asker.post("/v2/models/add/infer", encoded, right)).status == 400

    run(scenario)


def test_answers_carry_the_date_of_their_second(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        dates = []
        for seconds in (0, 0, 1, 0):
            asker.gateway.now += timedelta(seconds=seconds)
            answer = await asker.post("/v2/models/add/infer", encode({"a": ONES, "b": ONES}))
            dates.append(answer.field("date"))
        assert dates[0] == dates[1] != dates[2] == dates[3] == asker.gateway.date()

    run(scenario)


def test_sessions_know_nothing_of_each_other(gateway: list[Any]) -> None:
    async def scenario() -> None:
        server = Gateway(gateway)
        one, other = Asker(server), Asker(server)
        for asker in (one, other):
            await asker.add(ONES, ONES)
        first, second = (session.recall for session in server.app._sessions._sessions.values())
        assert first is not second
        assert first._predictions.keys().isdisjoint(second._predictions)

    run(scenario)


def test_nothing_of_the_tensors_is_kept(gateway: list[Any]) -> None:
    async def scenario() -> None:
        asker = Asker(Gateway(gateway))
        await asker.add(ONES * 7, ONES)
        [prediction] = asker.predictions
        assert np.float32(7).tobytes() not in prediction.layout.header
        assert prediction.form._request.inputs == ()
        assert asker.recall.answer_parts[1] == b"\0"
        assert np.float32(8).tobytes() not in bytes(asker.recall.answer_parts[0])

    run(scenario)
