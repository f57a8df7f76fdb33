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


def _keep_names(new: Object) -> None:
    """Of a reference to a Secret only the name is kept."""
    if "secrets" in new:
        new["secrets"] = [{"name": one["name"]} if "name" in one else {} for one in new["secrets"]]


class ServiceAccountStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        # What is empty is not written.
        for field in ("secrets", "imagePullSecrets"):
            given = new.pop(field, None)
            if given:
                new[field] = [{name: value for name, value in (one or {}).items() if value} for one in given]

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        _keep_names(new)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        _keep_names(new)

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
