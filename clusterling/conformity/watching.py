"""Section C: resourceVersion, lists and watches."""

from __future__ import annotations

import re
import time
from typing import Final

from clusterling.conformity.row import DoesNotApply, Failed, Section, need, need_ok
from clusterling.conformity.scene import Scene
from clusterling.conformity.wire import Answer, Stream
from clusterling.machinery.meta import Object

C: Final = Section("C", "resourceVersion, lists and watches")

END_OF_LIST: Final = "k8s.io/initial-events-end"

_DECIMAL: Final = re.compile(r"[1-9][0-9]*")
# A watch that begins with what is there.
_FROM_THE_START: Final = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}
_WAIT_S: Final = 5.0
# Far beyond any revision that a server has, and within 63 bits.
_FAR: Final = 10**15


def _version(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("resourceVersion") or "")


def _number(obj: Object) -> int:
    version = _version(obj)
    need(_DECIMAL.fullmatch(version), "a resourceVersion that is no decimal number without leading zeros")
    return int(version)


def _is_end(event: Object) -> bool:
    annotations = (event.get("object") or {}).get("metadata", {}).get("annotations") or {}
    return event.get("type") == "BOOKMARK" and annotations.get(END_OF_LIST) == "true"


def _named(obj: Object) -> str:
    return f"metadata.name={obj['metadata']['name']}"


def _types(events: list[Object]) -> str:
    return ", ".join(str(event.get("type")) for event in events) or "nothing"


@C.row(
    1,
    "resourceVersions of a kind are decimal numbers that rise from write to write",
    "informers, storage migration; official since 1.35 (KEP-5504)",
)
def versions_are_numbers_that_rise(scene: Scene) -> str:
    for make, path in ((scene.configmap, scene.configmaps), (scene.widget, scene.widgets)):
        versions = [make(), make()]
        change: Object = {"metadata": {"labels": {"a": "b"}}}
        answer = scene.wire.patch(f"{path}/{versions[0]['metadata']['name']}", change)
        versions.append(need_ok(answer, "a merge patch"))
        versions.append(need_ok(scene.wire.get(path), "a list"))
        numbers = [_number(one) for one in versions]
        rising = numbers[0] < numbers[1] < numbers[2] <= numbers[3]
        need(rising, "writes do not rise, or a list is older than the writes before it")
    return "decimal and rising, for configmaps and a custom kind"


@C.row(
    2,
    "A watch with `sendInitialEvents` sends what is there and then a bookmark annotated `k8s.io/initial-events-end`, or is a 4xx",
    "client-go since 0.35, kubectl 1.37: one that is ignored hangs every informer, and kubectl delete for 25 s",
)
def initial_events_end_with_a_bookmark(scene: Scene) -> str:
    obj = scene.configmap()
    with scene.wire.watch(scene.configmaps, fieldSelector=_named(obj), **_FROM_THE_START) as stream:
        if stream.code != 200:
            need(400 <= stream.code < 500, f"{stream.code}")
            return f"refused with {stream.code}"
        events = stream.until(_is_end, _WAIT_S)
    need(events and _is_end(events[-1]), f"no such bookmark; came: {_types(events)}")
    need([one["type"] for one in events[:-1]] == ["ADDED"], f"before it came: {_types(events[:-1])}")
    need(_number(events[-1]["object"]) >= _number(obj), "the bookmark is older than the list")
    return "ADDED, and the bookmark"


def _expired(scene: Scene) -> Object:
    """The Status that a watch of a kind answers from before the kind was there. Raises DoesNotApply where there is none."""
    scene.widget()
    with scene.wire.watch(scene.widgets, resourceVersion="1", timeoutSeconds="2") as stream:
        if stream.code != 200:
            raise Failed(f"HTTP {stream.read().told} in place of an event")
        events = stream.until(lambda _: True, _WAIT_S)
        if not events or events[0].get("type") != "ERROR":
            raise DoesNotApply(f"history goes back to revision 1: {_types(events)}")
        try:
            rest = stream.next(_WAIT_S)
        except TimeoutError:
            raise Failed("the watch stays open after its ERROR") from None
    need(rest is None, "events after the ERROR")
    return dict(events[0]["object"])


@C.row(
    3,
    "A watch from too old a resourceVersion is a 200 with one ERROR, a Status of code 410 and reason `Expired`, and ends",
    "reflectors (`isExpiredError`): anything else makes them retry for ever in place of listing again",
)
def too_old_watches_expire(scene: Scene) -> str:
    status = _expired(scene)
    need(
        status.get("kind") == "Status" and status.get("apiVersion") == "v1",
        "the Status lacks kind or apiVersion",
    )
    need(status.get("code") == 410, f"code {status.get('code')}")
    need(status.get("reason") == "Expired", f"reason {status.get('reason')}")
    return "200, one ERROR: 410 Expired; then the end"


@C.row(
    4,
    "Its message is `too old resource version: N (M)`",
    "the Kubernetes clients of Python and Kotlin, which go on from the number",
)
def the_text_of_expiry_has_two_numbers(scene: Scene) -> str:
    message = str(_expired(scene).get("message"))
    need(re.fullmatch(r"too old resource version: \d+ \(\d+\)", message), message)
    return re.sub(r"\d+", "N", message)


@C.row(
    5,
    "A list from the future is a 504 `Timeout` with cause `ResourceVersionTooLarge` and retryAfterSeconds; a watch waits",
    "reflectors (`isTooLargeResourceVersionError`) after a restore; a 410 would make them all list again at once",
)
def the_future_is_waited_for(scene: Scene) -> str:
    answer = scene.wire.get(scene.configmaps, resourceVersion=_FAR, resourceVersionMatch="NotOlderThan")
    need(answer.code == 504, f"the list: {answer.told}")
    details = answer.document.get("details") or {}
    causes = [one.get("reason") for one in details.get("causes") or ()]
    need("ResourceVersionTooLarge" in causes, f"causes: {causes}")
    need(details.get("retryAfterSeconds"), "no retryAfterSeconds")
    with scene.wire.watch(scene.configmaps, resourceVersion=_FAR, timeoutSeconds="1") as stream:
        need(stream.code == 200, f"the watch: {stream.code}")
        events = stream.until(lambda _: True, _WAIT_S)
    need(not events, f"the watch sent {_types(events)}")
    return f"the list: {answer.told}, with the cause; the watch waits"


@C.row(
    6,
    "`resourceVersion=0` is any state, and none is the newest: a list has what was just written",
    "reflectors (`relistResourceVersion`)",
)
def lists_without_a_version_are_current(scene: Scene) -> str:
    for _ in range(5):
        obj = scene.configmap()
        items = need_ok(scene.wire.get(scene.configmaps), "a list")["items"]
        need(
            obj["metadata"]["uid"] in {one["metadata"]["uid"] for one in items},
            "a list lacks what was just written",
        )
    need_ok(scene.wire.get(scene.configmaps, resourceVersion=0), "resourceVersion=0")
    return "five writes, each in the list after it; 0 is answered"


def _life(scene: Scene, stream: Stream, obj: Object) -> tuple[list[Object], Object]:
    """Changes and deletes an object; the events of that, and the object as it was last."""
    path = f"{scene.configmaps}/{obj['metadata']['name']}"
    last = need_ok(scene.wire.patch(path, {"data": {"k": "w"}}), "a merge patch")
    need_ok(scene.wire.delete(path), "a delete")
    return stream.until(lambda event: event.get("type") == "DELETED", _WAIT_S), last


@C.row(
    7,
    "Every event has a resourceVersion, DELETED that of the deletion",
    "client-go's RetryWatcher, which gives up for good otherwise",
)
def events_have_the_version_of_the_change(scene: Scene) -> str:
    obj = scene.configmap()
    with scene.wire.watch(
        scene.configmaps, resourceVersion=_version(obj), fieldSelector=_named(obj)
    ) as stream:
        events, last = _life(scene, stream, obj)
    need([one.get("type") for one in events] == ["MODIFIED", "DELETED"], f"came: {_types(events)}")
    modified, deleted = (_number(one["object"]) for one in events)
    need(modified == _number(last), "MODIFIED has another version than the write was answered with")
    need(deleted > modified, "DELETED has the version of the write before it")
    return "MODIFIED and DELETED, each with its own"


@C.row(
    8,
    "A bookmark's object has apiVersion and kind, and in metadata its resourceVersion",
    "typed clients: those of Java and Scala failed where required fields were absent from what they took for an object",
    "Its metadata may have annotations; a Pod's has `spec: {containers: null}` and `status: {}` too, which is what broke them.",
)
def bookmarks_are_objects_with_a_version_alone(scene: Scene) -> str:
    obj = scene.configmap()
    with scene.wire.watch(scene.configmaps, fieldSelector=_named(obj), **_FROM_THE_START) as stream:
        if stream.code != 200:
            raise DoesNotApply("no initial events, and so no bookmark at once")
        events = stream.until(_is_end, _WAIT_S)
    found = [one["object"] for one in events if one.get("type") == "BOOKMARK"]
    need(found, "no bookmark came")
    need(
        found[0].get("kind") == "ConfigMap" and found[0].get("apiVersion") == "v1",
        "it lacks kind or apiVersion",
    )
    need(_version(found[0]), "it lacks a resourceVersion")
    present = {name for name, value in found[0]["metadata"].items() if value is not None}
    need(present <= {"resourceVersion", "annotations"}, f"its metadata: {', '.join(sorted(present))}")
    return "kind, apiVersion, resourceVersion"


@C.row(
    9,
    "A watch ends when its time is up, cleanly and without an ERROR, and not at once",
    "reflectors (`VeryShortWatchError`), which log an error and back off",
)
def watches_end_cleanly(scene: Scene) -> str:
    begun = time.monotonic()
    version = _version(need_ok(scene.wire.get(scene.configmaps), "a list"))
    name = {"fieldSelector": f"metadata.name={scene.name('nobody')}"}
    with scene.wire.watch(scene.configmaps, resourceVersion=version, timeoutSeconds="2", **name) as stream:
        try:
            event = stream.next(10)
        except TimeoutError:
            raise Failed("a watch of 2 s is open after 10") from None
    need(event is None, f"came: {event and event.get('type')}")
    need(time.monotonic() - begun >= 1, "a watch of 2 s ended within the first")
    return "a clean end"


@C.row(
    10,
    "Pages of one list are of one moment, and a `continue` that is too old is a 410",
    "client-go's pager, kubectl get (500 a page)",
    "No check waits until a token is too old; one that was made up is a 400.",
)
def pages_are_of_one_moment(scene: Scene) -> str:
    label = {"page": scene.run}
    query = {"labelSelector": f"page={scene.run}", "limit": "2"}
    wanted = [scene.configmap(labels=label)["metadata"]["name"] for _ in range(5)]
    page = need_ok(scene.wire.get(scene.configmaps, **query), "the first page")
    need(len(page["items"]) == 2 and page["metadata"].get("continue"), "limit is ignored")
    version, names = _version(page), [one["metadata"]["name"] for one in page["items"]]
    late = scene.configmap("z-late", labels=label)
    while token := page["metadata"].get("continue"):
        need(len(names) <= 10, "the pages do not end")
        page = need_ok(scene.wire.get(scene.configmaps, **query, **{"continue": token}), "a later page")
        need(_version(page) == version, "pages of different versions")
        names += [one["metadata"]["name"] for one in page["items"]]
    need(late["metadata"]["name"] not in names, "what was written meanwhile is in a later page")
    need(sorted(names) == sorted(wanted), "the pages are not what was there")
    made_up = scene.wire.get(scene.configmaps, limit=2, **{"continue": "bm9uc2Vuc2U"})
    need(made_up.code in (400, 410), f"a made-up token: {made_up.told}")
    return f"three pages of one version; a made-up token: {made_up.told}"


@C.row(
    11,
    "A list is a `<Kind>List` with `items`, [] if there are none, and a resourceVersion",
    "clients with typed models: Python, Java",
)
def empty_lists_have_items(scene: Scene) -> str:
    for path, kind in ((scene.configmaps, "ConfigMapList"), (scene.widgets, "WidgetList")):
        found = need_ok(scene.wire.get(path, labelSelector="nobody=has-this"), "a list")
        need(found.get("kind") == kind, f"{kind} is called {found.get('kind')}")
        need(found.get("items") == [], f"{kind} of none has items {found.get('items')}")
        need(_version(found), f"{kind} has no resourceVersion")
    return "[] for configmaps and a custom kind"


@C.row(
    12,
    "To a watch with a selector, an object that leaves it is DELETED and one that enters is ADDED",
    "informers with selectors",
)
def leaving_a_selector_is_a_deletion(scene: Scene) -> str:
    value = scene.name("in")
    obj = scene.configmap(labels={"in": value})
    path = f"{scene.configmaps}/{obj['metadata']['name']}"
    with scene.wire.watch(
        scene.configmaps, resourceVersion=_version(obj), labelSelector=f"in={value}"
    ) as stream:
        out = need_ok(scene.wire.patch(path, {"metadata": {"labels": {"in": "no"}}}), "a patch")
        need_ok(scene.wire.patch(path, {"metadata": {"labels": {"in": value}}}), "a patch")
        events = stream.until(lambda event: event.get("type") == "ADDED", _WAIT_S)
    need([one.get("type") for one in events] == ["DELETED", "ADDED"], f"came: {_types(events)}")
    need(_version(events[0]["object"]) == _version(out), "DELETED has another version than the change")
    return "DELETED with the change's version, ADDED"


def _one(answer: Answer, uid: str) -> bool:
    items = need_ok(answer, "a list with a field selector")["items"]
    return [one["metadata"]["uid"] for one in items] == [uid]


@C.row(
    13,
    "Field selectors know `metadata.name` and `metadata.namespace` for every kind, and `involvedObject.*` for events",
    "kubectl wait, delete, describe, events",
)
def field_selectors_are_served(scene: Scene) -> str:
    for obj, path in ((scene.configmap(), scene.configmaps), (scene.widget(), scene.widgets)):
        selector = f"{_named(obj)},metadata.namespace={scene.namespace}"
        need(
            _one(scene.wire.get(path, fieldSelector=selector), obj["metadata"]["uid"]),
            f"{selector} selects something else",
        )
    scene.requires("v1/events")
    about = {"apiVersion": "v1", "kind": "ConfigMap", "namespace": scene.namespace, "uid": scene.run}
    body: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": scene.name("event")},
        "involvedObject": {**about, "name": scene.run},
        "reason": "Checked",
        "message": "by clusterling check-server",
        "type": "Normal",
    }
    event = scene.made(f"{scene.home}/events", body)
    for name in ("apiVersion", "kind", "namespace", "uid", "name"):
        wanted = body["involvedObject"][name]
        selector = f"involvedObject.{name}={wanted},involvedObject.name={scene.run}"
        found = scene.wire.get(f"{scene.home}/events", fieldSelector=selector)
        need(_one(found, event["metadata"]["uid"]), f"involvedObject.{name} selects something else")
    return "for configmaps and a custom kind; five of involvedObject for events"
