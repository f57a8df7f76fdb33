"""Whoever holds a credential of one cluster learns nothing of another: every way in, as a table.

The other cluster holds canaries (names, values, a kind, a namespace, ids). No answer may contain one, and an answer
about the other cluster is the one that a cluster gets that was never there.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.e2e.clusters import CALL_S, Cluster, ServerProcess
from tests.e2e.conftest import NewCluster

ABSENT = "never-was-here"
LONG = "a" * 4096


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes

    @property
    def everything(self) -> bytes:
        return self.head + b"\r\n\r\n" + self.body


class Connection:
    """One TLS connection on which a request target goes out byte for byte, as no client library would send it."""

    def __init__(self, cluster: Cluster) -> None:
        where = urlsplit(cluster.url)
        assert where.hostname is not None
        self._host = where.netloc
        plain = socket.create_connection((where.hostname, where.port or 443), timeout=CALL_S)
        self._socket: ssl.SSLSocket = cluster.tls.wrap_socket(plain, server_hostname=where.hostname)
        self._rest = b""

    def close(self) -> None:
        self._socket.close()

    def send(
        self, target: str, *, token: str = "", headers: dict[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        lines = [f"{method} {target} HTTP/1.1"]
        sent = {"Host": self._host, "Accept": "application/json"} | (headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        lines += [f"{name}: {value}" for name, value in sent.items()]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("utf-8"))
        return self._answer(has_body=method != "HEAD")

    def _more(self) -> None:
        piece = self._socket.recv(65536)
        if not piece:
            raise EOFError(f"the server closed after {self._rest[:200]!r}")
        self._rest += piece

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._more()
        found, self._rest = self._rest.split(mark, 1)
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self._rest) < length:
            self._more()
        found, self._rest = self._rest[:length], self._rest[length:]
        return found

    def _answer(self, *, has_body: bool) -> Answer:
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if not has_body:
            return Answer(status, head, b"")
        if fields.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._until(b"\r\n")
            self._until(b"\r\n")
            return Answer(status, head, body)
        return Answer(status, head, self._exactly(int(fields.get(b"content-length", b"0"))))


def ask(
    cluster: Cluster,
    target: str,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    method: str = "GET",
) -> Answer:
    """One request on a connection of its own. A connection closed without an answer is an empty answer."""
    connection = Connection(cluster)
    try:
        return connection.send(target, token=token, headers=headers, method=method)
    except (EOFError, ConnectionError):
        return Answer(0, b"", b"")
    finally:
        connection.close()


class Scene(NamedTuple):
    mine: Cluster
    other: Cluster
    canaries: tuple[bytes, ...]

    def shows(self, answer: Answer) -> list[bytes]:
        """The canaries that the answer gives away."""
        return [canary for canary in self.canaries if canary in answer.everything]


GROUP = "canary-group.example"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"canarykinds.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "CanaryKind", "plural": "canarykinds", "singular": "canarykind"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "properties": {"canaryfield": {"type": "string"}}}
                },
            }
        ],
    },
}
CANARY = {"metadata": {"name": "canary-name", "labels": {"l": "canary-label"}}, "data": {"k": "canary-value"}}


def _post(cluster: Cluster, path: str, obj: object) -> dict[str, dict[str, str]]:
    status, body = cluster.http("POST", path, json.dumps(obj).encode())
    assert status == 201, body
    made = json.loads(body)
    assert isinstance(made, dict)
    return made


@pytest.fixture(scope="module")
def scene(new_cluster: NewCluster) -> Scene:
    mine, other = new_cluster("mine"), new_cluster("other")
    _post(other, "/api/v1/namespaces", {"metadata": {"name": "canary-namespace"}})
    made = _post(other, "/api/v1/namespaces/default/configmaps", CANARY)
    _post(other, "/api/v1/namespaces/canary-namespace/secrets", CANARY | {"data": {}})
    _post(other, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
    obj = {"apiVersion": f"{GROUP}/v1", "kind": "CanaryKind", "metadata": {"name": "canary-custom"}}
    _post(other, f"/apis/{GROUP}/v1/namespaces/default/canarykinds", obj | {"canaryfield": "canary-value"})
    system = json.loads(other.http("GET", "/api/v1/namespaces/kube-system")[1])["metadata"]["uid"]
    words = (
        "canary-name",
        "canary-label",
        "canary-value",
        "canary-custom",
        "canaryfield",
        "CanaryKind",
        system,
    )
    return Scene(mine, other, tuple(word.encode() for word in (*words, made["metadata"]["uid"], other.token)))


# `{a}` is the caller's cluster, `{b}` the other one.
WAYS_TO_THE_OTHER = [
    "/clusters/{b}/api/v1/configmaps",
    "/clusters/{b}/api/v1/namespaces/default/configmaps/canary-name",
    "/clusters/{b}/api/v1/configmaps?watch=true",
    "/clusters/{b}/apis",
    "/clusters/{b}/openapi/v2",
    "/clusters/{b}/openapi/v3",
    "/clusters/{b}/metrics",
    "/clusters/{b}",
    "/clusters/{b}/",
    "/clusters/{b}?a=b",
    "/clusters/{a}/../{b}/api/v1/configmaps",
    "/clusters/{a}/./../{b}/api/v1/configmaps",
    "/clusters/{a}/%2e%2e/{b}/api/v1/configmaps",
    "/clusters/{a}/%2E%2E/{b}/api/v1/configmaps",
    "/clusters/{a}/.%2e/{b}/api/v1/configmaps",
    "/clusters/{a}/%252e%252e/{b}/api/v1/configmaps",
    "/clusters/{a}/%c0%ae%c0%ae/{b}/api/v1/configmaps",
    "/clusters/{a}%2f..%2f{b}/api/v1/configmaps",
    "/clusters/{a}%2F..%2F{b}/api/v1/configmaps",
    "/clusters/{a}\\..\\{b}\\api\\v1\\configmaps",
    "/clusters/{a}/api/../../{b}/api/v1/configmaps",
    "/clusters/{a}/api/v1/../../../{b}/api/v1/configmaps",
    "/clusters/{a}/clusters/{b}/api/v1/configmaps",
    "/clusters/{a}//{b}/api/v1/configmaps",
    "/clusters//{b}/api/v1/configmaps",
    "//clusters/{b}/api/v1/configmaps",
    "/./clusters/{b}/api/v1/configmaps",
    "/clusters/./{b}/api/v1/configmaps",
    "/%63lusters/{b}/api/v1/configmaps",
    "/CLUSTERS/{b}/api/v1/configmaps",
    "/clusters/{B}/api/v1/configmaps",
    "/clusters/%6fther/../{b}/api/v1/configmaps",
    "/clusters/{b}%00/api/v1/configmaps",
    "/clusters/{b}%20/api/v1/configmaps",
    "/clusters/{b}%0d%0a/api/v1/configmaps",
    "/clusters/{b};a=b/api/v1/configmaps",
    "/clusters/{b}./api/v1/configmaps",
    "/clusters/{b}:{a}/api/v1/configmaps",
    "/clusters/{a}:{b}/api/v1/configmaps",
    "/clusters/{a},{b}/api/v1/configmaps",
    "/clusters/*/api/v1/configmaps",
    "/clusters/%2a/api/v1/configmaps",
    "/clusters/-/api/v1/configmaps",
    "/clusters/~has/api/v1/configmaps",
    "/clusters/root/api/v1/configmaps",
    "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters",
    "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/{b}",
    "/clusters/root/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/{b}/kubeconfig",
    "/clusters/" + LONG + "/api/v1/configmaps",
    "/clusters/{b}" + LONG + "/api/v1/configmaps",
    "/clusters/{a}" + "/.." * 1365 + "/clusters/{b}/api/v1/configmaps",
    "https://{b}.example/clusters/{b}/api/v1/configmaps",
    "*",
]


def _fill(template: str, scene: Scene, other: str) -> str:
    filled = template.replace("{a}", scene.mine.name).replace("{b}", other)
    return filled.replace("{B}", other.upper())


@pytest.mark.parametrize("template", WAYS_TO_THE_OTHER, ids=lambda template: str(template)[:60])
def test_no_path_leads_into_another_cluster(scene: Scene, template: str) -> None:
    answer = ask(scene.mine, _fill(template, scene, scene.other.name), token=scene.mine.token)
    assert scene.shows(answer) == []
    assert not 200 <= answer.status < 300, answer.everything[:500]
    assert answer.status < 500, answer.everything[:500]


@pytest.mark.parametrize("template", WAYS_TO_THE_OTHER, ids=lambda template: str(template)[:60])
@pytest.mark.parametrize("credential", ["mine", "none", "wrong"])
def test_a_cluster_that_is_there_and_one_that_never_was_answer_alike(
    scene: Scene, template: str, credential: str
) -> None:
    token = {"mine": scene.mine.token, "none": "", "wrong": "not-a-token"}[credential]
    there, absent = (
        ask(scene.mine, _fill(template, scene, name), token=token) for name in (scene.other.name, ABSENT)
    )
    assert there.status == absent.status
    assert there.body.replace(scene.other.name.encode(), ABSENT.encode()) == absent.body


INSIDE_MINE = [
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/namespaces",
    "/api/v1/namespaces/canary-namespace/secrets",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps?labelSelector=l%3Dcanary-label",
    "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.namespace%21%3Ddefault",
    "/api/v1/namespaces/default/configmaps/..%2f..%2f..%2f..%2f{b}%2fcore%2fconfigmaps%2fdefault%2fcanary-name",
    "/api/v1/namespaces/..%2f{b}/configmaps",
    "/api/v1/namespaces/-/configmaps/canary-name",
    "/api/v1/namespaces/%2d/configmaps/canary-name",
    "/api/v1/namespaces/%2e%2e/configmaps/canary-name",
    "/api/v1/namespaces/*/configmaps/canary-name",
    "/api/v1/namespaces/default/configmaps/" + LONG,
    "/api/v1/namespaces/" + LONG + "/configmaps",
    "/api/v1/namespaces/default/configmaps/canary-name%00",
    "/api/v1/namespaces/default/configmaps/%F0%90%80",
    "/api/v1/watch/configmaps?timeoutSeconds=1",
    "/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion=0",
    "/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion=1",
    "/api/v1/configmaps?watch=true&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
    "/api/v1/configmaps?resourceVersion=1&resourceVersionMatch=Exact",
    "/api/v1/configmaps?cluster={b}",
    "/api/v1/configmaps?limit=1",
    "/api",
    "/apis",
    f"/apis/{GROUP}",
    f"/apis/{GROUP}/v1",
    f"/apis/{GROUP}/v1/canarykinds",
    f"/apis/{GROUP}/v1/namespaces/default/canarykinds/canary-custom",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/canarykinds.{GROUP}",
    "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters",
    "/openapi/v2",
    "/openapi/v3",
    f"/openapi/v3/apis/{GROUP}/v1",
    "/openapi/v3/api/v1",
    "/metrics",
    "/readyz?verbose",
    "/livez?verbose",
    "/version",
]


@pytest.mark.parametrize("path", INSIDE_MINE, ids=lambda path: str(path)[:60])
def test_nothing_inside_ones_own_cluster_shows_the_other(scene: Scene, path: str) -> None:
    target = f"/clusters/{scene.mine.name}{path.replace('{b}', scene.other.name)}"
    answer = ask(scene.mine, target, token=scene.mine.token)
    told = [canary for canary in scene.shows(answer) if canary.decode() not in path]
    assert told == []
    assert b"canary-namespace" not in answer.body or "canary-namespace" in path
    assert GROUP.encode() not in answer.body or GROUP in path
    assert answer.status < 500, answer.everything[:500]


AGGREGATED = "application/json;v=v2;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList"


def test_aggregated_discovery_shows_only_ones_own_kinds(scene: Scene) -> None:
    for root in ("/api", "/apis"):
        target = f"/clusters/{scene.mine.name}{root}"
        answer = ask(scene.mine, target, token=scene.mine.token, headers={"Accept": AGGREGATED})
        assert answer.status == 200
        assert GROUP.encode() not in answer.body


HEADERS = [
    {"X-Forwarded-Prefix": "/clusters/{b}"},
    {"X-Original-URL": "/clusters/{b}/api/v1/configmaps"},
    {"X-Rewrite-URL": "/clusters/{b}/api/v1/configmaps"},
    {"X-Forwarded-Host": "{b}.example"},
    {"X-Kubernetes-Cluster": "{b}"},
    {"Host": "{b}"},
    {"Impersonate-User": "admin", "Impersonate-Group": "system:masters"},
    {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"},
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: next(iter(headers)))
@pytest.mark.parametrize("aimed_at", ["mine", "other"])
def test_no_header_changes_whose_cluster_it_is(scene: Scene, headers: dict[str, str], aimed_at: str) -> None:
    name = scene.mine.name if aimed_at == "mine" else scene.other.name
    filled = {key: value.replace("{b}", scene.other.name) for key, value in headers.items()}
    target = f"/clusters/{name}/api/v1/configmaps"
    answer = ask(scene.mine, target, token=scene.mine.token, headers=filled)
    assert scene.shows(answer) == []
    assert aimed_at == "mine" or answer.status in {400, 401, 403, 421}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_no_method_reaches_another_cluster(scene: Scene, method: str) -> None:
    target = f"/clusters/{scene.other.name}/api/v1/namespaces/default/configmaps/canary-name"
    headers = {"Content-Type": "application/json", "Content-Length": "0"}
    answer = ask(scene.mine, target, token=scene.mine.token, method=method, headers=headers)
    assert not 200 <= answer.status < 300
    assert scene.shows(answer) == []
    status, body = scene.other.http("GET", "/api/v1/namespaces/default/configmaps/canary-name")
    assert (status, json.loads(body)["data"]) == (200, {"k": "canary-value"})


@pytest.fixture
def connection(scene: Scene) -> Iterator[Connection]:
    opened = Connection(scene.mine)
    yield opened
    opened.close()


def test_a_connection_that_was_let_in_once_is_asked_again_for_another_cluster(
    scene: Scene, connection: Connection
) -> None:
    mine, other = (f"/clusters/{cluster.name}/api/v1/configmaps" for cluster in (scene.mine, scene.other))
    assert connection.send(mine, token=scene.mine.token).status == 200
    assert connection.send(other, token=scene.mine.token).status in {401, 403}
    assert connection.send(other, token="").status in {401, 403}
    assert connection.send(mine, token=scene.mine.token).status == 200
    assert connection.send(other, token=scene.other.token).status == 200
    assert connection.send(mine, token=scene.other.token).status in {401, 403}


def test_a_page_begun_in_one_cluster_does_not_go_on_in_another(scene: Scene) -> None:
    page = json.loads(scene.other.http("GET", "/api/v1/namespaces?limit=1")[1])
    token = page["metadata"]["continue"]
    answer = ask(
        scene.mine,
        f"/clusters/{scene.mine.name}/api/v1/namespaces?limit=500&continue={token}",
        token=scene.mine.token,
    )
    assert scene.shows(answer) == []
    assert b"canary-namespace" not in answer.body


def test_a_watch_sees_nothing_of_another_clusters_writes(scene: Scene) -> None:
    listed = json.loads(scene.mine.http("GET", "/api/v1/configmaps")[1])["metadata"]["resourceVersion"]
    for number in range(3):
        _post(
            scene.other,
            "/api/v1/namespaces/default/configmaps",
            CANARY | {"metadata": {"name": f"canary-name-{number}"}},
        )
    _post(scene.mine, "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "seen"}})
    status, body = scene.mine.http(
        "GET", f"/api/v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion={listed}"
    )
    events = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in events] == [("ADDED", "seen")]


@pytest.fixture
def namesakes(server: ServerProcess, cluster: Cluster) -> tuple[Cluster, Cluster]:
    """A cluster that was filled and deleted, and the next one of its name."""
    _post(cluster, "/api/v1/namespaces/default/configmaps", CANARY)
    server.cli("delete", cluster.name, "--yes", "--wait")
    server.cli("create", cluster.name)
    path = cluster.kubeconfig.with_name("namesake.yaml")
    path.write_text(server.cli("kubeconfig", cluster.name))
    return cluster, Cluster(cluster.name, path)


def test_a_namesake_shares_nothing_with_the_dead(namesakes: tuple[Cluster, Cluster]) -> None:
    dead, namesake = namesakes
    assert namesake.http("GET", "/api/v1/namespaces/default/configmaps/canary-name")[0] == 404
    target = f"/clusters/{namesake.name}/api/v1/configmaps"
    assert ask(namesake, target, token=dead.token).status == 401
    assert ask(namesake, target, token=namesake.token).status == 200
