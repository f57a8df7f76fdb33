"""What comes back of what was sent: empty and null fields, zeros, numbers, odd texts; patches of lists; tables."""

from __future__ import annotations

from typing import Final

from tests.conformance.exchange import Story
from tests.conformance.stories.telling import (
    ACCOUNTS,
    CM,
    EVENTS,
    GADGETS,
    JSON_PATCH,
    LEASES,
    NS,
    SECRETS,
    STRATEGIC,
    TABLE,
    WIDGETS,
    WIDGETS_V2,
    YAML,
    cm,
    delete,
    gadget,
    get,
    obj,
    patch,
    post,
    put,
    watch,
    widget,
)

_NEW_EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/${ns}/events"
_A: Final = f"{ACCOUNTS}/a"


def _account(name: str, **more: object) -> object:
    return obj("v1", "ServiceAccount", name, **more)


def _lease(name: str, **spec: object) -> object:
    return obj("coordination.k8s.io/v1", "Lease", name, spec=spec)


_STRANGERS: Final = "strangers are not told what they may not do: they would learn which clusters there are"

STORIES: Final[dict[str, Story]] = {
    "empty and null fields of built-in kinds": [
        post(
            CM,
            cm(
                "a",
                data={},
                binaryData={},
                immutable=False,
                meta={"labels": {}, "annotations": {}, "finalizers": [], "ownerReferences": []},
            ),
        ),
        post(
            CM,
            cm(
                "b",
                data=None,
                immutable=None,
                meta={
                    "labels": None,
                    "annotations": None,
                    "finalizers": None,
                    "ownerReferences": None,
                    "generateName": None,
                },
            ),
        ),
        post(CM, cm("c", data={"k": ""}, meta={"labels": {"x": ""}, "annotations": {"x": None}})),
        post(SECRETS, obj("v1", "Secret", "a", data={}, stringData={}, type="")),
        post(SECRETS, obj("v1", "Secret", "b", data={"k": ""}, stringData={"l": ""}, type=None)),
        post(SECRETS, obj("v1", "Secret", "c", data={"k": None}, immutable=False)),
        post(ACCOUNTS, _account("a", secrets=[], imagePullSecrets=[])),
        post(ACCOUNTS, _account("b", secrets=[{}], imagePullSecrets=[{"name": ""}])),
        post(ACCOUNTS, _account("c", secrets=None, imagePullSecrets=[None])),
        post(LEASES, _lease("a", leaseTransitions=0, holderIdentity="", leaseDurationSeconds=None)),
        post(LEASES, obj("coordination.k8s.io/v1", "Lease", "b", spec=None)),
        post(LEASES, _lease("c", strategy="OldestEmulationVersion")),
        post(LEASES, _lease("d", preferredHolder="x")),
        post(
            EVENTS,
            obj(
                "v1",
                "Event",
                "a",
                involvedObject={"namespace": "${ns}"},
                count=0,
                firstTimestamp=None,
                type="",
                source={},
            ),
        ),
        post(
            EVENTS,
            obj(
                "v1",
                "Event",
                "b",
                involvedObject={"namespace": "${ns}"},
                count=3,
                firstTimestamp="2026-01-01T01:00:00+01:00",
                series={"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"},
            ),
        ),
        post(EVENTS, obj("v1", "Event", "c", involvedObject={"namespace": "${ns}"}, firstTimestamp="soon")),
        get(f"{_NEW_EVENTS}/b"),
        patch(f"{_NEW_EVENTS}/b", {"note": "new"}),
        patch(f"{CM}/c", {"data": {}}),
        patch(f"{CM}/c", {"data": None}),
        patch(f"{CM}/c", {"metadata": {"labels": {}}}),
        patch(f"{CM}/c", {"metadata": {"labels": None, "annotations": None}}),
        patch(f"{CM}/c", {"metadata": None}),
        patch(f"{CM}/c", {"metadata": []}),
        put(
            f"{CM}/c",
            cm(
                "c",
                meta={
                    "creationTimestamp": None,
                    "generation": None,
                    "deletionTimestamp": None,
                    "resourceVersion": None,
                    "uid": None,
                },
            ),
        ),
        put(f"{NS}", obj("v1", "Namespace", "${ns}", spec={}, status={})),
        patch(NS, {"metadata": {"labels": None}}),
        patch(NS, {"spec": None}),
    ],
    "empty and null fields of custom resources": [
        post(
            WIDGETS,
            widget(
                "a",
                spec={"size": 1, "tags": [], "parts": [], "free": {}, "numbers": {}},
                status={},
                meta={"labels": {}, "annotations": {}, "finalizers": [], "ownerReferences": []},
            ),
        ),
        post(
            WIDGETS,
            widget(
                "b",
                spec={"size": 1, "tags": None, "free": None},
                status=None,
                meta={"labels": None, "annotations": None, "generateName": None},
            ),
        ),
        post(WIDGETS, widget("c", spec={"size": 1, "tags": [None]})),
        post(WIDGETS, widget("c", spec={"size": 1, "parts": [None]})),
        post(WIDGETS, widget("c", spec={"size": 1, "parts": [{"id": "x", "count": None}]})),
        patch(f"{WIDGETS}/a", {"spec": {"note": "x"}}),
        patch(f"{WIDGETS}/a", {"spec": {"note": None}}),
        patch(f"{WIDGETS}/a", {"spec": {"colour": None}}),
        patch(f"{WIDGETS}/a", [{"op": "add", "path": "/spec/note", "value": None}], JSON_PATCH),
        patch(f"{WIDGETS}/a", {"metadata": {"labels": {"x": "y"}}}),
        patch(f"{WIDGETS}/a", {"metadata": {"labels": None}}),
        patch(f"{WIDGETS}/a", {"metadata": None}),
        patch(f"{WIDGETS}/a", {"metadata": {"generation": 9, "creationTimestamp": None, "uid": None}}),
        post(GADGETS, gadget("${ns}-n", spec={"x": None, "y": [None, {"z": None}]}, top=None)),
        patch(f"{GADGETS}/${{ns}}-n", {"spec": {"y": []}}),
        post(GADGETS, gadget("${ns}-p", spec=None)),
        delete(f"{GADGETS}/${{ns}}-n"),
    ],
    "numbers and texts": [
        post(
            GADGETS,
            b'{"apiVersion":"${group}/v1","kind":"Gadget","metadata":{"name":"${ns}-1"},"spec":{"a":1.0,"b":1e3,"c":9007199254740993,"d":9223372036854775807,"e":9223372036854775808,"f":1.5,"g":-0,"h":1e-7,"i":123456789012345678901234567890}}',
            "application/json",
            differs={"answer.spec.e": "the same float, written with an exponent"},
        ),
        post(
            GADGETS,
            b'{"spec":{"somewhere":{"here":1e400}},"apiVersion":"${group}/v1","kind":"Gadget","metadata":{"name":"${ns}-2"}}',
            "application/json",
            differs={"answer.message": "the first decoder finds it, not the second"},
        ),
        post(
            GADGETS,
            b'{"apiVersion":"${group}/v1","kind":"Gadget","metadata":{"name":"${ns}-3"},"spec":{"a":"\\u00e9\\ud83d\\ude00","b":"<a&b>","c":"\\ud800","d":"a\\u0000b"}}',
            "application/json",
        ),
        post(
            GADGETS,
            b"spec: {a: yes, b: 0x10, c: 1_000, d: 010, e: ~, f: 1.0, g: 2026-01-01}\napiVersion: ${group}/v1\nkind: Gadget\nmetadata: {name: ${ns}-4}\n",
            YAML,
        ),
        post(
            GADGETS,
            b"apiVersion: ${group}/v1\nkind: Gadget\nmetadata: {name: ${ns}-5}\nspec: &x {a: 1}\nother: *x\n",
            YAML,
        ),
        post(
            CM,
            cm(
                "a",
                data={
                    "a.b-c_D": "\u00e9\u2028\U0001f600",
                    "html": '<a href="x">&</a>',
                    "line": "a\nb\tc\r\n",
                },
            ),
        ),
        get(f"{CM}/a", accept=YAML),
        post(
            CM,
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"},"data":{"k":"\xff"}}',
            "application/json",
        ),
        post(
            CM,
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"\\ud800"}}',
            "application/json",
        ),
        post(CM, cm("d", data={"k" * 253: "v"})),
        post(CM, cm("e", data={"k" * 254: "v"})),
        post(CM, cm("f", data={"..": "v"})),
        post(CM, cm("g", data={"..x": "v", "a/b": "v"})),
        post(CM, cm("h", meta={"labels": {"a" * 64: "v"}})),
        post(CM, cm("h", meta={"labels": {"example.com/" + "a" * 63: "v" * 63}})),
        post(CM, cm("i", meta={"annotations": {"Example.Com/x": "any\ntext"}})),
        post(WIDGETS, widget("a", spec={"size": 1, "numbers": {"a": 1, "b": 1.0, "c": 1.5, "d": -0.0}})),
        post(
            WIDGETS,
            b'{"apiVersion":"${group}/v1","kind":"Widget","metadata":{"name":"b"},"spec":{"size":1.0}}',
            "application/json",
        ),
        post(
            WIDGETS,
            b'{"apiVersion":"${group}/v1","kind":"Widget","metadata":{"name":"c"},"spec":{"size":1e1}}',
            "application/json",
        ),
        post(
            WIDGETS,
            b'{"apiVersion":"${group}/v1","kind":"Widget","metadata":{"name":"d"},"spec":{"size":true}}',
            "application/json",
        ),
        post(WIDGETS, widget("e", spec={"size": 1, "port": 1.5})),
        post(WIDGETS, widget("f", spec={"size": 1, "when": "2026-02-30T00:00:00Z"})),
        post(WIDGETS, widget("g", spec={"size": 1, "name": "abcdefghij"})),
    ],
    "lists are merged by strategic patches": [
        post(CM, cm("o"), save="o"),
        post(
            ACCOUNTS,
            _account(
                "a",
                imagePullSecrets=[{"name": "one"}, {"name": "two"}],
                secrets=[{"name": "s"}],
                meta={"finalizers": ["example.com/a"], "labels": {"x": "1", "y": "2"}},
            ),
        ),
        patch(_A, {"imagePullSecrets": [{"name": "three"}]}, STRATEGIC),
        patch(_A, {"imagePullSecrets": [{"name": "one", "$patch": "delete"}]}, STRATEGIC),
        patch(_A, {"imagePullSecrets": [{"$patch": "replace"}, {"name": "only"}]}, STRATEGIC),
        put(
            _A,
            _account(
                "a",
                imagePullSecrets=[{"name": "only"}],
                secrets=[{"name": "s"}],
                meta={"finalizers": ["example.com/a"], "labels": {"x": "1"}},
            ),
        ),
        patch(
            _A,
            {
                "$setElementOrder/secrets": [{"name": "new"}, {"name": "s"}],
                "secrets": [{"name": "new"}],
            },
            STRATEGIC,
        ),
        patch(_A, {"secrets": [{"name": "s", "$patch": "delete"}]}, STRATEGIC),
        patch(_A, {"$setElementOrder/secrets": [{"name": "x"}], "secrets": [{"name": "y"}]}, STRATEGIC),
        patch(_A, {"secrets": [{"name": "t"}]}, STRATEGIC),
        patch(_A, {"metadata": {"finalizers": ["example.com/b"]}}, STRATEGIC),
        patch(
            _A,
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a", "example.com/b"]}},
            STRATEGIC,
        ),
        patch(_A, {"metadata": {"labels": {"x": None, "z": "3"}}}, STRATEGIC),
        patch(_A, {"metadata": {"labels": {"$patch": "replace", "only": "1"}}}, STRATEGIC),
        patch(
            _A,
            {
                "metadata": {
                    "ownerReferences": [
                        {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "${o.metadata.uid}"}
                    ]
                }
            },
            STRATEGIC,
        ),
        patch(
            _A,
            {"metadata": {"ownerReferences": [{"uid": "${o.metadata.uid}", "controller": True}]}},
            STRATEGIC,
        ),
        patch(
            _A,
            {"metadata": {"ownerReferences": [{"uid": "${o.metadata.uid}", "$patch": "delete"}]}},
            STRATEGIC,
        ),
        patch(_A, {"imagePullSecrets": [{"other": "x"}]}, STRATEGIC),
        patch(
            _A,
            {"imagePullSecrets": "x"},
            STRATEGIC,
        ),
        patch(_A, {"imagePullSecrets": None}, STRATEGIC),
        patch(_A, {"$patch": "replace", "metadata": {"name": "a"}}, STRATEGIC),
        patch(_A, {"kind": "Other", "apiVersion": "v9"}, STRATEGIC),
        patch(_A, {"$patch": "fly"}, STRATEGIC),
        patch(_A, {"$retainKeys": ["metadata"]}, STRATEGIC),
        patch(_A, [1], STRATEGIC),
        patch(_A, b"{", STRATEGIC),
        patch(_A, {"metadata": {"resourceVersion": "1"}}, STRATEGIC),
        get(_A),
    ],
    "json patches": [
        post(
            CM, cm("a", data={"k": "v", "a/b": "x"}, meta={"finalizers": ["example.com/a", "example.com/b"]})
        ),
        patch(
            f"{CM}/a",
            [{"op": "add", "path": "/data/new", "value": "x"}, {"op": "remove", "path": "/data/k"}],
            JSON_PATCH,
        ),
        patch(f"{CM}/a", [{"op": "copy", "from": "/data/new", "path": "/data/copy"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "move", "from": "/data/new", "path": "/data/moved"}], JSON_PATCH),
        patch(
            f"{CM}/a",
            [{"op": "replace", "path": "/metadata/finalizers/0", "value": "example.com/c"}],
            JSON_PATCH,
        ),
        patch(
            f"{CM}/a", [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/d"}], JSON_PATCH
        ),
        patch(f"{CM}/a", [{"op": "remove", "path": "/metadata/finalizers/9"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "replace", "path": "/data/missing", "value": "x"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "add", "path": "/none/missing", "value": "x"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "add", "path": "data", "value": "x"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "add", "path": "/data/n"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "test", "path": "/data/moved", "value": "x"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "test", "path": "/data/missing", "value": None}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "test", "path": "/metadata/name", "value": "b"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "copy", "from": "/data/gone", "path": "/data/x"}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "replace", "path": "", "value": {"data": {}}}], JSON_PATCH),
        patch(f"{CM}/a", [{"op": "replace", "path": "/data", "value": 1}], JSON_PATCH),
        patch(f"{CM}/a", [{"path": "/data/x", "value": "x"}], JSON_PATCH),
        patch(f"{CM}/a", [], JSON_PATCH),
        patch(f"{CM}/a", b"null", JSON_PATCH),
        patch(f"{CM}/a", b"[1]", JSON_PATCH),
        patch(f"{CM}/a", [{"op": "add", "path": "/data/x", "value": "y"}] * 10001, JSON_PATCH),
    ],
    "what changes nothing is no change": [
        post(CM, cm("a", data={"k": "v"}), save="a"),
        put(f"{CM}/a", cm("a", data={"k": "v"})),
        patch(f"{CM}/a", {"data": {"k": "v"}}),
        patch(f"{CM}/a", {}),
        patch(f"{CM}/a", [], JSON_PATCH),
        patch(f"{CM}/a", {"unknown": 1}),
        post(WIDGETS, widget("w", spec={"size": 1}), save="w"),
        patch(f"{WIDGETS}/w", {"spec": {"size": 1, "unknown": True}}),
        patch(f"{WIDGETS}/w", {"status": {"phase": "elsewhere"}}),
        watch(f"{CM}?watch=1&resourceVersion=${{a.metadata.resourceVersion}}", 0),
        watch(f"{WIDGETS}?watch=1&resourceVersion=${{w.metadata.resourceVersion}}", 0),
    ],
    "tables of every kind": [
        post(CM, cm("a", data={"k": "v"}, binaryData={"b": "eA=="})),
        post(SECRETS, obj("v1", "Secret", "a", data={"k": "dg=="})),
        post(ACCOUNTS, _account("a", secrets=[{"name": "x"}])),
        post(LEASES, _lease("a", holderIdentity="me")),
        post(
            EVENTS,
            obj(
                "v1",
                "Event",
                "a",
                involvedObject={"kind": "ConfigMap", "name": "a", "namespace": "${ns}", "fieldPath": "x"},
                reason="Why",
                message=" text\n",
                type="Warning",
                count=2,
                firstTimestamp="2001-01-01T00:00:00Z",
                lastTimestamp="2001-01-01T00:00:00Z",
                source={"component": "c", "host": "h"},
            ),
        ),
        post(
            EVENTS,
            obj(
                "v1",
                "Event",
                "b",
                involvedObject={"kind": "ConfigMap", "name": "a", "namespace": "${ns}"},
                eventTime="2001-01-01T00:00:00.000000Z",
                reportingComponent="r",
                reportingInstance="i",
                action="Do",
                reason="Why",
                type="Normal",
            ),
        ),
        get(f"{CM}/a", accept=TABLE),
        get(f"{SECRETS}/a", accept=TABLE),
        get(f"{ACCOUNTS}/a", accept=TABLE),
        get(f"{LEASES}/a", accept=TABLE),
        get(EVENTS, accept=TABLE),
        get(_NEW_EVENTS, accept=TABLE),
        get(NS, accept=TABLE),
        post(WIDGETS, widget("a", spec={"size": 1})),
        get(f"{WIDGETS}/a", accept=TABLE),
        get(f"{WIDGETS_V2}/a", accept=TABLE),
        get(f"{WIDGETS}?includeObject=Object", accept=TABLE),
        delete(f"{WIDGETS}/a", accept=TABLE),
        get(f"{GADGETS}?labelSelector=none", accept=TABLE),
    ],
    "another version of a custom resource": [
        post(WIDGETS_V2, widget("a", "v2", spec={"size": 1, "more": {"x": 1}}, status={"phase": "x"})),
        put(f"{WIDGETS_V2}/a", widget("a", "v2", spec={"size": 2}, meta={"resourceVersion": "1"})),
        patch(f"{WIDGETS_V2}/a/status", {"status": {"phase": "y", "more": 1}}),
        patch(f"{WIDGETS_V2}/a/scale", {"spec": {"replicas": 3}}),
        post(WIDGETS_V2, widget("b", "v2", spec={"size": -1})),
        post(WIDGETS_V2, widget("c", "v2")),
        post(f"{WIDGETS_V2}?dryRun=All", widget("d", "v2", spec={"size": 1, "more": 1})),
        patch(f"{WIDGETS_V2}/a?dryRun=All", {"spec": {"more": 1, "size": 5}}),
        get(f"{WIDGETS}/a"),
        get(f"{WIDGETS}/b"),
        get(f"{WIDGETS}/c"),
        patch(f"{WIDGETS}/b", {"metadata": {"labels": {"x": "y"}}}),
        patch(f"{WIDGETS}/b", {"spec": {"colour": "green"}}),
        delete(f"{WIDGETS_V2}/a"),
        delete(WIDGETS_V2),
    ],
    "who asks": [
        get(
            CM,
            headers={"Authorization": ""},
            differs={"": _STRANGERS},
        ),
        get(CM, headers={"Authorization": "Bearer wrong"}),
        get(CM, headers={"Authorization": "Basic eDp5"}, differs={"": _STRANGERS}),
        get(
            CM,
            headers={"Authorization": "Bearer"},
            differs={"": _STRANGERS},
        ),
        get("/version", headers={"Authorization": "Bearer wrong"}),
        get("/livez", headers={"Authorization": ""}),
        get("/nothing", headers={"Authorization": "Bearer wrong"}),
    ],
}
