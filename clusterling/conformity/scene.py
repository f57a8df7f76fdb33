"""Where checks play: a server, a namespace of their own in it, one custom kind; all of it taken away at the end.

Names carry a random part, so that runs do not meet. Nothing that was there before is written to.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import cached_property
from typing import Final

from clusterling.conformity.row import DoesNotApply, Failed, need_ok
from clusterling.conformity.wire import Answer, OutOfTime, Unreachable, Wire
from clusterling.machinery.meta import Object

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

_POLL_S: Final = 0.05
_SWEPT: Final = ("configmaps", "secrets", "events", "serviceaccounts")
_WIDGET_SCHEMA: Final[Object] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {"size": {"type": "integer", "minimum": 0}, "colour": {"type": "string"}},
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


class Scene:
    """What a check is given."""

    patience_s = 15.0  # For what a server may do a little later, as establishing a kind.

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.run = f"c{secrets.token_hex(4)}"
        self.namespace = f"conformity-{self.run}"
        self.group = f"{self.run}.conformity.clusterling.io"
        self._count = 0
        self._crds: list[str] = []
        self._settled = False

    @cached_property
    def home(self) -> str:
        """The path of the namespace, which is made when it is first asked for.

        Raises Failed where it is refused, DoesNotApply where the server has no namespaces: one of custom kinds alone.
        """
        body: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        answer = self.wire.post("/api/v1/namespaces", body)
        if answer.code == 404:
            raise DoesNotApply("namespaces are not served")
        need_ok(answer, "creating a namespace")
        self._settled = True
        return f"/api/v1/namespaces/{self.namespace}"

    @cached_property
    def configmaps(self) -> str:
        """The collection that most rows work on. Raises DoesNotApply where it is not served."""
        path = f"{self.home}/configmaps"
        if self.wire.get(path, limit=1).code == 404:
            raise DoesNotApply("configmaps are not served")
        return path

    @property
    def widgets(self) -> str:
        """The collection of a custom kind with a status subresource, in the namespace."""
        assert self.home, "the namespace comes first"
        return f"{self._widgets_root}/namespaces/{self.namespace}/widgets"

    @cached_property
    def _widgets_root(self) -> str:
        self.define("widgets", "Widget")
        return f"/apis/{self.group}/v1"

    @cached_property
    def served(self) -> dict[str, Object]:
        """What plain discovery lists: `group/version/resource` (core: `v1/resource`) to the entry there."""
        found: dict[str, Object] = {}
        roots = {
            f"/api/{version}": version for version in self.wire.get("/api").document.get("versions") or ()
        }
        for group in self.wire.get("/apis").document.get("groups") or ():
            for version in group.get("versions") or ():
                roots[f"/apis/{version['groupVersion']}"] = version["groupVersion"]
        for root, group_version in roots.items():
            for one in self.wire.get(root).document.get("resources") or ():
                found[f"{group_version}/{one['name']}"] = {**one, "root": root}
        return found

    @cached_property
    def controlled(self) -> bool:
        """Whether a controller manager, or what stands for it, works here: some namespace has the account `default`."""
        found = self.wire.get("/api/v1/serviceaccounts", fieldSelector="metadata.name=default")
        return bool(found.document.get("items"))

    def requires(self, resource: str) -> None:
        """Raises DoesNotApply where the server has no such resource, written as in `served`."""
        if resource not in self.served:
            raise DoesNotApply(f"{resource} is not served")

    def name(self, prefix: str = "one") -> str:
        """A name that nobody has."""
        self._count += 1
        return f"{prefix}-{self._count}"

    def configmap(self, name: str = "", labels: Object | None = None, **metadata: object) -> Object:
        """A ConfigMap as it was created."""
        found = {"name": name or self.name(), **({"labels": labels} if labels else {}), **metadata}
        body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": found, "data": {"k": "v"}}
        return self.made(self.configmaps, body)

    def widget(self, **spec: object) -> Object:
        """A Widget as it was created."""
        return self.made(self.widgets, self.widget_body(**spec))

    def widget_body(self, **spec: object) -> Object:
        return {
            "apiVersion": f"{self.group}/v1",
            "kind": "Widget",
            "metadata": {"name": self.name("widget")},
            "spec": spec or {"size": 1},
        }

    def made(self, path: str, body: Object, **query: object) -> Object:
        """Creates an object. Raises Failed where that is refused."""
        answer = self.wire.post(path, body, **query)
        return need_ok(answer, f"creating a {body['kind']}")

    def crd(self, plural: str, kind: str) -> Object:
        """The definition of a namespaced kind of this run's group."""
        version = {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": _WIDGET_SCHEMA},
            "subresources": {"status": {}},
        }
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{self.group}"},
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "plural": plural,
                    "singular": kind.lower(),
                    "kind": kind,
                    "listKind": f"{kind}List",
                },
                "versions": [version],
            },
        }

    def define(self, plural: str, kind: str) -> Object:
        """Creates a definition, and returns what the POST answered once the kind can be listed."""
        answer = self.wire.post(CRDS, self.crd(plural, kind))
        if answer.code == 404:
            raise DoesNotApply("custom resources are not served")
        created = need_ok(answer, "creating a CustomResourceDefinition")
        self._crds.append(created["metadata"]["name"])
        listed = f"/apis/{self.group}/v1/{plural}"
        if not self.comes(lambda: self.wire.get(listed, limit=1).ok, self.patience_s):
            raise Failed(
                f"a custom kind is not served {self.patience_s:g} s after its definition was created"
            )
        return created

    def comes(self, holds: Callable[[], object], wait_s: float) -> bool:
        """Whether something becomes true in time."""
        end = time.monotonic() + wait_s
        while not holds():
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True

    def remove(self, path: str) -> Answer:
        """Deletes an object that may have finalizers of ours."""
        self.wire.patch(path, {"metadata": {"finalizers": None}})
        return self.wire.delete(path)

    def clear(self) -> list[str]:
        """Takes away what the run made; returns what could not be, one line each."""
        self.wire.deadline = time.monotonic() + self.patience_s
        left: list[str] = []
        try:
            for name in self._crds:
                answer = self.wire.delete(f"{CRDS}/{name}")
                if not answer.ok and answer.code != 404:
                    left.append(f"customresourcedefinitions/{name}: {answer.told}")
            if self._settled:
                self._sweep()
                if not self.wire.delete(f"/api/v1/namespaces/{self.namespace}").ok:
                    left.append(f"namespaces/{self.namespace}")
        except (Unreachable, OutOfTime, KeyError, TypeError, AttributeError) as error:
            left.append(f"namespaces/{self.namespace} and what is in it: {error}")
        return left

    def _sweep(self) -> None:
        """Objects first: where nothing completes the deletion of namespaces, at least they are gone."""
        for one in self.wire.get(f"{self.home}/configmaps").document.get("items") or ():
            if one["metadata"].get("finalizers"):
                self.remove(f"{self.home}/configmaps/{one['metadata']['name']}")
        for plural in _SWEPT:
            self.wire.delete(f"{self.home}/{plural}")
        self.wire.delete(f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases")
