"""The scale subresource: an `autoscaling/v1` Scale read out of an object, and its replicas written back.

Upstream: apiextensions-apiserver/pkg/registry/customresource/etcd.go (ScaleREST).
"""

from __future__ import annotations

from functools import cache
from typing import Final

from clusterling.machinery.apply.managed import kind_text
from clusterling.machinery.codec import Expected, cannot_be_handled
from clusterling.machinery.errors import (
    ApiError,
    bad_request,
    conflict,
    go_quote,
    internal_error,
    invalid,
    invalid_value,
)
from clusterling.machinery.gotext import go_text, go_type
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.table import AGE_COLUMN, NAME_COLUMN, Column
from clusterling.registry import managing
from clusterling.registry.options import WriteOptions
from clusterling.registry.receiving import receive
from clusterling.registry.resource import Names, Resource, Scale, Served, Version
from clusterling.registry.strategy import Context, Strategy

EXPECTED: Final = Expected("autoscaling/v1", "Scale", typed=True)

_NO_SCALE: Final = 'no kind is registered for the type v1.Scale in scheme "pkg/runtime/scheme.go:111"'

# Upstream: kubernetes pkg/printers/internalversion, printScale; apiextensions tableconvertor for Scale.
COLUMNS: Final = (
    NAME_COLUMN,
    Column(
        "Desired", "integer", lambda obj, _: obj["spec"].get("replicas", 0), "", "Number of desired replicas"
    ),
    Column("Available", "integer", lambda obj, _: obj["status"]["replicas"], "", "Number of actual replicas"),
    AGE_COLUMN,
)


def read(obj: Object, served: Served, *, complete: bool = True) -> Object:
    """The object's Scale. `complete`: raises ApiError 500 where the object has no number of replicas.

    Otherwise such a Scale has no `spec.replicas`, and whoever writes it back has to bring one.
    """
    paths = _paths(served)
    replicas = _integer(obj, paths.spec_replicas_path)
    if replicas is None and complete:
        raise internal_error(
            f"the spec replicas field {go_quote('.' + paths.spec_replicas_path.lstrip('.'))} does not exist"
        )
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _integer(obj, paths.status_replicas_path) or 0}
    selector = _selector(obj, paths)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


@cache
def _kind() -> Served:
    """Scale as a kind, which its bodies are held to as objects are to theirs."""
    from clusterling.packs import builtin

    version = Version("v1", builtin.schema_of("autoscaling", "v1", "Scale"))
    names = Names("scales", "scale", "Scale", "ScaleList")
    resource = Resource("autoscaling", names, True, (version,), "v1", Strategy(), verbs=())
    return Served(resource, version)


def hold(ctx: Context, scale: Object, options: WriteOptions) -> None:
    """Reads what came as a Scale, as any built-in kind is read. Raises ApiError 400 (`Undecodable` for its fields)."""
    kind, version = scale.get("kind"), scale.get("apiVersion")
    if kind != EXPECTED.kind or version != EXPECTED.api_version:
        why = (
            f"no kind {go_quote(str(kind))} is registered for version {go_quote(str(version))} "
            'in scheme "pkg/runtime/scheme.go:111"'
        )
        raise cannot_be_handled(str(kind), str(version), EXPECTED.kind, why)
    receive(ctx, _kind(), scale, options)


def hold_body(ctx: Context, served: Served, scale: Object, options: WriteOptions) -> None:
    """The same for a whole Scale, of which custom kinds say nothing but that it is none. Raises ApiError 400."""
    try:
        hold(ctx, scale, options)
    except ApiError as error:
        raise error if served.resource.builtin else bad_request(_NO_SCALE) from error


def write(obj: Object, served: Served, scale: Object) -> Object:
    """`obj` with the replicas of `scale`, which has been held to its kind, and its resourceVersion as the one to write over.

    Raises ApiError: 400 where there is no number of replicas yet and none comes, 409 for another object's, 422.
    """
    path = _paths(served).spec_replicas_path
    replicas = (scale.get("spec") or {}).get("replicas")
    if replicas is None:
        # A Scale without replicas has Go's zero.
        if _integer(obj, path) is None:
            raise bad_request(f"the spec replicas field {go_quote('.' + path.lstrip('.'))} cannot be empty")
        replicas = 0
    if served.resource.builtin and replicas < 0:
        wrong = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", obj["metadata"]["name"], [wrong])
    *parents, last = _segments(path)
    place = obj
    for segment in parents:
        inner = place.setdefault(segment, {})
        if not isinstance(inner, dict):
            raise _accessor_error(path, inner, "map[string]interface {}")
        place = inner
    place[last] = replicas
    metadata = scale.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    uid, mine = metadata.get("uid") if isinstance(metadata, dict) else None, obj["metadata"]["uid"]
    if uid and uid != mine:
        raise conflict(
            served.plural,
            served.group,
            obj["metadata"]["name"],
            f"StorageError: invalid object, Code: 4, Key: /registry/{served.group}/{served.plural}, ResourceVersion: 0, "
            f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {mine}",
        )
    obj["metadata"]["resourceVersion"] = version or ""
    return obj


def applied(scale: Object, served: Served, name: str) -> Object:
    """The configuration of an object that a Scale applied to it means. Raises ApiError 400; 500 for what is no Scale."""
    version, kind = scale.get("apiVersion"), scale.get("kind")
    if kind != EXPECTED.kind or version != EXPECTED.api_version:
        raise bad_request(f"invalid object type: {kind_text(scale)}")
    managing.check_applied(_kind(), scale)
    metadata = scale.get("metadata") or {}
    kept = {field: metadata[field] for field in ("resourceVersion", "uid") if metadata.get(field)}
    made: Object = {"apiVersion": served.api_version, "kind": served.kind, "metadata": {"name": name, **kept}}
    spec = scale.get("spec") or {}
    if "replicas" not in spec:
        return made
    place = made
    *parents, last = _segments(_paths(served).spec_replicas_path)
    for segment in parents:
        place = place.setdefault(segment, {})
    place[last] = spec["replicas"]
    return made


def _paths(served: Served) -> Scale:
    paths = served.version.scale
    assert paths is not None, "dispatch serves scale only where the version has it"
    return paths


def _segments(path: str) -> list[str]:
    return path.removeprefix(".").split(".")


def _find(obj: Object, path: str) -> object:
    value: object = obj
    for segment in _segments(path):
        if not isinstance(value, dict):
            raise _accessor_error(path, value, "map[string]interface {}")
        value = value.get(segment)
        if value is None:
            return None
    return value


def _integer(obj: Object, path: str) -> int | None:
    value = _find(obj, path)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise _accessor_error(path, value, "int64")
    return value


def _selector(obj: Object, paths: Scale) -> str:
    if not paths.selector_path:
        return ""
    value = _find(obj, paths.selector_path)
    if paths.selector_is_map:
        return str(LabelSelector.from_object({"matchLabels": value})) if isinstance(value, dict) else ""
    if paths.selector_is_object:
        return str(LabelSelector.from_object(value)) if isinstance(value, dict) else ""
    if value is not None and not isinstance(value, str):
        raise _accessor_error(paths.selector_path, value, "string")
    return value or ""


def _accessor_error(path: str, value: object, expected: str) -> ApiError:
    return internal_error(
        f".{path.lstrip('.')} accessor error: {go_text(value)} is of the type {go_type(value)}, expected {expected}"
    )
