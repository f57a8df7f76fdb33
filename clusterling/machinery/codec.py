"""Between bytes and objects: JSON bodies in, stored bytes out, and splices into stored bytes.

Theory of operation
-------------------
An object is stored as the JSON that answers carry, in one layout: `{"apiVersion":…,"kind":…,"metadata":{…}`
first, then the rest in the order given, without resourceVersion (decision 15). The text `"metadata":{` cannot
occur before the real one: inside a JSON string its quotes would be escaped. So the resourceVersion goes in by
one search and one concatenation, and the apiVersion is replaced at a fixed offset.

Decoding takes the fast path unless something is odd (decision 17). What is odd is found without looking at
every byte: encoding the decoded object again can only make it shorter (numbers with an exponent aside), and by
five bytes at least for a key given twice, so a smaller difference proves that there was none. Otherwise quotes are counted. Only a mismatch runs
the exact parser, `strictjson`, which also has Go's words for whatever is not JSON.

Rules of this file: nothing here keeps what orjson returned (its buffers are larger than their content and
would stay so while kept), and nothing walks an object on the way in unless its bytes say that it must.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from clusterling.machinery import strictjson, yaml
from clusterling.machinery.errors import ApiError, bad_request, go_quote, too_large
from clusterling.machinery.gotext import json_type
from clusterling.machinery.meta import GroupVersion, Object

BODY_BYTES_UNCOUNTED: Final = 32 * 1024
TOKENS_MAX: Final = 500_000
DEPTH_MAX: Final = strictjson.DEPTH_MAX

OUTLINED_BYTES_MIN: Final = 32 * 1024  # What is smaller is decoded whole sooner than it is taken apart.

_DUPLICATE_BYTES_MIN: Final = 5  # `"":0,`
_SUMMARY_BYTES_MAX: Final = 30
_HEAD: Final = b'{"apiVersion":"'
_METADATA: Final = b'"metadata":{'
_HEAD_STRUCT: Final = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the request's path says of its body, for upstream's defaults and messages.

    `typed`: a kind that upstream has a Go type for: apiVersion and kind may be left out, and are filled in.
    """

    api_version: str = ""
    kind: str = ""
    typed: bool = False


ANYTHING: Final = Expected()


def _float(text: str) -> int | float:
    if "e" in text or "E" in text:
        raise ValueError("read exactly: written out it may be longer than it was")
    return strictjson.integral(float(text), text)


_decoder: Final = msgspec.json.Decoder(float_hook=_float)


def decode_json(body: bytes, expected: Expected = ANYTHING) -> tuple[Object, list[str]]:
    """The object in a request's body, and `duplicate field "spec.x"` for each key given twice.

    The object is a map with apiVersion and kind as strings and, if there is metadata, a map for it.
    Raises ApiError: 400 in upstream's words, 413 over `TOKENS_MAX` tokens.
    """
    try:
        value, duplicates = parse_json(body)
        return as_object(value, body, expected), duplicates
    except strictjson.JsonError as error:
        raise unrecognized(f"couldn't get version/kind; json parse error: {error}", body, expected) from error


def decode_yaml(body: bytes, expected: Expected = ANYTHING) -> tuple[Object, list[str]]:
    """`decode_json` for YAML: duplicates come as one text, `yaml: unmarshal errors:\n  line 3: key "x" already set in map`."""
    try:
        value, duplicates = yaml.parse_yaml(body)
    except yaml.YamlError as error:
        raise unrecognized(str(error), body, expected) from error
    return as_object(value, body, expected), duplicates


def parse_json(body: bytes) -> tuple[Any, list[str]]:
    """Any JSON value (a patch may be an array), and its duplicate fields.

    Integers beyond int64 are floats and integral floats integers, as in Go's unstructured objects once they
    were stored. Raises strictjson.JsonError where it is not JSON; ApiError for what is too large or too deep.
    """
    check_tokens(body)
    try:
        value = _decoder.decode(body)
        again = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError):
        # Not JSON, not UTF-8, too deep, a number out of range, or an integer that takes more than 53 bits.
        return _parse_exactly(body)
    if len(body) - len(again) >= _DUPLICATE_BYTES_MIN and (
        body.count(b'"') != again.count(b'"') or b"\\u0022" in body
    ):
        return _parse_exactly(body)
    if len(body) > 2 * DEPTH_MAX and _few(body, b"{") + _few(body, b"[") > DEPTH_MAX:
        check_depth(value)
    return value, []


def _few(body: bytes, byte: bytes) -> int:
    """How often it occurs, at most `DEPTH_MAX` + 1: replacing leaps from one to the next, where counting looks at all."""
    return len(body) - len(body.replace(byte, b"", DEPTH_MAX + 1))


def _parse_exactly(body: bytes) -> tuple[Any, list[str]]:
    try:
        return strictjson.parse(body)
    except strictjson.DepthError as error:
        raise bad_request(f"the body of the request is {error}") from error


def check_tokens(body: bytes) -> None:
    """Raises ApiError 413 for a body of more than `TOKENS_MAX` tokens; never costs more than a few copies of it.

    A token is a string or one of `{ [ , :`: 3 MB of `[]` would hold the interpreter for 300 ms.
    """
    if len(body) <= BODY_BYTES_UNCOUNTED:
        return
    if _structural(body) + body.count(b'"') // 2 <= TOKENS_MAX:
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = bare.count(b'"') // 2
    if strings > TOKENS_MAX or strings + _structural(b"".join(bare.split(b'"')[::2])) > TOKENS_MAX:
        raise too_large(f"more than {TOKENS_MAX} JSON tokens")


def _structural(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[") + text.count(b",") + text.count(b":")


def check_depth(value: Any, levels: int = DEPTH_MAX) -> None:
    """Raises ApiError 400 for a value nested deeper than so many levels; level by level, so never by recursion."""
    level = [value]
    for _ in range(levels):
        below: list[Any] = []
        for one in level:
            if type(one) is dict:
                below += [child for child in one.values() if type(child) in (dict, list)]
            elif type(one) is list:
                below += [child for child in one if type(child) in (dict, list)]
        if not below:
            return
        level = below
    raise bad_request(f"the body of the request is nested deeper than {DEPTH_MAX} levels")


def as_object(value: Any, body: bytes, expected: Expected = ANYTHING) -> Object:
    """The decoded value checked (and, for typed kinds, completed) as the head of an object. Raises ApiError 400.

    Upstream: apimachinery/pkg/runtime/serializer/json (Decode, SimpleMetaFactory.Interpret).
    """
    if value is None and expected.typed:
        value = {}
    if not isinstance(value, dict):
        if value is None:
            raise _missing("Kind", body, expected)
        what = json_type(value)
        raise unrecognized(
            "couldn't get version/kind; json parse error: "
            f"json: cannot unmarshal {what} into Go value of type {_HEAD_STRUCT}",
            body,
            expected,
        )
    api_version, kind = value.get("apiVersion"), value.get("kind")
    if type(api_version) is not str or type(kind) is not str or not api_version or not kind:
        api_version, kind = _complete(value, body, expected)
    if api_version != expected.api_version:
        _check_group_version(api_version, body, expected)
    if type(value.get("metadata")) is not dict and "metadata" in value:
        _check_metadata(value, expected)
    return value


def _complete(value: Object, body: bytes, expected: Expected) -> tuple[str, str]:
    for key in ("apiVersion", "kind"):
        found = value.get(key)
        if found is not None and not isinstance(found, str):
            raise unrecognized(
                "couldn't get version/kind; json parse error: json: cannot unmarshal "
                f"{json_type(found)} into Go struct field .{key} of type string",
                body,
                expected,
            )
    api_version, kind = value.get("apiVersion") or "", value.get("kind") or ""
    if expected.typed:
        api_version, kind = api_version or expected.api_version, kind or expected.kind
        value["apiVersion"], value["kind"] = api_version, kind
    if not kind:
        raise _missing("Kind", body, expected)
    if not api_version and not expected.api_version:
        raise _missing("apiVersion", body, expected)
    if not api_version:
        raise bad_request(
            f"the API version in the data () does not match the expected API version ({expected.api_version})"
        )
    return api_version, kind


def _check_group_version(api_version: str, body: bytes, expected: Expected) -> None:
    try:
        GroupVersion.parse(api_version)
    except ValueError as error:
        raise unrecognized(str(error), body, expected) from error


def _check_metadata(value: Object, expected: Expected) -> None:
    metadata = value.get("metadata")
    if metadata is None:
        value["metadata"] = {}
        return
    what = json_type(metadata)
    kind = value["kind"]
    where = f"struct field {kind}.metadata" if expected.typed else "value"
    problem = f"json: cannot unmarshal {what} into Go {where} of type v1.ObjectMeta"
    raise cannot_be_handled(kind, value["apiVersion"], expected.kind or kind, problem)


def cannot_be_handled(kind: str, api_version: str, expected_kind: str, problem: str) -> ApiError:
    """400 for a body whose kind is known and whose content is wrong (upstream: transformDecodeError).

    With `problem` = `strict decoding error: unknown field "spec.x", duplicate field "spec.y"` it is the answer
    to fieldValidation=Strict.
    """
    version = GroupVersion.parse(api_version).version
    return bad_request(
        f"{kind} in version {go_quote(version)} cannot be handled as a {expected_kind}: {problem}"
    )


def unrecognized(problem: str, body: bytes, expected: Expected = ANYTHING) -> ApiError:
    """400 for a body that does not even name its kind, in upstream's words."""
    return bad_request(
        f"the object provided is unrecognized (must be of type {expected.kind}): {problem} ({_summary(body)})"
    )


def _missing(what: str, body: bytes, expected: Expected) -> ApiError:
    return unrecognized(f"Object '{what}' is missing in '{body.decode(errors='replace')}'", body, expected)


def _summary(body: bytes) -> str:
    # apiserver/pkg/endpoints/handlers/rest.go, summarizeData
    if not body:
        return "<empty>"
    cut, more = body[:_SUMMARY_BYTES_MAX], " ..." if len(body) > _SUMMARY_BYTES_MAX else ""
    return (cut.decode(errors="replace") if body.startswith(b"{") else cut.hex()) + more


def encode_stored(obj: Object) -> bytes:
    """The object as it is stored: without resourceVersion, which `with_revision` puts in.

    The bytes are the caller's to keep: no larger than they look.
    """
    metadata = obj.get("metadata") or {}
    if "resourceVersion" in metadata:
        metadata = dict(metadata)
        del metadata["resourceVersion"]
    # Keys keep the place where they are first named.
    ordered: Object = {"apiVersion": "", "kind": "", "metadata": {}, **obj}
    ordered["metadata"] = metadata
    return _owned(orjson.dumps(ordered, default=as_written))


def as_written(value: object) -> orjson.Fragment:
    """orjson's `default` for what was left as it was written."""
    if isinstance(value, msgspec.Raw):
        return orjson.Fragment(bytes(value))
    raise TypeError(f"{type(value)} is not JSON")


_parts: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_lists: Final = msgspec.json.Decoder(list[msgspec.Raw])


def outlined(value: bytes) -> Object:
    """A stored object of which only metadata and what is small are decoded; the rest is left as it is written (`msgspec.Raw`).

    Of large metadata the fields that somebody owns are left, too.
    """
    if len(value) <= OUTLINED_BYTES_MIN:
        whole: Object = orjson.loads(value)
        return whole
    found = _small_decoded(_parts.decode(value))
    metadata = found["metadata"]
    if isinstance(metadata, msgspec.Raw):
        metadata = found["metadata"] = _small_decoded(_parts.decode(metadata))
        owned = metadata.get("managedFields")
        if isinstance(owned, msgspec.Raw):
            metadata["managedFields"] = [_small_decoded(_parts.decode(one)) for one in _lists.decode(owned)]
        for name, part in metadata.items():
            if isinstance(part, msgspec.Raw):
                metadata[name] = orjson.loads(bytes(part))
    return found


def _small_decoded(parts: dict[str, msgspec.Raw]) -> Object:
    return {
        name: part if memoryview(part).nbytes > OUTLINED_BYTES_MIN else orjson.loads(bytes(part))
        for name, part in parts.items()
    }


def _owned(encoded: bytes) -> bytes:
    return bytes(memoryview(encoded))


def with_revision(value: bytes, revision: int) -> bytes:
    """The stored bytes with `metadata.resourceVersion` in them, first in metadata."""
    at = value.index(_METADATA) + len(_METADATA)
    comma = b"" if value[at] == 0x7D else b","
    return b'%b"resourceVersion":"%d"%b%b' % (value[:at], revision, comma, value[at:])


def with_api_version(value: bytes, api_version: str) -> bytes:
    """The stored bytes under another apiVersion (conversion `None`)."""
    assert value.startswith(_HEAD), "values are in the stored layout"
    return b"%b%b%b" % (_HEAD, api_version.encode(), value[value.index(b'"', len(_HEAD)) :])


def same_json(one: object, other: object) -> bool:
    """Whether two decoded values are the same JSON, whatever the order of their keys.

    To Python 1, 1.0 and true are equal; to a client they are three values.
    """
    return one == other and _sorted(one) == _sorted(other)


def _sorted(value: object) -> bytes:
    return orjson.dumps(value, default=as_written, option=orjson.OPT_SORT_KEYS)
