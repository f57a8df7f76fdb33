"""The checks of what clients assume, run against this server; the page that tells of them; and checks that must fail.

`CLUSTERLING_REWRITE=1` writes docs/reference/conformity.md anew. Beside this file is what a real kube-apiserver 1.37.2 said:
`clusterling check-server --json` against one, as docs/howto/check-server.md has it.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from typing_extensions import override

from clusterling.conformity import (
    ROWS,
    Outcome,
    Report,
    Unreachable,
    Wire,
    as_document,
    as_page,
    check_server,
    chosen,
)
from clusterling.conformity.scene import Scene
from clusterling.conformity.wire import Answer, Stream
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.testing.kube import Kube, KubeServer

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/reference/conformity.md"
THEIRS: Final = Path(__file__).parent / "kube-apiserver.json"
BESIDE: Final = "kube-apiserver 1.37.2"


@contextmanager
def _cluster(server: KubeServer, packs: str) -> Iterator[Kube]:
    name = f"rows-{secrets.token_hex(4)}"
    clusters = server.server.clusters
    server.call(clusters.create(name, packs=packs))
    try:
        yield Kube(server, name)
    finally:
        with suppress(ApiError):
            server.call(clusters.delete(name))


@pytest.fixture(scope="module")
def whole(kube_server: KubeServer) -> Iterator[Kube]:
    """A cluster with every kind."""
    with _cluster(kube_server, "all") as kube:
        # A server forgets after minutes. Here it does at once, so that a watch can be too old.
        store = kube_server.server._store
        kube_server.call(store.compact(store.head()))
        yield kube


def _wire(kube: Kube, kind: type[Wire] = Wire) -> Wire:
    context = ssl.create_default_context(cadata=kube.ca_pem)
    return kind(kube.url, token=kube.token, context=context)


def _run(kube: Kube, rows: str = "", kind: type[Wire] = Wire) -> Report:
    return check_server(_wire(kube, kind), chosen(rows), 120)


@pytest.fixture(scope="module")
def report(whole: Kube) -> Report:
    return _run(whole)


def test_every_row_holds_here(report: Report) -> None:
    wrong = {one.row.id: one.seen for one in report.results if one.outcome is not Outcome.PASS}
    assert wrong == {}
    assert [one.row for one in report.results] == list(ROWS)


def test_every_row_holds_on_kube_apiserver_or_the_row_is_wrong() -> None:
    theirs = json.loads(THEIRS.read_text())
    assert theirs["server"] == "v1.37.2"
    assert {one["id"]: one["outcome"] for one in theirs["rows"]} == {row.id: "pass" for row in ROWS}
    assert [(one["assumes"], one["reliedOnBy"]) for one in theirs["rows"]] == [
        (row.assumes, row.who) for row in ROWS
    ], "the rows were changed since they were held against kube-apiserver"


def test_the_page_is_what_the_command_prints(report: Report) -> None:
    page = as_page(report, (BESIDE, json.loads(THEIRS.read_text())))
    if os.environ.get("CLUSTERLING_REWRITE"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page


def test_nothing_stays_behind(whole: Kube, report: Report) -> None:
    assert report.left == []
    names = [one["metadata"]["name"] for one in whole.client.get("/api/v1/namespaces")["items"]]
    assert not [name for name in names if not _terminating(whole, name) and name.startswith("conformity-")]
    crds = whole.client.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    assert [one["metadata"]["name"] for one in crds] == []


def _terminating(kube: Kube, name: str) -> bool:
    with suppress(ApiError):
        return "deletionTimestamp" in kube.client.get(f"/api/v1/namespaces/{name}")["metadata"]
    return True


def test_two_clusters_of_one_server_are_told_apart_by_kube_system(whole: Kube, kube: Kube) -> None:
    path = "/api/v1/namespaces/kube-system"
    first, second = (one.client.get(path)["metadata"]["uid"] for one in (whole, kube))
    assert first != second


def test_a_cluster_of_custom_kinds_alone_fails_in_nothing(kube_server: KubeServer) -> None:
    with _cluster(kube_server, "none") as kube:
        found = _run(kube)
    assert {one.row.id: one.seen for one in found.results if one.outcome is Outcome.FAIL} == {}
    assert found.count(Outcome.PASS) > 10
    assert {one.seen for one in found.results if one.row.id in ("C1", "D1")} == {"namespaces are not served"}


class Bent(Wire):
    """A server that is wrong in one thing: what it answers is bent on the way."""

    def bend(self, method: str, path: str, answer: Answer) -> Answer:
        return answer

    def bend_event(self, event: Object) -> Object | None:
        """None ends the watch."""
        return event

    @override
    def request(self, method: str, path: str, body: Any = None, **rest: Any) -> Answer:
        return self.bend(method, path, super().request(method, path, body, **rest))

    @contextmanager
    @override
    def watch(self, path: str, **rest: Any) -> Iterator[Stream]:
        with super().watch(path, **rest) as stream:
            straight = stream.next

            def bent(wait_s: float) -> Object | None:
                event = straight(wait_s)
                return None if event is None else self.bend_event(event)

            stream.next = bent  # type: ignore[method-assign]
            yield stream


Change = Callable[[str, str, Answer], Answer]


def _answers(change: Change) -> type[Wire]:
    class One(Bent):
        @override
        def bend(self, method: str, path: str, answer: Answer) -> Answer:
            return change(method, path, answer)

    return One


def _events(change: Callable[[Object], Object | None]) -> type[Wire]:
    class One(Bent):
        @override
        def bend_event(self, event: Object) -> Object | None:
            return change(event)

    return One


def _headers(**changes: str) -> type[Wire]:
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return _answers(lambda _, __, answer: replace(answer, headers={**answer.headers, **named}))


def _code(method: str, end: str, code: int) -> type[Wire]:
    def change(done: str, path: str, answer: Answer) -> Answer:
        return replace(answer, code=code) if done == method and path.endswith(end) else answer

    return _answers(change)


def _document(edit: Callable[[Object], object]) -> type[Wire]:
    """Edits each JSON object that is answered."""

    def change(_: str, __: str, answer: Answer) -> Answer:
        document = answer.document
        if not document:
            return answer
        edit(document)
        return replace(answer, body=json.dumps(document).encode())

    return _answers(change)


def _without(*names: str) -> type[Wire]:
    """No object has this field of its metadata, nor does one in a list."""

    def edit(document: Object) -> None:
        for obj in (document, *(document.get("items") or ())):
            if isinstance(obj, dict):
                for name in names:
                    (obj.get("metadata") or {}).pop(name, None)

    return _document(edit)


def _old_deletion(event: Object) -> Object:
    if event["type"] == "DELETED":
        event["object"]["metadata"]["resourceVersion"] = "1"
    return event


def _other_error(event: Object) -> Object:
    if event["type"] == "ERROR":
        event["object"]["reason"] = "Gone"
        event["object"]["message"] = "gone"
    return event


def _named_bookmark(event: Object) -> Object:
    if event["type"] == "BOOKMARK":
        event["object"]["metadata"]["name"] = "somebody"
    return event


class Forgetful(Wire):
    """Says of the future what is true of the past."""

    @override
    def request(self, method: str, path: str, body: Any = None, **rest: Any) -> Answer:
        if "resourceVersionMatch" in (rest.get("query") or {}):
            return Answer(410, {}, b'{"kind":"Status","reason":"Expired"}')
        return super().request(method, path, body, **rest)


BENT: Final[list[tuple[str, type[Wire]]]] = [
    ("A1", _code("POST", "/selfsubjectreviews", 415)),
    (
        "A2",
        _answers(lambda m, _, a: replace(a, headers={**a.headers, "content-type": "text/html"}, body=b"<")),
    ),
    ("A3", _answers(lambda _, p, a: replace(a, body=b'{"swagger":"2.0"}') if p == "/openapi/v2" else a)),
    ("A4", _headers(content_type="application/com.github.proto-openapi.spec.v2@v1.0+protobuf")),
    ("A5", _document(lambda doc: doc.pop("paths", None))),
    ("A7", _headers(content_type="application/json")),
    ("A8", _code("GET", "/apis", 403)),
    ("A9", _events(lambda event: {**event, "object": {"kind": "ConfigMap"}})),
    ("A10", _code("GET", "/swagger-2.0.0.pb-v1", 500)),
    ("A12", _headers(warning="an unknown field")),
    ("A13", _headers(etag="")),
    ("B2", _headers(cache_control="public, max-age=3600")),
    ("B3", _answers(lambda _, p, a: replace(a, code=200) if p.endswith("kube-system") else a)),
    (
        "B4",
        _answers(lambda _, p, a: replace(a, body=a.body.replace(b':"/openapi', b':"/clusters/a/openapi'))),
    ),
    ("B5", _without("uid")),
    ("B6", _code("DELETE", "/namespaces/default", 200)),
    ("B7", _code("GET", "/services", 404)),
    ("B9", _document(lambda doc: [one.pop("shortNames", 0) for one in doc.get("resources", ())])),
    ("C1", _without("resourceVersion")),
    ("C2", _events(lambda event: None if event["type"] == "BOOKMARK" else event)),
    ("C3", _events(_other_error)),
    ("C4", _events(_other_error)),
    ("C5", Forgetful),
    ("C6", _document(lambda doc: "items" in doc and doc.update(items=[]))),
    ("C7", _events(_old_deletion)),
    ("C8", _events(_named_bookmark)),
    ("C10", _without("continue")),
    ("C11", _document(lambda doc: doc.get("items") == [] and doc.update(items=None))),
    ("C12", _events(lambda event: {**event, "type": "MODIFIED"} if event["type"] == "DELETED" else event)),
    ("C13", _document(lambda doc: "items" in doc and doc.update(items=[]))),
    ("D1", _document(lambda doc: doc.get("status") == "Success" and doc.update(kind="ConfigMap"))),
    ("D2", _document(lambda doc: (doc.get("details") or {}).pop("uid", 0))),
    ("D3", _answers(lambda m, _, a: replace(a, code=200) if a.code == 409 else a)),
    (
        "D4",
        _document(
            lambda doc: (
                (doc.get("status") or {}).update(conditions=None)
                if isinstance(doc.get("status"), dict)
                else 0
            )
        ),
    ),
    ("D6", _answers(lambda _, __, a: replace(a, body=a.body.replace(b".120000Z", b".12Z")))),
    ("D7", _without("creationTimestamp")),
    (
        "D8",
        _document(
            lambda doc: "generation" in doc.get("metadata", {}) and doc["metadata"].update(generation=3)
        ),
    ),
    ("D9", _answers(lambda _, __, a: replace(a, code=412) if a.code == 409 else a)),
    ("D10", _document(lambda doc: (doc.get("details") or {}).pop("causes", 0))),
    ("D11", _document(lambda doc: (doc.get("details") or {}).pop("causes", 0))),
    ("D12", _without("managedFields")),
    ("D13", _without("labels")),
    ("D14", _answers(lambda _, __, a: replace(a, code=403) if a.code == 404 else a)),
    ("D15", _document(lambda doc: "gitVersion" in doc and doc.update(gitVersion="1.37"))),
    ("D16", _document(lambda doc: doc.pop("status", 0))),
    ("D17", _code("GET", "/secrets", 403)),
    ("D18", _code("GET", "/leases", 405)),
    ("D19", _without("finalizers")),
    ("D20", _without("uid")),
    ("D21", _answers(lambda _, __, a: replace(a, code=400) if a.code == 413 else a)),
    ("D22", _without("managedFields")),
]


@pytest.mark.parametrize(("row", "kind"), BENT, ids=[row for row, _ in BENT])
def test_a_row_fails_on_a_server_that_is_wrong_there(row: str, kind: type[Wire], whole: Kube) -> None:
    found = _run(whole, row, kind).results
    assert [(one.row.id, one.outcome) for one in found] == [(row, Outcome.FAIL)]


def test_what_is_no_kubernetes_api_fails_and_is_shown_on_one_short_line(whole: Kube) -> None:
    nonsense = _answers(
        lambda _, __, answer: replace(
            answer, body=b'{"message":"' + b"a\\n" * 500 + b'"}', code=500, headers={}
        )
    )
    found = _run(whole, "A*,B5,D*", nonsense).results
    passed = [one.row.id for one in found if one.outcome is Outcome.PASS]
    assert passed == []
    assert all(len(one.seen) <= 240 and one.seen.isprintable() for one in found)


ODD: Final[list[Object]] = [
    {
        "metadata": [],
        "items": 5,
        "groups": [1],
        "versions": [[]],
        "status": 1,
        "details": [],
        "paths": [1],
        "resources": 3,
    },
    {
        "metadata": {"name": "a", "uid": 5},
        "items": [None],
        "groups": [{}],
        "versions": ["v1"],
        "paths": {"api/v1": []},
    },
    {
        "items": [{"metadata": {}}],
        "resources": [{"name": "a"}],
        "status": {"conditions": 5},
        "details": {"causes": 7},
    },
]


@pytest.mark.parametrize("body", [json.dumps(one).encode() for one in ODD] + [b"[" * 100_000, b"\xff"])
def test_whatever_a_server_answers_every_row_comes_to_an_end(
    body: bytes, whole: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scene, "patience_s", 0.1)
    # Two rows wait for the server's clock.
    rows = [row for row in ROWS if row.id not in ("C5", "C9")]

    class Odd(Bent):
        @override
        def bend(self, method: str, path: str, answer: Answer) -> Answer:
            # Namespaces are really made, so that they are really removed.
            return (
                answer
                if path.endswith("/namespaces") or method == "DELETE"
                else replace(answer, code=200, body=body)
            )

        @override
        def bend_event(self, event: Object) -> Object | None:
            found = json.loads(body) if body.startswith(b"{") else {}
            return {"type": "ADDED", "object": found} if event.get("type") == "ADDED" else None

    found = check_server(_wire(whole, Odd), rows, 120)
    assert [one.row for one in found.results] == rows
    assert found.count(Outcome.FAIL) > len(rows) / 2


def test_time_is_bounded(whole: Kube) -> None:
    class Late(Bent):
        @override
        def bend(self, method: str, path: str, answer: Answer) -> Answer:
            if path != "/version":
                self.deadline = min(self.deadline, 0.0) if method != "DELETE" else self.deadline
            return answer

    found = _run(whole, "C*", Late)
    assert "the time for all checks was used up" in {one.seen for one in found.results}


def test_where_nobody_answers_no_row_is_run() -> None:
    with pytest.raises(Unreachable, match="refused"):
        check_server(Wire("http://127.0.0.1:1"), chosen(""), 10)


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [("A1", ["A1"]), ("a1, d22", ["A1", "D22"]), ("C1*", ["C1", "C10", "C11", "C12", "C13"])],
)
def test_rows_are_chosen_by_id(patterns: str, ids: list[str]) -> None:
    assert [row.id for row in chosen(patterns)] == ids


def test_a_row_that_is_not_there_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="no row is called E1"):
        chosen("A1,E1")


def test_ids_are_given_once_and_tell_their_section() -> None:
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids)
    assert ids == [
        f"{letter}{n}"
        for letter, count in zip("ABCD", (13, 9, 13, 22), strict=True)
        for n in range(1, count + 1)
    ]


def test_a_report_counts_its_rows(report: Report) -> None:
    document = as_document(report)
    assert document["summary"] == {"pass": len(ROWS), "fail": 0, "doesNotApply": 0}
    assert document["rows"][0].keys() >= {"id", "assumes", "reliedOnBy", "outcome", "seen"}
