"""The behaviour of every custom resource: its status apart from the rest, its scale, its warnings.

Upstream: apiextensions-apiserver `pkg/registry/customresource/{strategy,status_strategy,validator}.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.codec import outlined
from clusterling.machinery.errors import FieldError, go_quote, invalid_value
from clusterling.machinery.gotext import go_text, go_type
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_qualified_name
from clusterling.registry.resource import Scale, Version
from clusterling.registry.strategy import RESETS_METADATA, Context, Strategy

_INT32_MAX: Final = 2**31 - 1


class CustomResourceStrategy(Strategy):
    """The behaviour of every custom resource (upstream: pkg/registry/customresource/{strategy,status_strategy}.go)."""

    resets = RESETS_METADATA

    allow_unconditional_update = False

    def __init__(self, versions: Sequence[Version] = ()) -> None:
        """`versions` of the kind; without any, the request's catalog is asked."""
        self._versions: Mapping[str, Version] = {version.name: version for version in versions}

    def knowing(self, versions: Sequence[Version]) -> CustomResourceStrategy:
        """The same strategy for a kind with these versions, which say what has a status and a scale."""
        return type(self)(versions)

    def _version(self, ctx: Context, obj: Object) -> Version | None:
        group, _, name = obj["apiVersion"].rpartition("/")
        known = self._versions.get(name)
        if known is None and not self._versions:
            served = ctx.catalog.by_kind(group, name, obj["kind"])
            return None if served is None else served.version
        return known

    @override
    def outline(self, value: bytes) -> Object:
        return outlined(value)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        """A new object has no status yet, where that is written apart."""
        version = self._version(ctx, new)
        if version is not None and version.status:
            new.pop("status", None)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        """A write of the object leaves its status alone, a write of the status all the rest."""
        if ctx.subresource == "status":
            _take_status_only(new, old)
            return
        version = self._version(ctx, new)
        if version is not None and version.status:
            if "status" in old:
                new["status"] = old["status"]
            else:
                new.pop("status", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return self._judge(ctx, new, None)

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return self._judge(ctx, new, old)

    def _judge(self, ctx: Context, new: Object, old: Object | None) -> Sequence[FieldError]:
        version = self._version(ctx, new)
        scale = None if version is None else version.scale
        return (
            [] if scale is None else list(_scale_errors(new, scale, only_status=ctx.subresource == "status"))
        )

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        return () if ctx.subresource == "status" else list(_finalizer_warnings(new, old))


def _take_status_only(new: Object, old: Object) -> None:
    status, given = new.get("status"), "status" in new
    new.clear()
    new.update(old)
    # Metadata is still written to by the caller, and must not be the old object's then.
    new["metadata"] = dict(old["metadata"])
    new.pop("status", None)
    if given:
        new["status"] = status


def _scale_errors(obj: Object, scale: Scale, *, only_status: bool) -> Iterator[FieldError]:
    """ValidateScaleSpec and ValidateScaleStatus: what `/scale` reads must be there in the right form."""
    if not only_status:
        yield from _replicas_errors(obj, scale.spec_replicas_path)
    yield from _replicas_errors(obj, scale.status_replicas_path)
    if scale.selector_path:
        _, problem = _nested(obj, scale.selector_path, str)
        if problem:
            yield invalid_value(f".{scale.selector_path}", "", problem)


def _replicas_errors(obj: Object, path: str) -> Iterator[FieldError]:
    value, problem = _nested(obj, path, int)
    if problem:
        yield invalid_value(f".{path}", 0, problem)
        return
    count = value if isinstance(value, int) else 0
    if count < 0:
        yield invalid_value(f".{path}", count, "should be a non-negative integer")
    elif count > _INT32_MAX:
        yield invalid_value(f".{path}", count, f"should be less than or equal to {_INT32_MAX}")


_GO_EXPECTED: Final = {int: "int64", str: "string", dict: "map[string]interface{}"}


def _nested(obj: Object, path: str, wanted: type) -> tuple[object, str]:
    """(value, what is wrong): apimachinery unstructured/helpers.go, NestedInt64 and NestedString."""
    value: object = obj
    names = path.split(".")
    for at, name in enumerate(names):
        if value is None:
            return None, ""
        if type(value) is not dict:
            return None, _accessor_error(names[: at + 1], value, dict)
        if name not in value:
            return None, ""
        value = value[name]
    if type(value) is not wanted:
        return None, _accessor_error(names, value, wanted)
    return value, ""


def _accessor_error(names: Sequence[str], value: object, wanted: type) -> str:
    return (
        f".{'.'.join(names)} accessor error: {go_text(value)} is of the type {'<nil>' if value is None else go_type(value)}, "
        f"expected {_GO_EXPECTED[wanted]}"
    )


_STANDARD_FINALIZERS: Final = frozenset({"orphan", "foregroundDeletion", "kubernetes"})


def _finalizer_warnings(new: Object, old: Object | None) -> Iterator[str]:
    """Upstream: validator.go, validateKubeFinalizerName."""
    before = () if old is None else old["metadata"].get("finalizers") or ()
    for finalizer in sorted(set(new["metadata"].get("finalizers") or ()) - set(before)):
        said = f"metadata.finalizers: {go_quote(finalizer)}: "
        yield from (said + text for text in is_qualified_name(finalizer))
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            path = " including a path (/)" if "." in finalizer else ""
            yield (
                f"{said}prefer a domain-qualified finalizer name{path} "
                "to avoid accidental conflicts with other finalizer writers"
            )
