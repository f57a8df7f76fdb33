"""node.k8s.io/v1: RuntimeClasses. What one does to pods is in core/pods_admission.py. Upstream: kubernetes pkg/registry/node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, GoStruct, duplicate, invalid_value, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label
from clusterling.machinery.objectmeta import validate_labels
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec import reading
from clusterling.packs.core.podspec.defaults import read_resources
from clusterling.packs.core.podspec.resources import requirement_problems
from clusterling.packs.core.podspec.scheduling import toleration_problems
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

_TOLERATION: Final = ("Key", "Operator", "Value", "Effect")


class RuntimeClassStrategy(Strategy):
    has_generation = False
    allow_unconditional_update = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("handler", "")
        if new.get("overhead"):
            with reading(new):
                read_resources(new["overhead"], "podFixed")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_problems(new))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if new["handler"] != old["handler"]:
            return [invalid_value("handler", None, "field is immutable")]
        return ()


def _problems(new: Object) -> Iterator[FieldError]:
    limits = {"limits": (new.get("overhead") or {}).get("podFixed") or {}}
    yield from requirement_problems(limits, "overhead")
    scheduling = new.get("scheduling") or {}
    yield from validate_labels(scheduling.get("nodeSelector") or {}, "scheduling.nodeSelector")
    yield from toleration_problems(scheduling, "scheduling")
    seen = set()
    for index, one in enumerate(scheduling.get("tolerations") or ()):
        listed = tuple(one.get(field.lower()) or "" for field in _TOLERATION)
        if listed in seen:
            shown: Object = dict(zip(_TOLERATION, listed, strict=True))
            shown["TolerationSeconds"] = one.get("tolerationSeconds")
            yield duplicate(f"scheduling.tolerations[{index}]", GoStruct(shown))
        seen.add(listed)
    # Upstream declares this rule, and what is declared is told last.
    handler = new["handler"]
    if handler:
        for problem in is_dns1123_label(handler):
            yield invalid_value("handler", handler, problem)
    else:
        yield required("handler")


RUNTIMECLASSES: Final = builtin.resource(
    "node.k8s.io",
    "v1",
    "runtimeclasses",
    strategy=RuntimeClassStrategy(),
    columns=(NAME_COLUMN, Column("Handler", "string", lambda obj, _: obj.get("handler", "")), builtin.AGE),
)

PACK: Final = Pack("node", (RUNTIMECLASSES,))
