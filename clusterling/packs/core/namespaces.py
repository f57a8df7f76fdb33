"""Namespaces: Active, then Terminating until their content is gone; the fence that guards what is created in them.

Upstream: kubernetes pkg/registry/core/namespace, apiserver pkg/admission/plugin/namespace/lifecycle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.codec import encode_stored
from clusterling.machinery.errors import FieldError, invalid_value
from clusterling.machinery.meta import Object, meta, name_of, rfc3339
from clusterling.machinery.names import is_dns1123_label, is_qualified_name
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core import provisions
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.strategy import NO_COMPANIONS, Companions, Context, Strategy
from clusterling.registry.uids import new_uid
from clusterling.storage.store import Op

FINALIZER: Final = "kubernetes"
NAME_LABEL: Final = "kubernetes.io/metadata.name"
TERMINATING_FENCE: Final = b'{"phase":"Terminating"}'

_IMMORTAL: Final = frozenset(("default", "kube-system", "kube-public"))
_STANDARD_FINALIZERS: Final = frozenset((FINALIZER, "orphan", "foregroundDeletion"))


class NamespaceStrategy(Strategy):
    has_generation = False
    name_problems = staticmethod(is_dns1123_label)

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {})
        if ctx.subresource == "status":
            new.setdefault("status", {}).setdefault("phase", "Active")
        _label(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = {"phase": "Active"}
        spec = new.setdefault("spec", {})
        finalizers = spec.setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)
        _label(new)  # Its name may have been generated.

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old.get("spec", {})
        else:
            new["status"] = old.get("status", {})
        spec = new.setdefault("spec", {})
        if not ctx.subresource:
            _keep_finalizers(spec, old.get("spec", {}))
        elif not spec.get("finalizers"):
            spec.pop("finalizers", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return [error for name in _finalizers(new) for error in _finalizer_problems(name, "spec.finalizers")]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return _phase_problems(new)
        if ctx.subresource == "finalize":
            return [
                error
                for index, name in enumerate(_finalizers(new))
                for error in _finalizer_problems(name, f"spec.finalizers[{index}]")
            ]
        return self.validate(ctx, new)

    @override
    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        if new is None:
            assert old is not None, "something is being removed"
            return Companions(ops=(Op(NAMESPACE_FENCE + name_of(old), None),))
        phase = _phase(new)
        if old is not None and _phase(old) == phase:
            return NO_COMPANIONS
        fence = TERMINATING_FENCE if phase == "Terminating" else ACTIVE_FENCE
        provided = _provisions(ctx, name_of(new)) if old is None else ()
        return Companions(ops=(Op(NAMESPACE_FENCE + name_of(new), fence), *provided))

    @override
    def may_delete(self, ctx: Context, old: Object) -> None:
        if name_of(old) in _IMMORTAL:
            raise errors.forbidden("namespaces", "", name_of(old), "this namespace may not be deleted")

    @override
    def begin_delete(self, ctx: Context, obj: Object) -> bool:
        began = "deletionTimestamp" in meta(obj)
        obj.setdefault("status", {})["phase"] = "Terminating"
        return not began or bool(_finalizers(obj))

    @override
    def is_finished(self, obj: Object) -> bool:
        return not _finalizers(obj)

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"status.phase": _phase(obj)}


def _provisions(ctx: Context, name: str) -> Iterator[Op]:
    """What a namespace has from its first moment, of the kinds that the cluster serves: a pod can follow at once.

    Upstream's controllers make them a moment later. Here one brings back what of it goes (controllers/provisions.py).
    """
    now = rfc3339(ctx.ports.clock.now())
    for obj, plural in (
        (provisions.account(name), "serviceaccounts"),
        (provisions.certificates(name, ctx.ports.root_ca), "configmaps"),
    ):
        served = ctx.catalog.find("", "v1", plural)
        if served is not None:
            meta(obj).update(uid=new_uid(), creationTimestamp=now)
            yield Op(served.resource.key(name, name_of(obj)), encode_stored(obj))


def _label(obj: Object) -> None:
    metadata = meta(obj)
    if not metadata.get("name"):
        return  # It is to be generated.
    metadata["labels"] = {**(metadata.get("labels") or {}), NAME_LABEL: name_of(obj)}


def _keep_finalizers(new: Object, old: Object) -> None:
    if "finalizers" in old:
        new["finalizers"] = old["finalizers"]
    else:
        new.pop("finalizers", None)


def _finalizers(obj: Object) -> Sequence[str]:
    found: Sequence[str] = obj.get("spec", {}).get("finalizers") or ()
    return found


def _phase(obj: Object) -> str:
    return str(obj.get("status", {}).get("phase", ""))


def _finalizer_problems(name: str, path: str) -> list[FieldError]:
    # kubernetes pkg/apis/core/validation: validateFinalizerName
    found = [invalid_value(path, name, problem) for problem in is_qualified_name(name)]
    if "/" not in name and name not in _STANDARD_FINALIZERS:
        found.append(
            invalid_value(path, name, "name is neither a standard finalizer name nor is it fully qualified")
        )
    return found


def _phase_problems(new: Object) -> list[FieldError]:
    going = "deletionTimestamp" in meta(new)
    wanted = "Terminating" if going else "Active"
    if _phase(new) == wanted:
        return []
    return [
        invalid_value(
            "status.Phase",
            _phase(new),
            f"may only be '{wanted}' if `deletionTimestamp` is {'not ' if going else ''}empty",
        )
    ]


def bootstrap(name: str) -> Object:
    """A namespace that every cluster has, as it is stored; uid and creation time come with the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {NAME_LABEL: name}},
        "spec": {"finalizers": [FINALIZER]},
        "status": {"phase": "Active"},
    }


BOOTSTRAP: Final = tuple(map(bootstrap, provisions.FIRST))

NAMESPACES: Final = builtin.resource(
    "",
    "v1",
    "namespaces",
    strategy=NamespaceStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Status", "string", lambda obj, _: _phase(obj), "", "The status of the namespace"),
        builtin.AGE,
    ),
    parts=("finalize",),
)
