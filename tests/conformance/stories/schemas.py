"""What a schema makes of a custom resource: one thing tried at a time, for upstream tells several in no order."""

from __future__ import annotations

from typing import Final

from tests.conformance.exchange import Json, Step, Story
from tests.conformance.stories.telling import JSON_PATCH, get, obj, patch, post, put

_SAMPLES: Final = "/apis/${group}/v1/namespaces/${ns}/samples"
_PLAIN: Final = f"{_SAMPLES}?dryRun=All"
_POD: Final = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}


def _sample(name: str = "s", **more: Json) -> Json:
    return obj("${group}/v1", "Sample", name, **more)


def _each(field: str, *values: Json) -> list[Step]:
    """Each value in a sample of its own, not kept."""
    return [post(_PLAIN, _sample(spec={field: value})) for value in values]


STORIES: Final[dict[str, Story]] = {
    "values are judged by their schema": [
        *_each("day", "2026-02-28", "2026-02-30", "x", 1),
        *_each("span", "1h30m", "3 weeks", "1 hour", "soon", ""),
        *_each("address", "10.0.0.1", "10.0.0", "::1", "010.0.0.1"),
        *_each("range", "10.0.0.0/8", "10.0.0.0", "10.0.0.1/8", "::/0"),
        *_each("mail", "a@example.com", "A <a@example.com>", "nobody"),
        *_each(
            "id", "00000000-0000-0000-0000-000000000000", "00000000", "G0000000-0000-0000-0000-000000000000"
        ),
        *_each("raw", "eA==", "x", "not base64!", ""),
        *_each("host", "example.com", "-bad-", "a" * 64),
        *_each("link", "https://example.com/x", "nowhere", "://"),
        *_each("small", 2147483647, 2147483648, -2147483649, 1.5),
        *_each("step", 10, 11, 0, -5),
        *_each("above", 1, 1.5, "2"),
        *_each("short", "a", "ab", "abcd", "\u00e9\u00e9\u00e9"),
        *_each("choice", 1, 4, "1", 1.0),
        *_each("map", {"a": 1}, {"a": 1, "b": 2}, {"a": "x"}, {"a": None}, []),
        *_each("few", [], ["a"], ["a", "b", "c"], [1], "a", [None]),
        *_each("either", 3, 9, "abc", "ABC", True, 1.5, [], {}),
        *_each("one", {}, {"x": "a"}, {"x": "a", "y": "b"}),
        *_each("no", "good", "bad"),
        *_each("mode", None, "", "x", 1),
    ],
    "schemas prune and default": [
        post(_PLAIN, _sample()),
        post(_PLAIN, _sample(spec={})),
        post(_PLAIN, _sample(spec=None)),
        post(_PLAIN, _sample(status={"x": 1}, other=1)),
        *_each(
            "nest", [{}], [{"a": None}], [{"b": {}}], [{"b": None}], [{"c": 1, "b": {"d": 1}}], [None], [1]
        ),
        *_each("perhaps", None, {}, {"p": None}, {"p": "r", "o": 1}),
        *_each("open", {"x": {"y": 1}, "known": {"k": 1, "z": 2}}, {"known": {"k": "x"}}, {"known": None}),
        *_each(
            "embedded",
            _POD,
            {},
            {"kind": "X"},
            {"apiVersion": "v1", "kind": ""},
            {"apiVersion": "a/b/c", "kind": "X"},
        ),
        *_each(
            "embedded",
            {**_POD, "metadata": {"name": "Bad_"}},
            {**_POD, "metadata": {"name": "x", "strange": 1}},
        ),
        post(
            _PLAIN,
            _sample(spec={"embedded": {**_POD, "metadata": "x"}}),
        ),
        *_each("embedded", {**_POD, "spec": {"any": "thing"}}),
        *_each("closed", {**_POD, "spec": {"gone": 1}, "status": {}}),
        post(
            f"{_PLAIN}&fieldValidation=Strict",
            _sample(spec={"nest": [{"c": 1}], "open": {"known": {"z": 1}}}),
        ),
        post(
            f"{_PLAIN}&fieldValidation=Strict",
            _sample(spec={"embedded": {**_POD, "metadata": {"strange": 1}}}),
        ),
    ],
    "wrong values that are there already": [
        post(_SAMPLES, _sample(spec={"short": "ab"}), save="s"),
        patch(f"{_SAMPLES}/s", {"spec": {"short": "a"}}),
        patch(f"{_SAMPLES}/s", {"spec": {"nest": [{}]}}),
        patch(f"{_SAMPLES}/s", [{"op": "add", "path": "/spec/nest/-", "value": {"a": "y"}}], JSON_PATCH),
        patch(f"{_SAMPLES}/s", {"status": {"any": 1}}),
        put(f"{_SAMPLES}/s", _sample(spec=None, meta={"resourceVersion": "${s.metadata.resourceVersion}"})),
        get(f"{_SAMPLES}/s"),
        get(f"{_SAMPLES}/s/status"),
        get(f"{_SAMPLES}/s/scale"),
        patch(f"{_SAMPLES}/s/scale", {"spec": {"replicas": 1}}),
    ],
}
