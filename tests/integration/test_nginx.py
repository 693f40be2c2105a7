"""Client and server with nginx between: TLS, Basic authentication, a path prefix, large bodies, replicas.

Twice: with a configuration by hand, and with what an ingress controller makes of the annotations that the
chart in samples/k8s writes, before a server that runs with the variables of the chart's pod.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, Request, build_opener

import numpy as np
import pytest

from confonnx import AsyncClient, Client
from confonnx.errors import (
    AuthenticationError,
    EncapsulationError,
    NotConfonnxError,
    TooLargeError,
    TransportError,
)
from tests.kubernetes.chart import Engine, Object, Rendered, need_tools
from tests.support.models import add_model, identity_model
from tests.support.nginx_front import NginxFront, need_nginx, nginx_front, write_passwords
from tests.support.running import RunningServer, running_server

ClientT = TypeVar("ClientT", Client, AsyncClient)

INGRESS_USER, INGRESS_PASSWORD = "api", "password123"
KEY = "a-key-of-the-tests-0123456789"
PREFIX = "mymodel"
A = np.array([1.5, 2.5], np.float32)
B = np.array([0.25, -2.5], np.float32)

BY_HAND = """
        location /mymodel {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            client_max_body_size 128m;
            auth_basic "confonnx";
            auth_basic_user_file {passwords};
        }}
"""

# ingress-nginx, "Annotations": what each becomes in nginx.conf. Paths and the file of passwords are apart.
DIRECTIVES = {
    "proxy-body-size": "client_max_body_size {};",
    "proxy-request-buffering": "proxy_request_buffering {};",
    "proxy-http-version": "proxy_http_version {};",
    "proxy-read-timeout": "proxy_read_timeout {}s;",
    "proxy-send-timeout": "proxy_send_timeout {}s;",
    "auth-realm": 'auth_basic "{}";',
}
ELSEWHERE = {"use-regex", "rewrite-target", "auth-type", "auth-secret", "upstream-hash-by"}


@dataclass(frozen=True, slots=True)
class _Site:
    """nginx, the servers behind it, and the models that they serve."""

    front: NginxFront
    servers: tuple[RunningServer, ...]
    digests: tuple[str, ...]

    def client(self, kind: type[ClientT] = Client, **changes: Any) -> ClientT:  # type: ignore[assignment]
        """A client with all that it needs, with some options changed."""
        options: dict[str, Any] = {
            "ingress_auth": (INGRESS_USER, INGRESS_PASSWORD),
            "auth_key": KEY,
            "enclave_hash": self.servers[0].measurement,
            "enclave_model_hash": self.digests,
            "allow_simulated": True,
            "ca_file": self.front.ca_file,
        }
        return kind(f"{self.front.url}{PREFIX}", **(options | changes))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of ``add`` and ``identity``."""
    directory = tmp_path_factory.mktemp("models")
    add_model(directory / "add.onnx")
    identity_model(directory / "identity.onnx")
    return directory


@pytest.fixture(scope="module")
def helm() -> Iterator[Engine]:
    """The real Helm engine."""
    need_tools()
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module", params=["by hand", "chart"])
def site(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Site]:
    need_nginx()
    directory = tmp_path_factory.mktemp("nginx")
    passwords = write_passwords(directory / "auth", {INGRESS_USER: INGRESS_PASSWORD})
    if request.param == "chart":
        rendered = _chart(request.getfixturevalue("helm"))
        environment, locations = rendered.environment, _locations(rendered.one("Ingress"), passwords)
    else:
        environment = {"CONFONNX_URL_PREFIX": "/mymodel"}
        locations = BY_HAND.format(passwords=passwords)
    with (
        running_server(
            *("--model-repository", str(models), "--auth-key", KEY), environment=environment
        ) as server,
        nginx_front(directory, servers=[server.port], locations=locations) as front,
    ):
        yield _Site(front, (server,), _digests(models))


def test_a_prediction_passes(site: _Site) -> None:
    with site.client() as client:
        for _ in range(3):
            result = client.predict({"a": A, "b": B}, model="add")
            np.testing.assert_array_equal(result["sum"], A + B)
    assert f"POST /{PREFIX}/ohttp" in site.front.access_log.read_text("utf-8")


def test_tasks_pass_too(site: _Site) -> None:
    async def main() -> list[dict[str, Any]]:
        async with site.client(kind=AsyncClient) as client:
            return await asyncio.gather(*(client.predict({"a": A, "b": B}, model="add") for _ in range(8)))

    for result in asyncio.run(main()):
        np.testing.assert_array_equal(result["sum"], A + B)


@pytest.mark.parametrize(
    "ingress_auth", [None, (INGRESS_USER, "wrong"), ("nobody", INGRESS_PASSWORD), "a-bearer-token"]
)
def test_nginx_lets_nobody_else_in(site: _Site, ingress_auth: object) -> None:
    with site.client(ingress_auth=ingress_auth) as client, pytest.raises(AuthenticationError) as caught:
        client.predict({"a": A, "b": B}, model="add")
    assert "ingress_auth" in str(caught.value)


def test_what_nginx_knows_is_not_enough_for_the_server(site: _Site) -> None:
    """The passwords that the host reads open nothing inside."""
    with site.client(auth_key=None, auth_user=INGRESS_USER, auth_pass=INGRESS_PASSWORD) as client:
        with pytest.raises(AuthenticationError) as caught:
            client.predict({"a": A, "b": B}, model="add")
        assert "ingress_auth" not in str(caught.value)


@pytest.mark.slow
def test_100_mib_in_and_out(site: _Site) -> None:
    x = np.random.default_rng(7).standard_normal(100 << 18, np.float32)
    assert x.nbytes == 100 << 20
    with site.client() as client:
        y = client.predict({"x": x}, model="identity", timeout=120)["y"]
    assert isinstance(y, np.ndarray)
    assert np.array_equal(x, y)


@pytest.mark.parametrize("path", ["mymodel", "mymodel/", "mymodel/healthz", "mymodel/readyz"])
def test_open_paths_under_the_prefix(site: _Site, path: str) -> None:
    status, text = _get(site, path)
    assert status == 200
    assert text in ("Healthy", "ok", "ready")


@pytest.mark.parametrize("path", ["", "ohttp", "mymodelx", "mymodelx/healthz", "metrics", "mymodel/metrics"])
def test_nothing_else_is_there(site: _Site, path: str) -> None:
    assert _get(site, path)[0] == 404


def test_an_unknown_authority_is_refused(site: _Site) -> None:
    with site.client(ca_file=None) as client, pytest.raises(TransportError):
        client.predict({"a": A, "b": B}, model="add")


def test_the_redirect_to_https_is_named(site: _Site) -> None:
    """Nothing follows it: what was sent to the plain port shows the ingress' password."""
    with (
        Client(
            f"{site.front.plain_url}{PREFIX}",
            ingress_auth=(INGRESS_USER, INGRESS_PASSWORD),
            enclave_hash=site.servers[0].measurement,
            enclave_model_hash=site.digests,
            allow_simulated=True,
        ) as client,
        pytest.raises(NotConfonnxError) as caught,
    ):
        client.predict({"a": A, "b": B}, model="add")
    assert "redirects are not followed" in str(caught.value)


def test_a_body_over_nginx_limit(helm: Engine, models: Path, tmp_path: Path) -> None:
    need_nginx()
    passwords = write_passwords(tmp_path / "auth", {INGRESS_USER: INGRESS_PASSWORD})
    locations = _locations(_chart(helm, "ingress.maxBodyMiB=1").one("Ingress"), passwords)
    with (
        running_server("--model-repository", str(models)) as server,
        nginx_front(tmp_path, servers=[server.port], locations=locations) as front,
        _Site(front, (server,), _digests(models)).client(auth_key=None) as client,
    ):
        with pytest.raises(TooLargeError):
            client.predict({"x": np.zeros(1 << 20, np.float32)}, model="identity")
        assert client.predict({"a": A, "b": B}, model="add")["sum"] is not None


@pytest.mark.parametrize("kept", [True, False])
def test_replicas_have_their_own_keys_so_clients_stay(
    helm: Engine, models: Path, tmp_path: Path, kept: bool
) -> None:
    """By the chart's annotation all requests of an address go to one replica; without, the client attests
    another one again and again."""
    need_nginx()
    ingress = _chart(helm, "replicas=3").one("Ingress")
    passwords = write_passwords(tmp_path / "auth", {INGRESS_USER: INGRESS_PASSWORD})
    hashed = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/upstream-hash-by"]
    with ExitStack() as stack:
        servers = tuple(
            stack.enter_context(running_server("--model-repository", str(models))) for _ in range(3)
        )
        front = stack.enter_context(
            nginx_front(
                tmp_path,
                servers=[server.port for server in servers],
                locations=_locations(ingress, passwords),
                upstream=f"        hash {hashed} consistent;" if kept else "",
            )
        )
        client = stack.enter_context(_Site(front, servers, _digests(models)).client(auth_key=None))
        answers = [_asks(client) for _ in range(6)]
        log = front.access_log.read_text("utf-8")
    if kept:
        assert all(answers)
        assert log.count("GET /mymodel/attestation") == 1
    else:
        assert log.count("GET /mymodel/attestation") > 3


def _asks(client: Client) -> bool:
    try:
        client.predict({"a": A, "b": B}, model="add")
    except EncapsulationError:
        return False
    return True


def _chart(helm: Engine, *expressions: str) -> Rendered:
    return helm.render(
        "tee=none,auth.where=ingress,gateway.enabled=false,ingress.enabled=true,ingress.className=nginx",
        *expressions,
    )


def _locations(ingress: Object, passwords: Path) -> str:
    """The ``location`` blocks that ingress-nginx makes of an Ingress: its rules for a path with ``use-regex``
    and ``rewrite-target``, and the directives of the other annotations; no annotation is left out."""
    found = {
        key.removeprefix("nginx.ingress.kubernetes.io/"): value
        for key, value in ingress["metadata"]["annotations"].items()
    }
    assert found.keys() <= DIRECTIVES.keys() | ELSEWHERE, "an annotation that this test does not translate"
    assert found["auth-type"] == "basic"
    directives = [DIRECTIVES[key].format(value) for key, value in found.items() if key in DIRECTIVES]
    directives += [f"auth_basic_user_file {passwords};", "proxy_buffering off;"]
    blocks = []
    for rule in ingress["spec"]["rules"]:
        for item in rule["http"]["paths"]:
            path = item["path"]
            re.compile(path)
            assert found["use-regex"] == "true"
            lines = [*directives, f'rewrite "(?i){path}" {found["rewrite-target"]} break;']
            lines.append("proxy_pass http://model;")
            blocks.append(f'location ~* "^{path}" {{\n' + "\n".join(lines) + "\n}")
    return "\n".join(blocks)


def _digests(models: Path) -> tuple[str, ...]:
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(models.iterdir()))


def _get(site: _Site, path: str) -> tuple[int, str]:
    """Status and text."""
    context = ssl.create_default_context(cafile=str(site.front.ca_file))
    credentials = base64.b64encode(f"{INGRESS_USER}:{INGRESS_PASSWORD}".encode()).decode("ascii")
    request = Request(f"{site.front.url}{path}", headers={"authorization": f"Basic {credentials}"})
    try:
        with build_opener(HTTPSHandler(context=context)).open(request) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
