"""ServiceAccounts. Upstream: kubernetes pkg/registry/core/serviceaccount."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.meta import Object, meta
from clusterling.packs import builtin
from clusterling.packs.core.tokens import TOKEN
from clusterling.registry.strategy import Context, Strategy

_MOUNTABLE: Final = "kubernetes.io/enforce-mountable-secrets"


class ServiceAccountStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        # Of a reference to a Secret only the name is kept, and what is empty is not written.
        for field in ("secrets", "imagePullSecrets"):
            named = [
                {"name": one["name"]} if one and one.get("name") else {} for one in new.pop(field, None) or ()
            ]
            if named:
                new[field] = named

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if _MOUNTABLE not in (meta(new).get("annotations") or {}):
            return ()
        return (
            f"metadata.annotations[{_MOUNTABLE}]: deprecated in v1.32+; "
            "prefer separate namespaces to isolate access to mounted secrets",
        )


SERVICEACCOUNTS: Final = builtin.resource(
    "", "v1", "serviceaccounts", strategy=ServiceAccountStrategy(), subresources=(TOKEN,)
)
