"""Lists and watches: revisions, pages, selectors, and the events that come."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from tests.conformance.exchange import Step, Story
from tests.conformance.stories.telling import (
    CM,
    EVENTS,
    PARTIAL,
    PARTIAL_LIST,
    TABLE,
    WIDGETS,
    WIDGETS_V2,
    YAML,
    cm,
    delete,
    get,
    patch,
    post,
    put,
    watch,
    widget,
)

_THREE: Final = [
    post(CM, cm("a", data={"k": "1"}, meta={"labels": {"app": "x", "n": "1"}}), save="a"),
    post(CM, cm("b", meta={"labels": {"app": "y", "n": "2"}}), save="b"),
    post(CM, cm("c"), save="c"),
]

_NOW: Final = "${c.metadata.resourceVersion}"
_FUTURE: Final = "${c.metadata.resourceVersion+1000000}"
_OLD: Final = "${a.metadata.resourceVersion}"


_KEPT: Final = (
    "upstream's watch cache knows nothing from before it was filled; here history is kept for a time"
)


def _labels(selector: str, at: str = CM, **more: str) -> Step:
    return get(f"{at}?labelSelector={quote(selector)}", **more)


def _fields(selector: str, at: str = CM) -> Step:
    return get(f"{at}?fieldSelector={quote(selector)}")


STORIES: Final[dict[str, Story]] = {
    "lists at revisions": [
        *_THREE,
        get(CM),
        get(f"{CM}?resourceVersion=0"),
        get(f"{CM}?resourceVersion={_NOW}"),
        get(f"{CM}?resourceVersion={_OLD}"),
        get(f"{CM}?resourceVersion={_OLD}&resourceVersionMatch=NotOlderThan"),
        get(f"{CM}?resourceVersion={_OLD}&resourceVersionMatch=Exact"),
        get(f"{CM}?resourceVersion={_NOW}&resourceVersionMatch=Exact&limit=2"),
        get(f"{CM}?resourceVersion={_OLD}&limit=1"),
        get(f"{CM}?resourceVersion=0&limit=1"),
        get(f"{CM}?resourceVersion=0&resourceVersionMatch=Exact"),
        get(f"{CM}?resourceVersionMatch=Exact"),
        get(f"{CM}?resourceVersionMatch=NotOlderThan"),
        get(f"{CM}?resourceVersion=1&resourceVersionMatch=Nearly"),
        get(f"{CM}?resourceVersionMatch=Nearly"),
        get(f"{CM}?resourceVersion=abc"),
        get(f"{CM}?resourceVersion=-1"),
        get(f"{CM}?resourceVersion=abc&resourceVersionMatch=Exact"),
        get(f"{CM}/a?resourceVersion=0"),
        get(f"{CM}/a?resourceVersion={_NOW}"),
        get(f"{CM}/a?resourceVersion=abc"),
        get(f"{CM}?sendInitialEvents=true"),
        get(f"{CM}?sendInitialEvents=false&resourceVersionMatch=NotOlderThan"),
    ],
    "a list of the future": [*_THREE, get(f"{CM}?resourceVersion={_FUTURE}")],
    "an exact list of the future": [
        *_THREE,
        get(f"{CM}?resourceVersion={_FUTURE}&resourceVersionMatch=Exact"),
    ],
    "an object of the future": [*_THREE, get(f"{CM}/a?resourceVersion={_FUTURE}")],
    "lists in pages": [
        *_THREE,
        get(f"{CM}?limit=1", save="p1"),
        # What is written between two pages shows in neither.
        post(CM, cm("bb")),
        get(f"{CM}?limit=1&continue=${{p1.metadata.continue}}", save="p2"),
        get(f"{CM}?limit=1&continue=${{p2.metadata.continue}}"),
        get(f"{CM}?continue=${{p1.metadata.continue}}"),
        get(f"{CM}?limit=1&continue=${{p1.metadata.continue}}&resourceVersion=0"),
        get(f"{CM}?limit=1&continue=${{p1.metadata.continue}}&resourceVersion={_NOW}"),
        get(f"{CM}?limit=1&continue=${{p1.metadata.continue}}&resourceVersionMatch=Exact"),
        get(f"{CM}?limit=1&continue=${{p1.metadata.continue}}&labelSelector=app"),
        get(f"{CM}?limit=1&continue=nonsense"),
        get(f"{CM}?limit=1&continue=bm9uc2Vuc2U"),
        get(f"{CM}?continue="),
        get(f"{CM}?limit=x"),
        get(f"{CM}?limit=-1"),
        get(f"{CM}?limit=0"),
        get(f"{CM}?limit=3"),
        get(f"{CM}?limit=2&labelSelector=app"),
        get(f"{CM}?limit=1&labelSelector=app"),
        get(f"{CM}?limit=1", accept=TABLE),
        get(f"{CM}?limit=1", accept=PARTIAL_LIST),
        get(f"{CM}?timeoutSeconds=x"),
        get(f"{CM}?timeout=x"),
        get(f"{CM}?timeout=5m"),
        get(f"{CM}?limit=1&limit=2"),
    ],
    "selectors": [
        *_THREE,
        _labels("app=x"),
        _labels("app==x"),
        _labels("app!=x"),
        _labels("app in (x,y)"),
        _labels("app notin (x)"),
        _labels("app,n=2"),
        _labels("!app"),
        _labels("n>1"),
        _labels("n>x"),
        _labels("app in x"),
        _labels("app=(x"),
        _labels("=x"),
        _labels("app=x=y"),
        _labels("bad key=x"),
        _labels("app=bad value"),
        _labels("app=" + "v" * 64),
        _labels(",,"),
        _fields("metadata.name=a"),
        _fields("metadata.name!=a"),
        _fields("metadata.name==a,metadata.namespace=nope"),
        _fields("metadata.name=a,metadata.name=b"),
        _fields("metadata.uid=a"),
        _fields("data.k=1"),
        _fields("metadata.name"),
        _fields("metadata.name>a"),
        _fields("metadata.name=a\\,b"),
        _fields("spec.colour=red", WIDGETS),
        _fields("spec.size=1", WIDGETS),
        _fields("spec.colour=red", WIDGETS_V2),
        _fields("metadata.name=x", WIDGETS),
        get(f"{CM}/a?labelSelector=app"),
        get("/api/v1/configmaps?fieldSelector=metadata.namespace%3D${ns}"),
        get(f"{EVENTS}?fieldSelector=type%3DNormal"),
    ],
    "watches from revisions": [
        *_THREE,
        put(f"{CM}/a", cm("a", data={"k": "2"}), save="a2"),
        delete(f"{CM}/b"),
        watch(f"{CM}?watch=1&resourceVersion={_OLD}", 4),
        watch(f"{CM}?watch=true&resourceVersion={_NOW}", 2),
        watch(f"{CM}?watch=1&resourceVersion=0", 2),
        watch(f"{CM}?watch=1", 2),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}&timeoutSeconds=1", 3),
        watch(f"{CM}?watch=0", 0),
        watch(f"{CM}?watch=maybe", 0),
        watch(f"{CM}?watch=1&resourceVersion=abc", 0),
        watch(f"{CM}?watch=1&resourceVersion=1", 1),
        watch(f"{CM}?watch=1&resourceVersion={_FUTURE}&timeoutSeconds=1", 1),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}&resourceVersionMatch=NotOlderThan", 0),
        watch(f"{CM}?watch=1&resourceVersionMatch=Exact&resourceVersion={_NOW}", 0),
        watch(f"{CM}?watch=1&timeoutSeconds=x", 0),
        watch(f"{CM}?watch=1&allowWatchBookmarks=x", 0),
        watch(f"{CM}?watch=1&continue=abc", 0),
        watch(f"{CM}?watch=1&limit=1&resourceVersion=0", 2),
        watch(f"{CM}?watch=1&labelSelector=app%3D%3D%3D", 0),
        watch("/api/v1/watch/namespaces/${ns}/configmaps?resourceVersion=" + _NOW, 2),
        watch("/api/v1/watch/namespaces/${ns}/configmaps/a?resourceVersion=" + _NOW, 1),
        watch(f"{CM}/a?watch=1", 1),
        watch(f"{CM}?fieldSelector=metadata.name%3Da&watch=1&resourceVersion={_OLD}", 1),
        watch("/api/v1/namespaces/missing-one/configmaps?watch=1&timeoutSeconds=1", 1),
    ],
    "watches that begin with what is": [
        *_THREE,
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            4,
        ),
        watch(f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 3),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=0",
            4,
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={_NOW}",
            4,
        ),
        watch(f"{CM}?watch=1&sendInitialEvents=true", 0),
        watch(f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=Exact", 0),
        watch(f"{CM}?watch=1&sendInitialEvents=false", 0),
        watch(
            f"{CM}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            0,
            post(CM, cm("d")),
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion={_NOW}",
            1,
        ),
        watch(f"{CM}?watch=1&sendInitialEvents=maybe", 0),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=abc", 0
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion={_FUTURE}&timeoutSeconds=1",
            1,
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Dx",
            2,
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&limit=1",
            5,
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            5,
            accept=TABLE,
        ),
        watch(
            f"{CM}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            5,
            accept=PARTIAL,
        ),
    ],
    "watches see what enters and leaves": [
        post(CM, cm("zero"), save="c"),
        watch(
            f"{CM}?watch=1&labelSelector=app%3Dx&resourceVersion={_NOW}",
            5,
            post(CM, cm("out")),
            post(CM, cm("in", meta={"labels": {"app": "x"}})),
            patch(f"{CM}/out", {"metadata": {"labels": {"app": "x"}}}),
            patch(f"{CM}/out", {"data": {"k": "v"}}),
            patch(f"{CM}/out", {"metadata": {"labels": {"app": "y"}}}),
            patch(f"{CM}/out", {"data": {"k": "w"}}),
            delete(f"{CM}/out"),
            delete(f"{CM}/in"),
        ),
        watch(
            f"{CM}?watch=1&resourceVersion={_NOW}",
            10,
        ),
        watch(
            f"{CM}?watch=1&resourceVersion={_NOW}",
            8,
            accept=TABLE,
        ),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}&includeObject=None", 1, accept=TABLE),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}", 1, accept=PARTIAL),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}", 0, accept=YAML),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}", 1, accept="application/json;stream=watch"),
        watch(f"{CM}?watch=1&resourceVersion={_NOW}", 0, accept="text/html"),
        post(CM, cm("stay", meta={"finalizers": ["example.com/stay"]}), save="stay"),
        delete(f"{CM}/stay"),
        patch(f"{CM}/stay", {"metadata": {"finalizers": None}}),
        watch(f"{CM}?watch=1&resourceVersion=${{stay.metadata.resourceVersion}}", 2),
    ],
    "watches of custom resources": [
        post(WIDGETS, widget("a", spec={"size": 1}), save="c"),
        patch(f"{WIDGETS}/a", {"spec": {"size": 2}}),
        patch(f"{WIDGETS}/a/status", {"status": {"phase": "x"}}),
        patch(f"{WIDGETS}/a", {"spec": {"colour": "blue"}}),
        delete(f"{WIDGETS}/a"),
        watch(f"{WIDGETS}?watch=1&resourceVersion={_NOW}", 4),
        watch(f"{WIDGETS_V2}?watch=1&resourceVersion={_NOW}", 4),
        watch(f"{WIDGETS}?watch=1&resourceVersion={_NOW}&fieldSelector=spec.colour%3Dred", 3),
        watch(f"{WIDGETS}?watch=1&resourceVersion={_NOW}", 4, accept=TABLE),
        watch(
            f"{WIDGETS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            1,
        ),
        watch(f"{WIDGETS}?watch=1&resourceVersion=1", 1, differs={"answer": _KEPT}),
        watch(f"{WIDGETS}?watch=1&resourceVersion=abc", 0),
    ],
}
