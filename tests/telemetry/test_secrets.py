"""What is secret is in no line of the log and in no trace, however it was sent."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from clusterling.cli.target import read_kubeconfig
from tests.cli.processes import clusterling, eventually, serving
from tests.storage import postgres_server
from tests.telemetry.collector import Collector, collecting
from tests.telemetry.test_traces import SAMPLED, Traced

SECRET = "hunter2secret"  # Within each of them.
_numbers = count()

MAPS = "/clusters/default/api/v1/namespaces/default/configmaps"
SECRETS = "/clusters/default/api/v1/namespaces/default/secrets"


def secret() -> str:
    """Another one, as long as tokens have to be."""
    return f"{SECRET}{next(_numbers):04d}{'x' * 24}"


def is_told(text: str) -> list[str]:
    """The secrets that are in a text, as they are or in base64, with what stands around them."""
    forms = [SECRET, *(base64.b64encode(b"\0" * pad + SECRET.encode())[4:-4].decode() for pad in range(3))]
    return [text[max(0, at.start() - 80) : at.end() + 80] for form in forms for at in re.finditer(form, text)]


def test_the_search_finds_what_it_is_for() -> None:
    for text in (secret(), base64.b64encode(secret().encode()).decode()):
        assert is_told(f"line {text} line")
    assert not is_told("line")


@dataclass(frozen=True, slots=True)
class Told:
    server: Traced
    log: Path
    tokens: list[str]  # Of the server itself.


def raw(server: Traced, *requests: bytes) -> None:
    """What a client that is none sends, until it is answered."""
    host, port = server.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=server.ca)
    for request in requests:
        with (
            socket.create_connection((host, int(port)), 30) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(request)
            assert secure.recv(65536).startswith(b"HTTP/1.1 4")


def send_everywhere(server: Traced) -> None:
    """Secrets in headers, queries, bodies, targets and tokens; in what is well-formed and in what is not."""
    ask = server.ask
    for token in (server.token, server.tenant):
        kept = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "s-"}}
        assert ask(SECRETS, "POST", {**kept, "stringData": {"password": secret()}}, token=token).status == 201
        assert ask(SECRETS, "POST", {**kept, "data": {"password": secret()}}, token=token).status == 400
        assert ask(SECRETS, "POST", {**kept, "type": secret(), "data": secret()}, token=token).status == 400
        assert ask(SECRETS, "POST", {**kept, "kind": secret()}, token=token).status == 400
        assert ask(SECRETS, "POST", secret(), token=token).status == 400
        assert ask(f"{MAPS}?access_token={secret()}&limit={secret()}", token=token).status in {200, 400}
        assert (
            ask(f"{MAPS}?fieldSelector={secret()}&labelSelector={secret()}%20in", token=token).status == 400
        )
        assert ask(f"{MAPS}?timeout={secret()}", token=token).status in {200, 400}
        assert ask(f"{MAPS}?continue={secret()}", token=token).status == 400
        headers = {"Cookie": secret(), "X-Api-Key": secret(), "Accept": secret(), "Referer": f"/?{secret()}"}
        assert ask(MAPS, token=token, headers=headers).status in {200, 406}
        tracing = {"tracestate": f"v={secret()}", "traceparent": secret()}
        assert ask(MAPS, token=token, headers=tracing).status == 200
        assert ask(MAPS, token=token, headers={"Impersonate-User": "u", "X-Remote-User": secret()}).status
        patched = {"Content-Type": "application/json-patch+json"}
        assert ask(f"{MAPS}/none", "PATCH", [{"op": secret()}], token=token, headers=patched).status >= 400
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": secret()},
        }
        reviews = "/clusters/default/apis/authentication.k8s.io/v1/tokenreviews"
        assert ask(reviews, "POST", review, token=token).status in {201, 404}
    tracing = {"tracestate": f"v={secret()}", **SAMPLED}
    assert ask(MAPS, token=server.tenant, headers=tracing).status == 200
    for wrong in (secret(), f"{secret()}.{secret()}.{secret()}"):
        assert ask(MAPS, token=wrong).status == 401
    login = base64.b64encode(f"user:{secret()}".encode()).decode()
    assert ask(MAPS, headers={"Authorization": f"Basic {login}"}).status == 401
    assert ask(f"/metrics?token={secret()}", token=secret()).status == 401
    protocol = base64.b64encode(secret().encode()).decode().rstrip("=")
    upgrade = (
        f"GET {MAPS}?watch=1&token={secret()} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}\r\n"
        f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{protocol}\r\n\r\n"
    )
    no_http = f"{secret()}\r\n\r\n"
    target = f"GET /{urllib.parse.quote(secret())}\x01 HTTP/1.1\r\nX: {secret()}\r\n\r\n"
    field = f"GET / HTTP/1.1\r\nHost: x\r\n{secret()}\x00: {secret()}\r\n\r\n"
    chunk = (
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{secret()}\r\n\r\n"
    )
    raw(server, *(one.encode() for one in (upgrade, no_http, target, field, chunk)))


@pytest.fixture(scope="module", params=["text", "json"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A server on a database with a password, given secrets in each way there is, that tells all it can."""
    form: str = request.param
    directory = tmp_path_factory.mktemp(f"told-{form}")
    admin, scraper = secret(), secret()
    (directory / "admin").write_text(admin)
    (directory / "scraper").write_text(scraper)
    with (
        pytest.MonkeyPatch.context() as patched,
        collecting() as collector,
        postgres_server.running() as store,
    ):
        patched.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patched.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={secret()}")
        patched.setenv("CLUSTERLING_STORE_PASSWORD", secret())
        flags = (
            *("--quiet", "--log-level", "debug", "--log-format", form, "--store", f"{store.url}&schema=told"),
            *(
                "--admin-token-file",
                str(directory / "admin"),
                "--metrics-token-file",
                str(directory / "scraper"),
            ),
            *("--tracing-endpoint", collector.url, "--tracing-sampling", "1"),
        )
        log = directory / "log"
        with serving(directory / "data", *flags, stderr=log) as server:
            own = read_kubeconfig(server.data_dir / "admin.kubeconfig").token
            given = clusterling("kubeconfig", "default", "--data-dir", str(server.data_dir))
            assert given.returncode == 0, given.stderr
            (directory / "tenant.yaml").write_text(given.stdout)
            tenant = read_kubeconfig(directory / "tenant.yaml").token
            ca = server.data_dir / "pki" / "ca.crt"
            traced = Traced(server.url, ca, own, tenant, collector)
            assert traced.ask("/metrics", token=scraper).status == 200
            send_everywhere(traced)
            store.stop()
            lost = traced.ask(
                SECRETS, "POST", {"apiVersion": "v1", "kind": "Secret", "data": {"k": secret()}}
            )
            assert lost.status >= 400
            assert eventually(lambda: "postgres-away" in log.read_text())
            server.stop()
            yield Told(traced, log, [tenant, own])


def test_no_secret_is_in_the_log(told: Told) -> None:
    text = told.log.read_text()
    assert "bad-request" in text
    assert is_told(text) == []
    for token in told.tokens:
        assert token not in text


def test_no_secret_is_in_a_trace(told: Told) -> None:
    collector: Collector = told.server.collector
    assert any("Create" in span.name for span in collector.spans)
    sent = b"".join(collector.bodies).decode("latin-1")
    assert is_told(sent) == []
    for token in told.tokens:
        assert token not in sent
    # But the collector was told what it is let in by.
    assert all(SECRET in headers["api-key"] for headers in collector.headers)


def test_each_line_is_an_event(told: Told) -> None:
    lines = told.log.read_text().splitlines()
    assert lines
    if lines[0].startswith("{"):
        assert all({"ts", "level", "logger", "caller", "msg"} <= json.loads(line).keys() for line in lines)
    else:
        form = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) [\w.]+ .+")
        assert [line for line in lines if not form.fullmatch(line)] == []
