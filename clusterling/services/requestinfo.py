"""Which logical cluster, verb and object a request means: a pure function over its raw target.

Rules of this file
- The cluster's segment is taken first, byte for byte, before anything is decoded: no escape, case, dot segment or
  doubled slash can move a request into another cluster (decision 19).
- Only the names of objects and namespaces are decoded, once; what they hold afterwards is checked.
- A target that is refused here is refused for its form alone, so the answer tells nothing of what exists.

Upstream: apiserver/pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus, unquote_to_bytes

from typing_extensions import override

from clusterling.machinery.errors import ApiError, bad_request, go_quote, no_such_resource
from clusterling.machinery.names import is_path_segment_name
from clusterling.machinery.selectors import FieldSelector

PATH_CHARACTERS_MAX: Final = 2_048
QUERY_CHARACTERS_MAX: Final = 32_768
PARAMETERS_MAX: Final = 64
_MEMOIZED_CHARACTERS_MAX: Final = 256
_PLAIN_NAME: Final = re.compile(r"[a-z0-9][-a-z0-9.]*")
_ANY_NAME: Final = "~"  # Stands for all plain ones, and for no namespace.

# Parameters by name, each with its values in order: Go's url.Values.
Query = dict[str, list[str]]

_CLUSTERS: Final = "/clusters/"
_EXPLAIN: Final = "/explain/deletion/"
_CLUSTER: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(?![^/])")
_DOTS: Final = re.compile(r"/\.\.?(?:/|\Z)")
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_VERBS: Final = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_PARTS: Final = frozenset({"status", "finalize"})
_NO_QUERY: Final[Query] = {}


class RequestInfo:
    """What a request asks for. `cluster` is "" where none is meant.

    `path` is what follows the cluster, raw. For a resource: `verb` is Kubernetes' (`list`, `deletecollection`, …),
    `name` may come from a field selector on a list; `in_namespace` tells `/namespaces/a/pods` from `/namespaces/a`,
    which both have the namespace `a`; `beyond` that segments follow the subresource. Else `verb` is the method in lower case.
    `explains`: what is asked for is why the object that the path names is not deleted (services/explaining.py).
    """

    __slots__ = (
        "beyond",
        "cluster",
        "explains",
        "group",
        "in_namespace",
        "is_resource",
        "name",
        "namespace",
        "path",
        "query",
        "resource",
        "subresource",
        "verb",
        "version",
    )

    def __init__(self, cluster: str, path: str, query: Query, verb: str) -> None:
        self.cluster = cluster
        self.path = path
        self.query = query
        self.verb = verb
        self.is_resource = False
        self.group = self.version = self.resource = self.subresource = self.namespace = self.name = ""
        self.in_namespace = self.beyond = self.explains = False

    def named(self, name: str) -> RequestInfo:
        """The same of another object of the collection; of an object as such, and no part of it."""
        info = RequestInfo(self.cluster, self.path[: -len(self.name)] + name, self.query, self.verb)
        info.is_resource = True
        info.group = self.group
        info.version = self.version
        info.resource = self.resource
        info.namespace = self.namespace
        info.in_namespace = self.in_namespace
        info.name = name
        return info

    @override
    def __repr__(self) -> str:
        fields = ", ".join(f"{slot}={getattr(self, slot)!r}" for slot in self.__slots__)
        return f"RequestInfo({fields})"


NOTHING: Final = RequestInfo("", "", _NO_QUERY, "")  # Of a request whose target could not be read.


def parse(method: str, path: str, query: str, *, prefixed: bool = True, default: str = "") -> RequestInfo:
    """Reads a raw target. What is returned may be shared by equal requests: nobody changes it.

    `prefixed` False: this listener serves one cluster, `/clusters/` means nothing on it. `default` is the cluster that
    is meant where the path names none. Raises ApiError 400 or 404 for a target that can mean nothing.
    """
    if len(path) + len(query) > _MEMOIZED_CHARACTERS_MAX:
        return _parse(method, path, query, prefixed, default)
    above, _, name = path.rpartition("/")
    if _PLAIN_NAME.fullmatch(name):
        beside = _beside_memoized(method, above, query, prefixed, default)
        if beside is not None:
            return beside.named(name)
    return _parse_memoized(method, path, query, prefixed, default)


def _beside(method: str, above: str, query: str, prefixed: bool, default: str) -> RequestInfo | None:
    """What asks for an object right below that path, whatever it is called; None where what stands there is no object's name."""
    try:
        info = _parse(method, f"{above}/{_ANY_NAME}", query, prefixed, default)
    except ApiError:
        return None
    is_named = info.name == _ANY_NAME and info.namespace != _ANY_NAME and not info.subresource
    return info if is_named and not (info.beyond or info.explains) else None


def _parse(method: str, path: str, query: str, prefixed: bool, default: str) -> RequestInfo:
    if len(path) > PATH_CHARACTERS_MAX or not path.startswith("/"):
        raise no_such_resource()
    cluster = default
    if prefixed and path.startswith(_CLUSTERS):
        match = _CLUSTER.match(path, len(_CLUSTERS))
        if match is None:
            raise no_such_resource()
        cluster = match[0]
        path = path[match.end() :] or "/"
    if _is_odd(path):
        raise no_such_resource()
    info = RequestInfo(cluster, path, parse_query(query) if query else _NO_QUERY, method.lower())
    if path.startswith(_EXPLAIN):
        if not path.startswith(_EXPLAIN, len(_EXPLAIN) - 1):
            _read_explained(info, method)
        return info
    parts = path[1:-1].split("/") if path[-1] == "/" else path[1:].split("/")
    if parts[0] == "api" and len(parts) >= 3:
        _structural(path, parts[:3])
        info.version = parts[1]
        _read_resource(info, method, parts[2:])
    elif parts[0] == "apis" and len(parts) >= 4:
        _structural(path, parts[:4])
        info.group = parts[1]
        info.version = parts[2]
        _read_resource(info, method, parts[3:])
    elif "%" in path:
        raise no_such_resource()
    return info


def _read_explained(info: RequestInfo, method: str) -> None:
    """The question is authorized as a GET of the object that it is about; where it is about none, it is no path of ours."""
    about = _parse(method, info.path[len(_EXPLAIN) - 1 :], "", prefixed=False, default="")
    if about.is_resource and about.verb == "get" and method == "GET" and about.name and not about.subresource:
        for field in ("group", "version", "resource", "namespace", "name", "verb", "in_namespace", "beyond"):
            setattr(info, field, getattr(about, field))
        info.is_resource = info.explains = True


_parse_memoized: Final = lru_cache(maxsize=4096)(_parse)
_beside_memoized: Final = lru_cache(maxsize=4096)(_beside)


def forget() -> None:
    """Lets go of the targets that were read before: of thousands of clusters that are gone, these would be left."""
    _parse_memoized.cache_clear()
    _beside_memoized.cache_clear()


def parse_query(query: str) -> Query:
    """The query's parameters. Empty parts, parts with a semicolon and broken escapes are left out, as Go leaves them.

    Raises ApiError 400 where it is longer than any client has a reason for.
    """
    if len(query) > QUERY_CHARACTERS_MAX:
        raise bad_request(f"the query is too long: limit is {QUERY_CHARACTERS_MAX} characters")
    parts = query.split("&", PARAMETERS_MAX)
    if len(parts) > PARAMETERS_MAX:
        raise bad_request(f"the query has too many parameters: limit is {PARAMETERS_MAX}")
    values: Query = {}
    for part in parts:
        if not part or ";" in part or _ESCAPE.search(part):
            continue
        name, _, value = part.partition("=")
        if "%" in part or "+" in part:
            name, value = unquote_plus(name), unquote_plus(value)
        values.setdefault(name, []).append(value)
    return values


def first(query: Query, name: str) -> str:
    """The parameter's first value, "" where it is not given: Go's Values.Get."""
    values = query.get(name)
    return values[0] if values else ""


def is_true(values: Sequence[str] | None) -> bool:
    """A parameter as a boolean: given, and neither `0` nor `false` (upstream: Convert_Slice_string_To_bool)."""
    return bool(values) and values is not None and values[0] != "0" and values[0].lower() != "false"


def _is_odd(path: str) -> bool:
    """It has an empty or a dot segment, or a character that belongs in no target."""
    return (
        "//" in path
        or not (path.isascii() and path.isprintable())
        or " " in path
        or ("/." in path and _DOTS.search(path) is not None)
    )


def _structural(path: str, parts: Sequence[str]) -> None:
    """Raises ApiError 404 where one of these parts of the path has an escape."""
    if "%" in path and any("%" in part for part in parts):
        raise no_such_resource()


def _read_resource(info: RequestInfo, method: str, parts: list[str]) -> None:
    """Fills in the rest from the segments after the version; `parts` has at least one."""
    info.is_resource = True
    by_prefix = parts[0] in {"watch", "proxy"}
    if by_prefix:
        if len(parts) < 2:
            raise no_such_resource()
        info.verb = parts[0]
        parts = parts[1:]
    else:
        info.verb = _VERBS.get(method, "")
    if parts[0] == "namespaces" and len(parts) > 1:
        info.namespace = _name(parts[1], "Namespace")
        if len(parts) > 2 and parts[2] not in _NAMESPACE_PARTS:
            parts = parts[2:]
            info.in_namespace = True
    _structural(info.path, parts[:1] + parts[2:])
    info.resource = parts[0]
    if len(parts) >= 2:
        info.name = _name(parts[1], "Name")
        # The old watch and proxy forms have no subresources: anything further is not theirs.
        info.beyond = len(parts) > (2 if by_prefix else 3)
        if len(parts) >= 3 and not by_prefix:
            info.subresource = parts[2]
    elif info.verb == "get":
        info.verb = "watch" if is_true(info.query.get("watch")) else "list"
        info.name = _selected_name(info.query)
    elif info.verb == "delete":
        info.verb = "deletecollection"


def _selected_name(query: Query) -> str:
    """The one name that a list's field selector allows, if it says so: authorization may then grant that name alone."""
    text = first(query, "fieldSelector")
    if "metadata.name" not in text:
        return ""
    try:
        name = FieldSelector.parse(text).exact("metadata.name")
    except (ValueError, ApiError):
        return ""
    return name if name and not is_path_segment_name(name) else ""


def _name(segment: str, what: str) -> str:
    """A name from its segment, decoded once. Raises ApiError 400 where it could not be one segment of a key."""
    if "%" not in segment:
        return segment
    if _ESCAPE.search(segment):
        raise bad_request(f"{what} parameter invalid: {go_quote(segment)}: invalid URL escape")
    try:
        name = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        raise bad_request(f"{what} parameter invalid: not valid UTF-8") from None
    if "/" in name:
        # Upstream routes by the decoded path, which is another then.
        raise no_such_resource()
    problems = is_path_segment_name(name)
    if not problems and _CONTROL.search(name):
        problems = ["may not contain control characters"]
    if problems or not name:
        raise bad_request(f"{what} parameter invalid: {go_quote(name)}: {', '.join(problems)}")
    return name
